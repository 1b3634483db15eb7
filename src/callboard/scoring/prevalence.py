"""Estimation of species' prevalence in the scored set, without labels, and rescaling of scores to it.

A network's probabilities assume that species are as common as in its training set. In other sets its odds
are off by the ratio of prevalences (Saerens, Latinne and Decaestecker 2002, "Adjusting the outputs of a
classifier to new a priori probabilities", Neural Computation 14). Confirmed annotations are balanced over
species by design, species in the test set are not: rescaling the columns of a submission from the label
balance of train to that of test brought C. Deotte from 0.926 to 0.963 on the private leaderboard (discussion
220389 of the competition).

LWLRAP ranks the species within a recording, so only the ratios between species' factors matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.core.errors import UserError
from callboard.core.files import written_whole

EM_STEPS = 1
"""Number of EM steps; one gives the plain ratio of mean scores. On the test set of a demo run (12 species,
160 recordings, LWLRAP 0.671) exponent 1 gained +0.012 with one step, +0.001 with two, -0.049 with ten and
-0.100 with a hundred. On simulated scores (24 species, 1,992 recordings, known shift) one step gained 0.02 to
0.05 in each case. More steps gain more if scores are calibrated (+0.030, not +0.024), but drive species to
0 or 1 and lose if missing labels keep all scores low (-0.015 instead of +0.025)."""

PREVALENCE_EDGE = 1e-12
"""Minimum distance of prevalences from 0 and 1."""

PREVALENCE_COLUMNS = ["species", "training", "scored", "factor"]

Vector = NDArray[np.float64]
ScoreTable = NDArray[np.float64]


@dataclass(frozen=True)
class Prevalence:
    """Prevalence of species in the training set and in a scored set, estimated from scores."""

    training: Vector
    """(species,) mean out-of-fold probability."""
    scored: Vector
    """(species,) estimate, see `estimate_prevalence`."""

    def factors(self, alpha: float) -> Vector:
        """Return (species,) the factors of the odds, (scored / training) ^ alpha.

        Raises:
            UserError: A factor is 0 or infinite in double precision.
        """
        with np.errstate(over="ignore", under="ignore"):
            factors = np.asarray((self.scored / self.training) ** alpha, dtype=np.float64)
        if not (np.isfinite(factors) & (factors > 0)).all():
            raise UserError(
                f"infer.prevalence {alpha:g}: factors of odds are 0 or infinite; use a smaller value"
            )
        return factors

    def table(self, species: list[str], alpha: float) -> pd.DataFrame:
        """Return a table of PREVALENCE_COLUMNS, species in the given order."""
        values = (species, self.training, self.scored, self.factors(alpha))
        return pd.DataFrame(dict(zip(PREVALENCE_COLUMNS, values, strict=True)))


def estimate_prevalence(
    oof_scores: ScoreTable, scores: ScoreTable, n_steps: int = EM_STEPS, species: Sequence[str] = ()
) -> Prevalence:
    """Estimate prevalence with Saerens's EM, for each species separately, starting from the training set's.

    Confirmed boxes are few and balanced, so their counts are not the prevalence that a network assumes. Its
    mean out-of-fold probability π is: on the training set itself, every step gives π again, and factors of
    1. A step takes the mean over the scored set of p·f / (p·f + (1 - p)·g), with f = π'/π and
    g = (1 - π')/(1 - π) for the last estimate π'. Uses neither labels of the scored set nor a leaderboard.

    Args:
        oof_scores: (training recordings, species) probabilities from models that had not seen the recording.
        scores: (recordings of the scored set, species) probabilities, made in the same way.
        n_steps: Number of EM steps; one step gives the mean score.
        species: Ids for error messages; empty = positions are used instead.

    Raises:
        UserError: A score is not a probability, or all out-of-fold scores of a species are 0.
    """
    for name, values in (("out-of-fold", oof_scores), ("test", scores)):
        if values.min() < 0 or values.max() > 1:
            raise UserError(f"infer.prevalence: the {name} scores are not probabilities between 0 and 1")
    training = np.minimum(oof_scores.mean(axis=0), 1 - PREVALENCE_EDGE)
    if not training.all():
        silent = (species or range(len(training)))[training.argmin()]
        raise UserError(f"infer.prevalence: all out-of-fold scores of species {silent} are 0")
    scored = training
    for _ in range(n_steps):
        present = scores * (scored / training)
        absent = (1 - scores) * ((1 - scored) / (1 - training))
        scored = np.clip((present / (present + absent)).mean(axis=0), PREVALENCE_EDGE, 1 - PREVALENCE_EDGE)
    return Prevalence(training, scored)


def with_odds_times(scores: ScoreTable, factors: Vector) -> ScoreTable:
    """Return (recordings, species) probabilities: the odds of `scores` times each species' factor."""
    present = scores * factors
    return np.asarray(present / (present + (1 - scores)), dtype=np.float64)


def write_prevalence(table: pd.DataFrame | None, path: Path) -> None:
    """Write the table with every digit; None writes a header without rows."""
    with written_whole(path) as unfinished:
        rows = pd.DataFrame(columns=PREVALENCE_COLUMNS) if table is None else table
        rows.to_csv(unfinished, index=False, float_format="%.17g")
