"""Reading of recordings in pieces of mono float32 at the expected rate, and the reasons to refuse them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import gcd
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from callboard.core.console import counted
from callboard.core.errors import UnreadableFileError, UserError
from callboard.core.reading import reading
from callboard.data.wav_chunks import wav_damage
from callboard.params.features import AudioParams, Channel

PIECE_SAMPLES = 2**23
"""Samples that are decoded at a time, of all channels, before or after resampling, whichever are more: 3 min
of one channel at 48 kHz. A recording of up to this length is one piece; results do not depend on it."""

FILTER_ZEROS = 10
"""Zero crossings of the resampling filter on each side of its middle, as in scipy's `resample_poly`."""

LONGEST_SAMPLES = 2**40
"""Longest plausible recording; libsndfile reports far more for a streamed FLAC that has no length."""

PLAUSIBLE_HZ = range(1000, 2_000_001)
"""Sample rates of recordings, up to those of bat detectors; resampling others could take any memory."""

SKIPPED_COLUMNS = ["recording_id", "subset", "reason"]
"""Columns of the list of recordings that were left out."""


class BadRecording(UserError):  # noqa: N818 - raised, or returned and listed
    """A recording that cannot be used; `data.on_bad_recording` decides whether it is an error or skipped."""

    def __init__(self, recording_id: str, reason: str) -> None:
        super().__init__(f"recording {recording_id}: {reason}")
        self.recording_id = recording_id
        self.reason = reason


class OpenRecording(NamedTuple):
    """The samples of an open recording."""

    n_samples: int
    """Length at the expected rate."""
    pieces: Iterator[NDArray[np.float32]]
    """Successive pieces (n,), together `n_samples`; to be read once, while the recording is open."""


@contextmanager
def open_recording(path: Path, audio: AudioParams, f_max: float = 0.0) -> Iterator[OpenRecording]:
    """Open a recording; integer formats are scaled to [-1, 1).

    Args:
        path: File named after its recording.
        audio: The expected rate, and what to do with other rates and several channels.
        f_max: Highest frequency that the features use, Hz; a rate below twice this is always refused.

    Raises:
        BadRecording: The file is missing or unreadable, or its header has a rate, a length or channels that
            are not accepted. Later, from `pieces`: it is truncated, empty, silent (constant), or contains NaN
            or infinite samples. The last piece comes only if all are good, so short recordings, which are one
            piece, give none or all.
    """
    if not path.is_file():
        raise BadRecording(path.stem, f"no such file: {path}")
    if damage := wav_damage(path):
        raise BadRecording(path.stem, damage)
    with _decoding(path):
        file = _ForwardFile(path)
    with file:
        _refuse_rate(path.stem, file.samplerate, audio, f_max)
        if complaint := channel_complaint(file.channels, audio.channel):
            raise BadRecording(path.stem, complaint)
        if file.frames > LONGEST_SAMPLES:
            raise BadRecording(path.stem, "its header does not state a length; encode it again")
        pieces = _decode(file, path, audio)
        if file.samplerate != audio.sample_rate:
            pieces = resample_pieces(pieces, file.frames, file.samplerate, audio.sample_rate)
        yield OpenRecording(resampled_length(file.frames, file.samplerate, audio.sample_rate), pieces)


def resample_pieces(
    pieces: Iterable[NDArray[np.float32]], n_samples: int, from_rate: int, to_rate: int
) -> Iterator[NDArray[np.float32]]:
    """Resample successive pieces: the same numbers as `resample` makes of the whole, which is the only piece.

    The whole is cut only where a sample of the result coincides with one of the input, and each cut is made
    with as much before and after it as the filter reaches.

    Args:
        pieces: Together (n_samples,).
        n_samples: Length of the whole.
        from_rate: Rate of the pieces, Hz.
        to_rate: Rate of the result, Hz.
    """
    up, down = to_rate // gcd(from_rate, to_rate), from_rate // gcd(from_rate, to_rate)
    reach = down * -(-FILTER_ZEROS * max(up, down) // (up * down))
    held, done, n_seen = np.empty(0, np.float32), 0, 0  # `done` samples of those held have been resampled
    for piece in pieces:
        held = np.concatenate([held, piece]) if len(held) else piece
        n_seen += len(piece)
        if n_seen == n_samples:
            yield resample(held, from_rate, to_rate)[done // down * up :]
        elif (ready := (len(held) - reach) // down * down) > done:
            yield resample(held[: ready + reach], from_rate, to_rate)[done // down * up : ready // down * up]
            first = max(ready - reach, 0)
            held, done = held[first:].copy(), ready - first


def resample(waveform: NDArray[np.float32], from_rate: int, to_rate: int) -> NDArray[np.float32]:
    """Resample to `resampled_length` samples with a polyphase filter (scipy's default Kaiser window).

    torchaudio's `resample` with the same filter gives the same result, but needs an import of torch.
    """
    # scipy.signal takes 0.2 s to import, and most recordings have the expected rate
    from scipy.signal import resample_poly

    divisor = gcd(from_rate, to_rate)
    resampled: NDArray[np.float32] = resample_poly(waveform, to_rate // divisor, from_rate // divisor)
    return resampled.astype(np.float32, copy=False)


def resampled_length(n_samples: int, from_rate: int, to_rate: int) -> int:
    """Return the number of samples that `resample` makes of `n_samples`."""
    return -(-n_samples * to_rate // from_rate)


def channel_complaint(n_channels: int, channel: Channel) -> str:
    """Return why `audio.channel` does not take a file of so many channels; empty if it does."""
    if channel is None and n_channels != 1:
        return (
            f"{n_channels} channels, expected one (mono); "
            "audio.channel=mean takes their mean, audio.channel=0 the first"
        )
    if isinstance(channel, int) and channel >= n_channels:
        return f"{counted(n_channels, 'channel')}, but audio.channel is {channel}; the first is 0"
    return ""


class _ForwardFile(sf.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """A file that is read from its beginning to its end.

    soundfile goes to the end of what it has read after each read, by seeking. In an MP3 file this makes the
    decoder start anew, which changes samples and loses some.
    """

    def seekable(self) -> bool:
        return False


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    try:
        with reading(path, "a whole recording"):
            yield
    except UnreadableFileError as error:
        raise BadRecording(path.stem, f"unreadable or truncated: {error}") from error


def _decode(file: sf.SoundFile, path: Path, audio: AudioParams) -> Iterator[NDArray[np.float32]]:
    """Yield pieces (n,) at the file's rate, the last one only if all are good."""
    if file.frames == 0:
        raise BadRecording(path.stem, "empty: no samples")
    growth = max(audio.sample_rate / file.samplerate, 1)
    n_together = max(int(PIECE_SAMPLES / growth) // file.channels, 1)
    lowest, highest = np.float32(np.inf), np.float32(-np.inf)
    for start in range(0, file.frames, n_together):
        n_expected = min(n_together, file.frames - start)
        with _decoding(path):
            samples = file.read(n_expected, dtype="float32", always_2d=True)
        if len(samples) != n_expected:
            n_read = start + len(samples)
            raise BadRecording(path.stem, f"truncated: {n_read} of the {file.frames} samples in its header")
        piece = _one_channel(samples, audio.channel)
        lowest, highest = np.minimum(lowest, piece.min()), np.maximum(highest, piece.max())
        if start + n_expected == file.frames:
            _refuse_unusable(lowest, highest, path.stem)
        if np.isfinite(lowest) and np.isfinite(highest):  # else the rest is read only for worse damage
            yield piece
        del samples, piece  # before the next ones are read


def _one_channel(samples: NDArray[np.float32], channel: Channel) -> NDArray[np.float32]:
    """Return (n,) of (n, channels)."""
    if channel == "mean" and samples.shape[1] > 1:
        mean: NDArray[np.float32] = samples.mean(axis=1)
        return mean
    return np.ascontiguousarray(samples[:, channel if isinstance(channel, int) else 0])


def _refuse_rate(recording_id: str, found: int, audio: AudioParams, f_max: float) -> None:
    if found not in PLAUSIBLE_HZ:
        raise BadRecording(recording_id, f"its header states an implausible sample rate, {found} Hz")
    if found / 2 < f_max:
        raise BadRecording(
            recording_id,
            f"sample rate {found} Hz carries up to {found / 2:g} Hz, but features.f_max is {f_max:g} Hz",
        )
    if found != audio.sample_rate and audio.on_other_rate == "error":
        raise BadRecording(
            recording_id,
            f"sample rate {found} Hz, expected audio.sample_rate {audio.sample_rate} Hz; "
            "audio.on_other_rate=resample converts such recordings",
        )


def _refuse_unusable(lowest: np.float32, highest: np.float32, recording_id: str) -> None:
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise BadRecording(recording_id, "holds NaN or infinite samples")
    if lowest == highest:
        raise BadRecording(recording_id, f"silent: every sample is {lowest:g}")
