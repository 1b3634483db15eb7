"""Recordings cut into pieces, each described by level statistics of every mel row."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from callboard.core.console import progress
from callboard.features.frame_cache import MelCache

PIECE_S = 5.0
"""About what the network sees at once. A shorter recording is one piece; a shorter rest is dropped."""
QUANTILES = (0.1, 0.9)
"""Background and calls of a mel row: steady differences change the lower, events the upper."""
N_STATISTICS = 2 + len(QUANTILES)
"""Number of statistics of a mel row of a piece: mean, standard deviation and QUANTILES over its frames."""
N_BANDS = 16
"""Number of groups of neighbouring mel rows."""


@dataclass(frozen=True)
class Pieces:
    """Statistics of the pieces of all recordings, those of training first."""

    recording_ids: list[str]
    is_test: NDArray[np.bool_]
    """(recordings,) whether the recording is in the test set."""
    recording: NDArray[np.int64]
    """(pieces,) position of the piece's recording, ascending."""
    statistics: NDArray[np.float32]
    """(pieces, mels, N_STATISTICS) of levels in 0 … 1, or in dB."""

    @property
    def n_mels(self) -> int:
        """Number of mel rows."""
        return int(self.statistics.shape[1])

    def of_train(self) -> "Pieces":
        """Return the pieces of the training recordings alone."""
        n_train = int(np.count_nonzero(~self.is_test))
        n_pieces = int(np.searchsorted(self.recording, n_train))
        return Pieces(
            self.recording_ids[:n_train],
            self.is_test[:n_train],
            self.recording[:n_pieces],
            self.statistics[:n_pieces],
        )


def read_pieces(train: MelCache, test: MelCache, piece_frames: int, in_decibels: bool) -> Pieces:
    """Compute statistics of all non-overlapping pieces; one piece at a time is in memory."""
    caches = (train, test)
    n_pieces = np.maximum(np.concatenate([cache.n_frames for cache in caches]) // piece_frames, 1)
    statistics = np.empty((n_pieces.sum(), train.n_mels, N_STATISTICS), np.float32)
    filled = 0
    rows = [(cache, row) for cache in caches for row in range(len(cache))]
    for cache, row in progress(rows, total=len(rows), label="adversarial", unit="recordings"):
        for start in range(0, max(int(cache.n_frames[row]) - piece_frames, 0) + 1, piece_frames):
            frames = cache.read(cache.recording_ids[row], slice(start, start + piece_frames))
            levels = frames.astype(np.float32) / 255
            if in_decibels:
                levels = cache.db_min[row] + levels * (cache.db_max[row] - cache.db_min[row])
            statistics[filled] = _statistics(levels)
            filled += 1
    return Pieces(
        recording_ids=[*train.recording_ids, *test.recording_ids],
        is_test=np.repeat([False, True], [len(train), len(test)]),
        recording=np.repeat(np.arange(len(n_pieces)), n_pieces),
        statistics=statistics,
    )


def _statistics(levels: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return (mels, N_STATISTICS) statistics of a piece, (frames, mels)."""
    quantiles = np.quantile(levels, QUANTILES, axis=0)
    return np.stack([levels.mean(axis=0), levels.std(axis=0), *quantiles], axis=1).astype(np.float32)


def mel_bands(n_mels: int) -> list[slice]:
    """Divide the mel rows into N_BANDS groups of neighbours as even as possible, lowest first."""
    edges = np.linspace(0, n_mels, min(N_BANDS, n_mels) + 1).round().astype(int)
    return [slice(int(low), int(high)) for low, high in pairwise(edges)]
