"""Random numbers of training: a stream for each purpose at each moment, which nothing else has drawn from.

Everything drawn is a function of (seed, fold, epoch, batch, purpose), so neither the number of threads, nor
the order of folds, nor an interruption changes a number.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

MAX_SEED = 2**63
"""Above every seed that torch takes."""


class Purpose(IntEnum):
    """What a stream of random numbers is for: switching one off leaves the others as they were."""

    WEIGHTS = 0
    DROPOUT = 1
    ITEMS = 2
    CLIPS = 3
    AUGMENT = 4
    MIXUP = 5
    PHASES = 6
    ORDER = 7


class RngKey(NamedTuple):
    """A point in the training of one fold; epochs and batches count from 0."""

    seed: int
    fold: int
    epoch: int = 0
    batch: int = 0

    def rng(self, purpose: Purpose) -> np.random.Generator:
        """The stream of random numbers for `purpose` at this moment."""
        return np.random.default_rng((self.seed, self.fold, self.epoch, self.batch, purpose))

    def torch_seed(self, purpose: Purpose) -> int:
        """The same as a seed for torch's generators."""
        return int(self.rng(purpose).integers(MAX_SEED))
