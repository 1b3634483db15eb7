"""Read a recording as mono float32 at the expected rate, or raise a BadRecording that gives the reason."""

from math import gcd
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from callboard.core.errors import UnreadableFileError, UserError
from callboard.core.reading import reading
from callboard.data.wav_chunks import wav_damage

OnOtherRate = Literal["error", "resample"]

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


def read_recording(
    path: Path, sample_rate: int, on_other_rate: OnOtherRate, f_max: float = 0.0
) -> NDArray[np.float32]:
    """Read a recording as (n_samples,) float32; integer formats are scaled to [-1, 1).

    Args:
        path: File named after its recording.
        sample_rate: Expected rate, Hz.
        on_other_rate: "resample" converts to `sample_rate`, "error" refuses.
        f_max: Highest frequency that the features use, Hz; a rate below twice this is always refused.

    Raises:
        BadRecording: The file is missing, unreadable, truncated, empty, not mono, silent (constant), contains
            NaN or infinite samples, or has a rate that is not accepted.
    """
    waveform, found_rate = _decode(path, sample_rate, on_other_rate, f_max)
    _refuse_unusable(waveform, path.stem)
    if found_rate == sample_rate:
        return waveform
    return resample(waveform, found_rate, sample_rate)


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


def _decode(
    path: Path, sample_rate: int, on_other_rate: OnOtherRate, f_max: float
) -> tuple[NDArray[np.float32], int]:
    """Return all samples, and the file's sample rate in Hz."""
    if not path.is_file():
        raise BadRecording(path.stem, f"no such file: {path}")
    if damage := wav_damage(path):
        raise BadRecording(path.stem, damage)
    try:
        with reading(path, "a whole recording"), sf.SoundFile(path) as file:
            _refuse_rate(path.stem, file.samplerate, sample_rate, on_other_rate, f_max)
            if file.channels != 1:
                raise BadRecording(path.stem, f"{file.channels} channels, expected one (mono)")
            if file.frames > LONGEST_SAMPLES:
                raise BadRecording(path.stem, "its header does not state a length; encode it again")
            waveform: NDArray[np.float32] = file.read(dtype="float32")
            if len(waveform) != file.frames:
                raise BadRecording(
                    path.stem, f"truncated: {len(waveform)} of the {file.frames} samples in its header"
                )
            return waveform, file.samplerate
    except UnreadableFileError as error:
        raise BadRecording(path.stem, f"unreadable or truncated: {error}") from error


def _refuse_rate(
    recording_id: str, found: int, expected: int, on_other_rate: OnOtherRate, f_max: float
) -> None:
    if found not in PLAUSIBLE_HZ:
        raise BadRecording(recording_id, f"its header states an implausible sample rate, {found} Hz")
    if found / 2 < f_max:
        raise BadRecording(
            recording_id,
            f"sample rate {found} Hz carries up to {found / 2:g} Hz, but features.f_max is {f_max:g} Hz",
        )
    if found != expected and on_other_rate == "error":
        raise BadRecording(
            recording_id,
            f"sample rate {found} Hz, expected audio.sample_rate {expected} Hz; "
            "audio.on_other_rate=resample converts such recordings",
        )


def _refuse_unusable(waveform: NDArray[np.float32], recording_id: str) -> None:
    if waveform.size == 0:
        raise BadRecording(recording_id, "empty: no samples")
    lowest, highest = waveform.min(), waveform.max()
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise BadRecording(recording_id, "holds NaN or infinite samples")
    if lowest == highest:
        raise BadRecording(recording_id, f"silent: every sample is {lowest:g}")
