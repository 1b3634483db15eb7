"""The result of a report: its tables, its ranking errors and its calibration."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.analysis.bootstrap import pair_precisions
from callboard.data.annotations import read_table
from callboard.data.clips import read_clips
from callboard.data.presence import species_presence
from callboard.data.score_tables import read_score_table, score_columns_in
from callboard.results.result import CLIPS, FOLDS, OUT_OF_FOLD, Result
from callboard.results.rows import BoardRow


@dataclass(frozen=True)
class Evidence:
    """Tables of one result, and its scores and labels as arrays."""

    clips: pd.DataFrame
    """TP and FP annotations, with the columns of clips.DTYPES."""
    folds: pd.DataFrame
    """recording_id and fold, unchecked."""
    out_of_fold: pd.DataFrame
    """recording_id, fold and score columns, unchecked."""
    species: list[str]
    scores: NDArray[np.float64]
    """(recordings, species), in the order of out_of_fold."""
    is_present: NDArray[np.bool_]
    """(recordings, species); True where the recording has a TP row."""
    is_absent: NDArray[np.bool_]
    """(recordings, species); True where the recording has an FP row and no TP row."""

    @property
    def recording_ids(self) -> list[str]:
        """Recording ids of the rows of the arrays."""
        return list(self.out_of_fold["recording_id"])


def read_evidence(result: Result) -> Evidence:
    """Read the tables of a result from DVC's cache.

    Raises:
        UserError: a table is missing or cannot be read.
    """
    folds = read_table(result.output(FOLDS), ["recording_id", "fold"], others=True).reset_index(drop=True)
    return weigh(read_clips(result.output(CLIPS)), folds, read_score_table(result.output(OUT_OF_FOLD)))


def weigh(clips: pd.DataFrame, folds: pd.DataFrame, out_of_fold: pd.DataFrame) -> Evidence:
    """Build the arrays from the tables.

    Raises:
        ValueError: an annotated species has no score column.
    """
    columns = score_columns_in(out_of_fold)
    species = [name.removeprefix("s") for name in columns]
    present, rejected = (
        species_presence(clips[clips["label_type"] == kind], list(out_of_fold["recording_id"]), species)
        for kind in ("tp", "fp")
    )
    scores = out_of_fold[columns].to_numpy(dtype=np.float64)
    return Evidence(clips, folds, out_of_fold, species, scores, present, rejected & ~present)


def precision_at_present(is_present: NDArray[np.bool_], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of present species among those scored at least as high; (recordings, species).

    Cells of absent species are NaN. LWLRAP is the mean of all others, so this shows where it loses points.
    """
    precision = np.full(scores.shape, np.nan)
    precision[is_present] = pair_precisions(is_present, scores)
    return precision


def lost_points(evidence: Evidence) -> NDArray[np.float64]:
    """Return the points that each present cell takes from LWLRAP, (recordings, species); sum 1 - LWLRAP."""
    lost = 1 - precision_at_present(evidence.is_present, evidence.scores)
    shares: NDArray[np.float64] = np.nan_to_num(lost) / max(int(evidence.is_present.sum()), 1)
    return shares


@dataclass(frozen=True)
class Mistake:
    """A recording in which a confirmed species is ranked below one that nobody confirmed."""

    recording_id: str
    fold: int
    lost: float
    """Points of LWLRAP lost by the recording."""
    species: list[str]
    """All species confirmed in it."""
    missed: str
    """The confirmed one with the lowest precision."""
    rank: int
    """Rank of `missed` among all species, 1 = first; ties share the worst rank."""
    missed_score: float
    wrong: str
    """The highest-scored species that nobody confirmed."""
    wrong_score: float
    is_rejected: bool
    """Whether an annotator rejected `wrong` in this recording; else nobody has looked."""


def worst_recordings(evidence: Evidence, n_shown: int) -> list[Mistake]:
    """Return at most `n_shown` recordings that lose points, the costliest first and equal ones by id."""
    lost = lost_points(evidence)
    order = np.lexsort((np.array(evidence.recording_ids), -lost.sum(axis=1).round(12)))
    return [_mistake(evidence, lost[row], row) for row in order[:n_shown].tolist() if lost[row].any()]


def _mistake(evidence: Evidence, lost: NDArray[np.float64], row: int) -> Mistake:
    present, score = evidence.is_present[row], evidence.scores[row]
    missed = int(np.where(present, lost, -1).argmax())
    wrong = int(np.where(present, -np.inf, score).argmax())
    return Mistake(
        recording_id=evidence.recording_ids[row],
        fold=int(evidence.out_of_fold["fold"].iloc[row]),
        lost=float(lost.sum()),
        species=[name for name, is_here in zip(evidence.species, present, strict=True) if is_here],
        missed=evidence.species[missed],
        rank=int((score >= score[missed]).sum()),
        missed_score=float(score[missed]),
        wrong=evidence.species[wrong],
        wrong_score=float(score[wrong]),
        is_rejected=bool(evidence.is_absent[row, wrong]),
    )


N_BINS = 10
Z_95 = 1.959964
"""Quantile of the normal distribution for a 95 % interval."""


@dataclass(frozen=True)
class Reliability:
    """Judged cells by score, in bins of equal width; empty bins are left out."""

    mean_score: NDArray[np.float64]
    """(bins,)"""
    share_present: NDArray[np.float64]
    """(bins,)"""
    low: NDArray[np.float64]
    """(bins,) lower end of Wilson's 95 % interval of the share."""
    high: NDArray[np.float64]
    count: NDArray[np.int64]
    """(bins,) number of cells."""

    @property
    def expected_error(self) -> float:
        """Mean distance between share and score, weighted by cells (ECE; Naeini et al. 2015, AAAI)."""
        return float(np.average(np.abs(self.share_present - self.mean_score), weights=self.count))


def reliability(
    scores: NDArray[np.float64],
    is_present: NDArray[np.bool_],
    is_absent: NDArray[np.bool_],
    n_bins: int = N_BINS,
) -> Reliability:
    """Bin the judged cells by score, and count the present ones; all arrays are (recordings, species).

    Raises:
        ValueError: no cell is judged.
    """
    is_known = is_present | is_absent
    if not is_known.any():
        raise ValueError("no cell is judged present or absent")
    known, truth = scores[is_known], is_present[is_known]
    place = np.searchsorted(np.linspace(0, 1, n_bins + 1)[1:-1], known)
    count = np.bincount(place, minlength=n_bins)
    has_any = count > 0
    count, total = count[has_any], np.bincount(place, known, minlength=n_bins)[has_any]
    share = np.bincount(place, truth, minlength=n_bins)[has_any] / count
    low, high = wilson_interval(share, count)
    return Reliability(total / count, share, low, high, count)


def wilson_interval(
    share: NDArray[np.float64], count: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the 95 % interval of binomial shares (Wilson 1927); valid for shares of 0 and 1 too."""
    scale = 1 + Z_95**2 / count
    centre = (share + Z_95**2 / (2 * count)) / scale
    half = Z_95 / scale * np.sqrt(share * (1 - share) / count + Z_95**2 / (4 * count**2))
    return centre - half, centre + half


PSEUDO = re.compile(r"pseudo/r(?P<round>\d+)\.csv")


@dataclass(frozen=True)
class Subject:
    """The result of the report, the rows of the board, and the options of the report."""

    result: Result
    row: BoardRow | None
    rows: Sequence[BoardRow]
    n_worst: int
    with_scores: bool

    @cached_property
    def evidence(self) -> Evidence:
        """Tables of the result, read once.

        Raises:
            UserError: a table is missing.
        """
        return read_evidence(self.result)

    @cached_property
    def pseudo_labels(self) -> dict[int, pd.DataFrame]:
        """Round to the pseudo-labels of its students, up to the last round.

        Raises:
            UserError: a table is not in the cache.
        """
        final = int(self.result.params.get("pseudo.rounds", "0"))
        rounds = {int(m["round"]): path for path in self.result.outs if (m := PSEUDO.fullmatch(path))}
        return {k: read_clips(self.result.output(path)) for k, path in sorted(rounds.items()) if k <= final}
