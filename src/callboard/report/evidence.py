"""The out-of-fold scores of a result beside what experts said, and where the ranking goes wrong."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.annotations import read_table
from callboard.better.comparison import pair_precisions
from callboard.clips import read_clips
from callboard.presence import species_presence
from callboard.results import CLIPS, FOLDS, OUT_OF_FOLD
from callboard.runs.files import Source
from callboard.submission import read_score_table


@dataclass(frozen=True)
class Evidence:
    """Tables of one result, and its scores as an array beside the truth."""

    clips: pd.DataFrame
    """TP and FP annotations, see clips.DTYPES."""
    folds: pd.DataFrame
    """recording_id, fold; unchecked, as the file has it."""
    out_of_fold: pd.DataFrame
    """recording_id, fold and score columns; unchecked."""
    species: list[str]
    scores: NDArray[np.float64]
    """(recordings, species), recordings as in out_of_fold."""
    is_present: NDArray[np.bool_]
    """(recordings, species), a TP row somewhere in the recording."""
    is_absent: NDArray[np.bool_]
    """(recordings, species), an FP row and no TP row."""

    @property
    def recording_ids(self) -> list[str]:
        """Of the rows of the arrays."""
        return list(self.out_of_fold["recording_id"])


def read_evidence(source: Source) -> Evidence:
    """The tables of a result, from DVC's cache.

    Raises:
        UserError: one is missing or cannot be read.
    """
    folds = read_table(source.output(FOLDS), ["recording_id", "fold"]).reset_index(drop=True)
    return weigh(read_clips(source.output(CLIPS)), folds, read_score_table(source.output(OUT_OF_FOLD)))


def weigh(clips: pd.DataFrame, folds: pd.DataFrame, out_of_fold: pd.DataFrame) -> Evidence:
    """The arrays of these tables.

    Raises:
        ValueError: an annotated species has no score column.
    """
    columns = [name for name in out_of_fold.columns if name not in ("recording_id", "fold")]
    species = [name.removeprefix("s") for name in columns]
    present, rejected = (
        species_presence(clips[clips["label_type"] == kind], list(out_of_fold["recording_id"]), species)
        for kind in ("tp", "fp")
    )
    scores = out_of_fold[columns].to_numpy(dtype=np.float64)
    return Evidence(clips, folds, out_of_fold, species, scores, present, rejected & ~present)


def precision_at_present(is_present: NDArray[np.bool_], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(recordings, species) share of present ones among the species scored at least as high; NaN if absent.

    LWLRAP is the mean of all that are not NaN: this tells which cells it loses its points in.
    """
    precision = np.full(scores.shape, np.nan)
    precision[is_present] = pair_precisions(is_present, scores)
    return precision


def lost_points(evidence: Evidence) -> NDArray[np.float64]:
    """(recordings, species) what each present cell takes from LWLRAP; they sum to 1 - LWLRAP."""
    lost = 1 - precision_at_present(evidence.is_present, evidence.scores)
    shares: NDArray[np.float64] = np.nan_to_num(lost) / max(int(evidence.is_present.sum()), 1)
    return shares


@dataclass(frozen=True)
class Mistake:
    """A recording in which a species that calls is ranked below one that nobody confirmed."""

    recording_id: str
    fold: int
    lost: float
    """Points of LWLRAP that the recording costs."""
    species: list[str]
    """All that were confirmed in it."""
    missed: str
    """The confirmed one with the lowest precision."""
    rank: int
    """Of `missed` among all species, 1 = first; ties share the worst rank."""
    missed_score: float
    wrong: str
    """The highest-scored species that nobody confirmed."""
    wrong_score: float
    is_rejected: bool
    """Whether an expert rejected `wrong` in this recording; else nobody has looked."""


def worst_recordings(evidence: Evidence, n_shown: int) -> list[Mistake]:
    """The recordings that cost LWLRAP most, dearest first, by id where equal; none that costs nothing."""
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
