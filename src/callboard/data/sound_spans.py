"""A few seconds of a recording, wherever they are in it, without the rest in memory."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from callboard.core.errors import UserError
from callboard.core.reading import reading
from callboard.data.audio import LONGEST_SAMPLES, PLAUSIBLE_HZ, BadRecording, open_recording
from callboard.data.wav_chunks import wav_damage
from callboard.params.features import AudioParams

LONGEST_SPAN_S = 64.0
"""Longest span that is read at a time, seconds."""

MOST_SPAN_SAMPLES = 2**25
"""Most samples of a span, of all channels: 64 s at 500 kHz."""

FORWARD_ONLY = {"MP3", "MPEG"}
"""Formats in which a decoder that goes to a place starts anew, which changes samples."""


class SoundSpan(NamedTuple):
    """Part of a recording at its own rate."""

    waveform: NDArray[np.float32]
    """(n,) mean over channels."""
    sample_rate: int
    start_s: float

    @property
    def stop_s(self) -> float:
        """End of the part, seconds from the beginning of the recording."""
        return self.start_s + len(self.waveform) / self.sample_rate


def read_span(path: Path, start_s: float, stop_s: float) -> SoundSpan:
    """Read the part of a recording from `start_s` to `stop_s`, within its ends.

    Only this part is decoded, except in an MP3 file, which is decoded from its beginning piece by piece.

    Args:
        path: The recording.
        start_s: Seconds from its beginning; negative counts as 0.
        stop_s: Seconds; beyond the end counts as the end.

    Raises:
        BadRecording: The file is missing or damaged, the part is longer than LONGEST_SPAN_S or
            has more than MOST_SPAN_SAMPLES, or the recording ends before it.
    """
    if not path.is_file():
        raise BadRecording(path.stem, f"no such file: {path}")
    if damage := wav_damage(path):
        raise BadRecording(path.stem, damage)
    try:
        with reading(path, "a recording"):
            info = sf.info(path)
    except UserError as error:
        raise BadRecording(path.stem, str(error)) from error
    rate, n_samples = int(info.samplerate), int(info.frames)
    if rate not in PLAUSIBLE_HZ or n_samples > LONGEST_SAMPLES:
        raise BadRecording(path.stem, f"its header states {n_samples} samples at {rate} Hz")
    start, stop = max(round(start_s * rate), 0), min(round(stop_s * rate), n_samples)
    if stop <= start:
        raise BadRecording(path.stem, f"is {n_samples / rate:g} s long, and ends before {start_s:g} s")
    most = min(LONGEST_SPAN_S * rate, MOST_SPAN_SAMPLES / info.channels)
    if stop - start > most:
        raise BadRecording(
            path.stem, f"{start_s:g} to {stop_s:g} s is too long; at most {most / rate:g} s are shown"
        )
    read = _read_forward if info.format in FORWARD_ONLY else _read_there
    waveform = read(path, rate, start, stop)
    if len(waveform) < stop - start:
        raise BadRecording(path.stem, f"truncated: ends within {start_s:g} to {stop_s:g} s")
    if not np.isfinite(waveform).all():
        raise BadRecording(path.stem, f"has NaN or infinite samples from {start_s:g} to {stop_s:g} s")
    return SoundSpan(waveform, rate, start / rate)


def _read_there(path: Path, rate: int, start: int, stop: int) -> NDArray[np.float32]:
    try:
        with reading(path, "a whole recording"), sf.SoundFile(path) as file:
            file.seek(start)
            samples: NDArray[np.float32] = file.read(stop - start, dtype="float32", always_2d=True)
    except UserError as error:
        raise BadRecording(path.stem, str(error)) from error
    mean: NDArray[np.float32] = samples.mean(axis=1)
    return mean


def _read_forward(path: Path, rate: int, start: int, stop: int) -> NDArray[np.float32]:
    kept, done = [], 0
    with open_recording(path, AudioParams(sample_rate=rate, channel="mean")) as sound:
        for piece in sound.pieces:
            if done + len(piece) > start:
                kept.append(piece[max(start - done, 0) : stop - done].copy())
            done += len(piece)
            if done >= stop:
                break
    return np.concatenate(kept) if kept else np.empty(0, np.float32)
