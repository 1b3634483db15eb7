"""Random numbers of training: an independent stream for each purpose at each moment.

Everything drawn is a function of (seed, fold, epoch, batch, purpose), so the number of threads, the order of
folds and interruptions change no number.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

MAX_SEED = 2**63
"""Exclusive upper bound of the seeds that torch accepts."""


class Purpose(IntEnum):
    """Purpose of a stream of random numbers; switching one off leaves the others unchanged."""

    WEIGHTS = 0
    DROPOUT = 1
    ITEMS = 2
    CLIPS = 3
    AUGMENT = 4
    MIXUP = 5
    PHASES = 6
    ORDER = 7


class RngKey(NamedTuple):
    """Moment in the training of one fold; epochs and batches count from 0."""

    seed: int
    fold: int
    epoch: int = 0
    batch: int = 0

    def rng(self, purpose: Purpose) -> np.random.Generator:
        """Return the stream of random numbers for `purpose` at this moment."""
        return np.random.default_rng((self.seed, self.fold, self.epoch, self.batch, purpose))

    def torch_seed(self, purpose: Purpose) -> int:
        """Return a seed for torch's generators, drawn from that stream."""
        return int(self.rng(purpose).integers(MAX_SEED))
