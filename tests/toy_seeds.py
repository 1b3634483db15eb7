"""Score tables of one recipe under many seeds, where it is known what the seed does."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import sqrt

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.analysis.bootstrap import Precisions, difference_of, mean_of, precisions
from callboard.analysis.difference import Difference
from callboard.analysis.verdict import Pairs
from callboard.data.score_tables import score_table
from callboard.results.rows import CV, BoardRow

N_RECORDINGS, N_SPECIES, N_BOOTSTRAP = 240, 24, 500
SPECIES = [f"{k:02d}" for k in range(N_SPECIES)]
START = datetime(2020, 11, 20, tzinfo=UTC)


Logits = NDArray[np.float64]
"""(recordings, species)"""


@dataclass
class World:
    """One draw of recordings with one to three species each, and networks that score them."""

    rng: np.random.Generator
    common: float
    """sd over seeds of what a seed adds to the logit of every present species alike."""
    known: dict[str, Precisions] = field(default_factory=dict)
    own: dict[str, Logits] = field(default_factory=dict)
    """What the seed of a run adds to each logit by chance."""

    def __post_init__(self) -> None:
        n_species = self.rng.integers(1, 4, N_RECORDINGS)
        chosen = np.argsort(self.rng.random((N_RECORDINGS, N_SPECIES)), axis=1)
        self.is_present = np.argsort(chosen, axis=1) < n_species[:, None]
        row, column = np.nonzero(self.is_present)
        self.ids = [f"r{i:03d}" for i in range(N_RECORDINGS)]
        self.truth = pd.DataFrame(
            {"recording_id": np.array(self.ids)[row], "species_id": np.array(SPECIES)[column]}
        )
        self.hardness = self.rng.normal(size=(N_RECORDINGS, N_SPECIES))

    def run(self, gain: float = 0.0, start: BoardRow | None = None, kept: float = 0.0) -> BoardRow:
        """A run with a seed of its own.

        Args:
            gain: What its recipe adds to the logit of present species.
            start: The run whose networks its own start from.
            kept: Share of the variance of `own` that they keep of it.
        """
        signal = 2.8 + gain + self.rng.normal(0, self.common)
        own = self.rng.normal(0, 0.6, self.is_present.shape)
        if start:
            own = sqrt(kept) * self.own[start.name] + sqrt(1 - kept) * own
        table = score_table(self.ids, SPECIES, signal * self.is_present + self.hardness + own)
        name = str(len(self.known))
        self.own[name] = own
        self.known[name] = precisions(table, self.truth)
        params = {"seed": name, "recipe": str(gain)}
        cv = float(self.known[name].values.mean())
        return BoardRow(name, params, {CV: cv}, START, "", {}, key=name, data_md5="d")

    def compare(self, a: BoardRow, b: BoardRow) -> Difference:
        """The paired bootstrap."""
        return difference_of(self.known[a.name], self.known[b.name], N_BOOTSTRAP, 0)

    def compare_means(self, pairs: Pairs) -> Difference:
        """The paired bootstrap of the means over pairs."""
        ours, theirs = (mean_of([self.known[pair[side].name] for pair in pairs]) for side in (0, 1))
        return difference_of(ours, theirs, N_BOOTSTRAP, 0)


def worlds(n: int, common: float) -> list[World]:
    """Independent ones."""
    return [World(np.random.default_rng(seed), common) for seed in range(n)]
