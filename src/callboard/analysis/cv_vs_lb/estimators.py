"""CV of one result in several ways: what is averaged, over what, and which species count how much."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.analysis.bootstrap import pair_precisions
from callboard.analysis.difference import MismatchError
from callboard.data.score_tables import score_columns
from callboard.scoring.evaluation import CrossValidation, OutOfFold, cross_validate
from callboard.scoring.metrics import average_precisions, lrap_over_folds, lwlrap_known, precision_sums

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """What one result says of training recordings, out of fold, and of test recordings."""

    cv: CrossValidation
    """Recordings with a TP annotation."""
    test_scores: NDArray[np.float64]
    """(test recordings, species), before `infer.prevalence`; nobody has told what they hold."""


def scored(out_of_fold: pd.DataFrame, clips: pd.DataFrame, submission: pd.DataFrame) -> Scored:
    """From the stored tables of a result.

    Args:
        out_of_fold: recording_id, fold, and a score column per species.
        clips: recording_id, species_id and label_type.
        submission: recording_id and the same score columns, before `infer.prevalence`.

    Raises:
        MismatchError: the submission lacks a species, or one is annotated that has no scores.
    """
    species = [name.removeprefix("s") for name in out_of_fold.columns if name not in ("recording_id", "fold")]
    columns = score_columns(species)
    annotated = set(score_columns(clips["species_id"].tolist()))
    if missing := (annotated - set(columns)) | (set(columns) - set(submission.columns)):
        raise MismatchError(f"score columns {sorted(missing)} are missing")
    table = OutOfFold(
        recording_ids=out_of_fold["recording_id"].tolist(),
        fold=out_of_fold["fold"].to_numpy().astype(np.int64),
        species=species,
        scores=out_of_fold[columns].to_numpy(),
    )
    return Scored(cross_validate(table, clips), submission[columns].to_numpy())


def pooled(result: Scored) -> float:
    """LWLRAP over all recordings at once."""
    return _lwlrap(result.cv.is_present, result.cv.scores)


def _lwlrap(is_present: NDArray[np.bool_], scores: NDArray[np.floating]) -> float:
    """As metrics.lwlrap, whose loop over recordings would take half of the time here."""
    precisions, n_present = precision_sums(is_present, scores)
    return float(precisions.sum() / n_present.sum())


def fold_mean(result: Scored) -> float:
    """Plain mean over folds of each fold's LWLRAP."""
    cv = result.cv
    return float(
        np.mean([_lwlrap(cv.is_present[cv.fold == k], cv.scores[cv.fold == k]) for k in np.unique(cv.fold)])
    )


def known_cells(result: Scored) -> float:
    """LWLRAP among the species that somebody has judged in the recording."""
    return lwlrap_known(result.cv.is_present, result.cv.is_labeled, result.cv.scores)


def per_recording(result: Scored) -> float:
    """The author's: LRAP, where every recording counts alike, as a mean over folds."""
    return lrap_over_folds(result.cv.is_present, result.cv.scores, result.cv.fold)


def macro_ap(result: Scored) -> float:
    """Mean over species of average precision, which compares recordings, not species."""
    return float(np.nanmean(average_precisions(result.cv.is_present, result.cv.scores)))


def prevalence_weighted(result: Scored) -> float:
    """LWLRAP as if species were as common as in test, by `expected_shares`; NaN where that refuses."""
    cv = result.cv
    if not _are_probabilities(cv.scores, result.test_scores):
        return float("nan")
    shares = expected_shares(cv.is_present.sum(axis=0), cv.scores, result.test_scores)
    return share_weighted(cv.is_present, cv.scores, shares)


ESTIMATES: dict[str, Callable[[Scored], float]] = {
    "lwlrap": pooled,
    "fold_mean": fold_mean,
    "lwlrap_known": known_cells,
    "lrap": per_recording,
    "macro_ap": macro_ap,
    "prevalence": prevalence_weighted,
}
"""Those that metrics/cv.json holds have their names from there."""


def species_precisions(is_present: NDArray[np.bool_], scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """(species,) mean precision at the species' rank over the recordings with it; NaN where there are none.

    Ties share their worst rank, as in LWLRAP.
    """
    n_present = is_present.sum(axis=0)
    values = pair_precisions(is_present, scores)
    sums = np.bincount(np.nonzero(is_present)[1], values, minlength=len(n_present))
    means = np.full(len(n_present), np.nan)
    np.divide(sums, n_present, out=means, where=n_present > 0)
    return means


def share_weighted(is_present: NDArray[np.bool_], scores: NDArray[np.floating], shares: Shares) -> float:
    """Mean over species of the mean precision at their ranks, species k counting `shares[k]`.

    With the species' own numbers of recordings as shares it is LWLRAP.

    Args:
        is_present: (recordings, species).
        scores: (recordings, species).
        shares: (species,), not negative, to any sum; those of species without recordings are left out.
    """
    precisions = species_precisions(is_present, scores)
    has_any = ~np.isnan(precisions)
    return float(np.average(precisions[has_any], weights=shares[has_any]))


def expected_shares(
    n_present: NDArray[np.integer], oof_scores: NDArray[np.floating], test_scores: NDArray[np.floating]
) -> Shares:
    """Each species' share of the true (recording, species) pairs of the test set, guessed without labels.

    What species k has in training, times how much higher its mean score is in test than out of fold:
    share_k ∝ n_k · mean(test_k) / mean(oof_k). The ratio needs no calibration, as a constant factor on a
    species' scores cancels. Assumes that a mean score moves with prevalence alone. Recordings without the
    species score above 0 too, so a ratio is nearer to 1 than the truth: a network that knows nothing leaves
    the training shares as they are, and LWLRAP with them. Taking that floor out, as adjusted counts and
    Saerens's EM do, divides by small differences; see docs/trust.md for what they gave.

    Args:
        n_present: (species,) training recordings with the species.
        oof_scores: (training recordings, species) probabilities.
        test_scores: (test recordings, species) probabilities.

    Returns:
        (species,), sum 1.

    Raises:
        ValueError: a score is negative, or all out-of-fold scores of a species are 0.
    """
    if not _are_probabilities(oof_scores, test_scores):
        raise ValueError("scores must be probabilities, with one above 0 for every species")
    expected = n_present * test_scores.mean(axis=0) / oof_scores.mean(axis=0)
    return np.asarray(expected / expected.sum(), dtype=np.float64)


def _are_probabilities(oof_scores: NDArray[np.floating], test_scores: NDArray[np.floating]) -> bool:
    """Whether none is negative, and each species has an out-of-fold score above 0."""
    is_negative = min(oof_scores.min(), test_scores.min()) < 0
    return not is_negative and bool(oof_scores.any(axis=0).all())
