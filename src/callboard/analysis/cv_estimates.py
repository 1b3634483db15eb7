"""Several CV estimates of one result, from its tables in DVC's cache; computed ones are remembered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isnan
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.analysis.bootstrap import pair_precisions
from callboard.analysis.difference import MismatchError
from callboard.core.console import progress
from callboard.core.json_cache import JsonCache
from callboard.data.annotations import read_table
from callboard.data.clips import read_clips
from callboard.data.score_tables import read_score_table, score_columns, score_columns_in
from callboard.results.cv_metrics import CV_NAMES
from callboard.results.dvc_cache import NotCachedError, cached_file
from callboard.results.lookup import held_result
from callboard.results.result import CLIPS, OUT_OF_FOLD, SUBMISSION, SUBMISSIONS_WITHOUT, Result
from callboard.results.rows import BoardRow
from callboard.scoring.evaluation import CrossValidation, OutOfFold, cross_validate, relabeled_lwlrap
from callboard.scoring.metrics import average_precisions, lrap_over_folds, lwlrap_known, precision_sums

Estimates = dict[str, float]


def estimates_of(rows: Sequence[BoardRow]) -> dict[str, Estimates]:
    """Map each row's content key to its estimates by name.

    A row whose tables are no longer in the cache gets the `cv.` metrics from MLflow.
    """
    memory = JsonCache("estimates", __name__)
    new = {_memory_key(row): row for row in rows if _memory_key(row) not in memory}
    for key, row in progress(new.items(), total=len(new), label="estimates", unit="runs"):
        if (found := _from_tables(row)) is not None:
            memory[key] = found
    memory.save()
    return {
        row.key: memory[_memory_key(row)] if _memory_key(row) in memory else _from_metrics(row)
        for row in rows
    }


def _memory_key(row: BoardRow) -> str:
    unscaled = f" {row.key}" * _is_rescaled(row)  # its submission before rescaling has no md5 here
    return f"{row.oof_md5} {row.clips_md5} {row.submission_md5}{unscaled}"


def _from_metrics(row: BoardRow) -> Estimates:
    return {name: row.metrics[f"cv.{name}"] for name in CV_NAMES if f"cv.{name}" in row.metrics}


def _from_tables(row: BoardRow) -> Estimates | None:
    """Compute the estimates; None if a table is not in the cache or the tables have different species.

    A blend of rescaled parts has no `prevalence`: their scores before rescaling cannot be recovered.
    """
    try:
        out_of_fold = cached_file(row.oof_md5, OUT_OF_FOLD)
        clips, submission = cached_file(row.clips_md5, CLIPS), _submission_as_scored(row)
    except NotCachedError:
        return None
    try:
        whole = scored(read_score_table(out_of_fold), _clips(clips), read_score_table(submission))
    except MismatchError:
        return None
    values = {name: estimate(whole) for name, estimate in ESTIMATES.items()}
    unknown = {"prevalence"} if any(map(_is_rescaled, row.parts)) else set()
    return {name: value for name, value in values.items() if name not in unknown and not isnan(value)}


def _submission_as_scored(row: BoardRow) -> Path:
    """Return the submission before `infer.prevalence`: rescaled scores contain the shares to estimate.

    Raises:
        NotCachedError: it is not in the cache.
    """
    if not _is_rescaled(row):
        return cached_file(row.submission_md5, SUBMISSION)
    if (result := held_result(row.ref)) is None:
        raise NotCachedError(f"{row.name}: no commit contains its files any more")
    with result.folder(SUBMISSIONS_WITHOUT, "prevalence.csv") as folder:
        path = folder / "prevalence.csv"
        if not path.is_file():
            raise NotCachedError(f"{path.name} of {SUBMISSIONS_WITHOUT} of {row.name} is not in DVC's cache")
        return path.resolve()


def _is_rescaled(row: BoardRow) -> bool:
    return float(row.params.get("infer.prevalence", "0")) > 0


@lru_cache(maxsize=4)
def _clips(path: Path) -> pd.DataFrame:
    """Read the annotations; nearly all results share one table."""
    return read_table(path, ["recording_id", "species_id", "label_type"])


Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """Scores of one result: of training recordings out of fold, and of test recordings."""

    cv: CrossValidation
    """Scores of the recordings with a TP annotation."""
    test_scores: NDArray[np.float64]
    """(test recordings, species), before `infer.prevalence`; their truth is unknown."""


def scored(out_of_fold: pd.DataFrame, clips: pd.DataFrame, submission: pd.DataFrame) -> Scored:
    """Read scores and truth from the stored tables of a result.

    Args:
        out_of_fold: recording_id, fold, and a score column per species.
        clips: recording_id, species_id and label_type.
        submission: recording_id and the same score columns, before `infer.prevalence`.

    Raises:
        MismatchError: the submission lacks a species, or an annotated one has no scores.
    """
    species = [name.removeprefix("s") for name in score_columns_in(out_of_fold)]
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
    """Return LWLRAP over all recordings at once."""
    return _lwlrap(result.cv.is_present, result.cv.scores)


def _lwlrap(is_present: NDArray[np.bool_], scores: NDArray[np.floating]) -> float:
    """Return metrics.lwlrap without its loop over recordings, which would take half of the time here."""
    precisions, n_present = precision_sums(is_present, scores)
    return float(precisions.sum() / n_present.sum())


def fold_mean(result: Scored) -> float:
    """Return the plain mean over folds of each fold's LWLRAP."""
    cv = result.cv
    return float(
        np.mean([_lwlrap(cv.is_present[cv.fold == k], cv.scores[cv.fold == k]) for k in np.unique(cv.fold)])
    )


def known_cells(result: Scored) -> float:
    """Return LWLRAP among the species that an annotator has judged in the recording."""
    return lwlrap_known(result.cv.is_present, result.cv.is_labeled, result.cv.scores)


def per_recording(result: Scored) -> float:
    """Return the original author's CV: LRAP, in which every recording counts alike, as a mean over folds."""
    return lrap_over_folds(result.cv.is_present, result.cv.scores, result.cv.fold)


def macro_ap(result: Scored) -> float:
    """Return the mean over species of average precision, which ranks recordings, not species."""
    return float(np.nanmean(average_precisions(result.cv.is_present, result.cv.scores)))


def prevalence_weighted(result: Scored) -> float:
    """Return LWLRAP as if species were as common as in test, by `expected_shares`; NaN where that refuses."""
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
"""Estimates by name; those also in metrics/cv.json have the same name there."""


def species_precisions(is_present: NDArray[np.bool_], scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return (species,) mean precision at the species' rank over its recordings; NaN where it has none.

    Ties share their worst rank, as in LWLRAP.
    """
    n_present = is_present.sum(axis=0)
    values = pair_precisions(is_present, scores)
    sums = np.bincount(np.nonzero(is_present)[1], values, minlength=len(n_present))
    means = np.full(len(n_present), np.nan)
    np.divide(sums, n_present, out=means, where=n_present > 0)
    return means


def share_weighted(is_present: NDArray[np.bool_], scores: NDArray[np.floating], shares: Shares) -> float:
    """Average over species the mean precision at their ranks, weighting species k by `shares[k]`.

    With the species' numbers of recordings as shares it equals LWLRAP.

    Args:
        is_present: (recordings, species).
        scores: (recordings, species).
        shares: (species,), not negative, with any sum; those of species without recordings are ignored.
    """
    precisions = species_precisions(is_present, scores)
    has_any = ~np.isnan(precisions)
    return float(np.average(precisions[has_any], weights=shares[has_any]))


def expected_shares(
    n_present: NDArray[np.integer], oof_scores: NDArray[np.floating], test_scores: NDArray[np.floating]
) -> Shares:
    """Estimate each species' share of the true (recording, species) pairs of the test set, without labels.

    The share of species k in training, times the ratio of its mean score in test to that out of fold:
    share_k ∝ n_k · mean(test_k) / mean(oof_k). The ratio needs no calibration, as a constant factor on a
    species' scores cancels. Assumes that a mean score changes with prevalence alone. Recordings without the
    species score above 0 too, so a ratio is nearer to 1 than the truth: an uninformative network leaves the
    training shares unchanged, and LWLRAP with them. Removing that floor, as adjusted counts and Saerens's EM
    do, divides by small differences; docs/appendix/trust.md has the results.

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
    """Return whether no score is negative, and each species has an out-of-fold score above 0."""
    is_negative = min(oof_scores.min(), test_scores.min()) < 0
    return not is_negative and bool(oof_scores.any(axis=0).all())


def relabeled_cv(result: Result) -> tuple[float, float]:
    """Return LWLRAP out of fold on confirmed labels, and with the last pseudo-labels taken as true.

    The original author measured CV the second way; the difference is the amount by which it was too high.

    Args:
        result: A result; without pseudo-labels both values are equal.

    Raises:
        UserError: a file is not in the cache.
    """
    out_of_fold = read_score_table(result.output(OUT_OF_FOLD))
    clips = read_clips(result.output(CLIPS))
    confirmed = relabeled_lwlrap(out_of_fold, clips, clips.head(0))
    if not (last := int(result.params["pseudo.rounds"])):
        return confirmed, confirmed
    return confirmed, relabeled_lwlrap(out_of_fold, clips, read_clips(result.output(f"pseudo/r{last}.csv")))
