"""A recording read as a whole, for tests of what is in it."""

from pathlib import Path
from typing import Any

import numpy as np

from callboard.data.audio import open_recording
from callboard.params.features import AudioParams


def read_recording(
    path: Path, sample_rate: int, on_other_rate: Any, f_max: float = 0.0, channel: Any = None
) -> np.ndarray:
    """Return all samples (n_samples,) of a recording."""
    audio = AudioParams(sample_rate=sample_rate, on_other_rate=on_other_rate, channel=channel)
    with open_recording(path, audio, f_max) as sound:
        waveform = np.concatenate(list(sound.pieces))
    assert len(waveform) == sound.n_samples
    return waveform
