"""How common species are in the scored set, guessed without labels, and scores rescaled to it.

A network says how likely a species is where species are as common as in its training set. Elsewhere its odds
are off by the ratio of prevalences (Saerens, Latinne and Decaestecker 2002, "Adjusting the outputs of a
classifier to new a priori probabilities", Neural Computation 14). Confirmed annotations are balanced over
species by design, recordings of the test set are not: rescaling the columns of a submission from the label
balance of train to that of test brought C. Deotte from 0.926 to 0.963 on the private leaderboard (discussion
220389 of the competition).

LWLRAP ranks the species of one recording, so only a factor's ratio to those of other species matters.
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
"""The first step gives the plain ratio of mean scores. On the test set of a demo run (12 species, 160
recordings, LWLRAP 0.671) exponent 1 then gave +0.012, after two steps +0.001, ten -0.049, a hundred -0.100.
On simulated scores (24 species, 1,992 recordings, known shift) one step gained 0.02 to 0.05 in each case.
More steps gain more where scores are calibrated (+0.030 against +0.024), but drive species to 0 or 1 and lose
where missing labels keep all scores low (-0.015 against +0.025)."""

PREVALENCE_EDGE = 1e-12
"""Prevalences stay this far from 0 and 1."""

PREVALENCE_COLUMNS = ["species", "training", "scored", "factor"]

Vector = NDArray[np.float64]
ScoreTable = NDArray[np.float64]


@dataclass(frozen=True)
class Prevalence:
    """How common species are in the training set and in a scored one, as the scores have it."""

    training: Vector
    """(species,) mean out-of-fold probability."""
    scored: Vector
    """(species,) estimate, see `estimate_prevalence`."""

    def factors(self, alpha: float) -> Vector:
        """(species,) (scored / training) ^ alpha, what odds are multiplied by.

        Raises:
            UserError: one is 0 or infinite in double precision.
        """
        with np.errstate(over="ignore", under="ignore"):
            factors = np.asarray((self.scored / self.training) ** alpha, dtype=np.float64)
        if not (np.isfinite(factors) & (factors > 0)).all():
            raise UserError(
                f"infer.prevalence {alpha:g}: factors of odds are 0 or infinite; use a smaller one"
            )
        return factors

    def table(self, species: list[str], alpha: float) -> pd.DataFrame:
        """COLUMNS, species as given."""
        values = (species, self.training, self.scored, self.factors(alpha))
        return pd.DataFrame(dict(zip(PREVALENCE_COLUMNS, values, strict=True)))


def estimate_prevalence(
    oof_scores: ScoreTable, scores: ScoreTable, n_steps: int = EM_STEPS, species: Sequence[str] = ()
) -> Prevalence:
    """Steps of Saerens's EM for each species apart, from the training set's prevalence.

    Confirmed boxes are few, and balanced: their counts are not the prevalence that a network believes in. The
    mean out-of-fold probability π is: asked of the training set itself, every step gives π again, and
    factors of 1. A step takes the mean over the scored set of p·f / (p·f + (1 - p)·g), with f = π'/π and
    g = (1 - π')/(1 - π) for the last estimate π'. No label of the scored set is used, and no leaderboard.

    Args:
        oof_scores: (training recordings, species) probabilities by models that had not seen the recording.
        scores: (recordings of the scored set, species), made in the same way.
        n_steps: The first gives the mean score.
        species: Their ids, for errors; none = positions.

    Raises:
        UserError: a score is not a probability, or all out-of-fold scores of a species are 0.
    """
    for name, values in (("out-of-fold", oof_scores), ("test", scores)):
        if values.min() < 0 or values.max() > 1:
            raise UserError(f"infer.prevalence: the {name} scores are no probabilities")
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
    """(recordings, species) probabilities whose odds are those of `scores`, each species times its factor."""
    present = scores * factors
    return np.asarray(present / (present + (1 - scores)), dtype=np.float64)


def write_prevalence(table: pd.DataFrame | None, path: Path) -> None:
    """Write with every digit; None = a header without rows."""
    with written_whole(path) as unfinished:
        rows = pd.DataFrame(columns=PREVALENCE_COLUMNS) if table is None else table
        rows.to_csv(unfinished, index=False, float_format="%.17g")
