"""The board's numbers from scores: CV with its uncertainty, each species, LB if the truth is known."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.data.known_truth import USAGES
from callboard.data.presence import relabeled_presence, species_presence
from callboard.data.score_tables import score_columns, score_columns_in
from callboard.params.scoring import InferParams
from callboard.results.result import OUT_OF_FOLD
from callboard.scoring.blend import blend_tables
from callboard.scoring.grouped import lwlrap_interval_over_groups
from callboard.scoring.metrics import (
    average_precisions,
    lrap_over_folds,
    lwlrap,
    lwlrap_interval,
    lwlrap_known,
)
from callboard.scoring.window_scores import WindowScores, recording_scores


@dataclass(frozen=True)
class OutOfFold:
    """Every recording of the folds table, with its fold and scores from models that did not see it."""

    recording_ids: list[str]
    fold: NDArray[np.int64]
    """(recordings,) fold of each recording."""
    species: list[str]
    scores: NDArray[np.float64]
    """(recordings, species) probabilities."""


def pool_out_of_fold(window_scores: WindowScores, folds: pd.DataFrame, params: InferParams) -> OutOfFold:
    """Pool window scores to recording scores in the order of the folds table.

    Raises:
        UserError: The scores are not out-of-fold, or were made with different folds.
    """
    if window_scores.fold is None:
        raise UserError("scores are of all models, not out-of-fold: pass oof.npz")
    scored = pd.Series(window_scores.fold, index=window_scores.recording_ids)
    expected = folds.set_index("recording_id")["fold"]
    if set(scored.index) != set(expected.index):
        differing = sorted(set(scored.index) ^ set(expected.index))
        raise UserError(
            f"scores and folds cover different recordings: {len(differing)} differ, first {differing[0]}"
        )
    in_order = scored.loc[expected.index]
    if len(moved := expected.index[in_order.to_numpy() != expected.to_numpy()]):
        raise UserError(
            f"leak: {moved[0]} is in fold {expected[moved[0]]} but was scored by the model of fold "
            f"{scored[moved[0]]}, which trained on it ({len(moved)} in total); run predict again"
        )
    row = pd.Index(window_scores.recording_ids).get_indexer(expected.index)
    return OutOfFold(
        recording_ids=expected.index.tolist(),
        fold=expected.to_numpy(),
        species=window_scores.species,
        scores=recording_scores(window_scores, params)[row],
    )


def blend_out_of_fold(
    references: Sequence[str], folds: pd.DataFrame, species: list[str], weights: Sequence[float] = ()
) -> OutOfFold:
    """Return the weighted mean of finished experiments' out-of-fold scores, in the order of the folds table.

    The parts can have different folds: each part's scores of a recording come from models that did not see
    it, so their mean does too. The folds given here only group recordings for the spread over folds.

    Raises:
        UserError: See `blend_tables`.
    """
    recording_ids, columns = folds["recording_id"].tolist(), score_columns(species)
    table = blend_tables(references, OUT_OF_FOLD, recording_ids, columns, weights)
    return OutOfFold(recording_ids, folds["fold"].to_numpy(), species, table[columns].to_numpy())


@dataclass(frozen=True)
class CrossValidation:
    """Out-of-fold scores and annotations of the recordings with a TP annotation."""

    fold: NDArray[np.int64]
    """(recordings,) fold of each recording."""
    species: list[str]
    is_present: NDArray[np.bool_]
    """(recordings, species) whether the recording has a TP row of the species."""
    is_labeled: NDArray[np.bool_]
    """(recordings, species) whether the recording has a TP or FP row of the species."""
    scores: NDArray[np.float64]
    """(recordings, species) probabilities."""
    group: NDArray[np.str_] | None = None
    """(recordings,) group of each recording; None if recordings are independent."""

    def summary(self, n_bootstrap: int, seed: int) -> dict[str, float]:
        """Return the numbers of `metrics/cv.json`; undefined ones are NaN.

        Args:
            n_bootstrap: Number of resamples of recordings; 0 for no interval. Groups need none.
            seed: Seed of the resamples.
        """
        low, high = self._interval(n_bootstrap, seed) if n_bootstrap else (float("nan"), float("nan"))
        of_folds = self._lwlrap_of_folds()
        precisions = self.average_precisions()
        return {
            "lwlrap": self.lwlrap(),
            "lwlrap_low": low,
            "lwlrap_high": high,
            "fold_mean": float(np.mean(of_folds)),
            "fold_sd": float(np.std(of_folds, ddof=1)),
            "lrap": lrap_over_folds(self.is_present, self.scores, self.fold),
            "lwlrap_known": lwlrap_known(self.is_present, self.is_labeled, self.scores),
            "macro_ap": float(np.nanmean(precisions)),
            "n_recordings": len(self.fold),
            **({} if self.group is None else {"n_groups": len(np.unique(self.group))}),
        }

    def _interval(self, n_bootstrap: int, seed: int) -> tuple[float, float]:
        if self.group is None:
            return lwlrap_interval(self.is_present, self.scores, n_bootstrap, seed)
        return lwlrap_interval_over_groups(self.is_present, self.scores, self.group)

    def lwlrap(self) -> float:
        """Return CV: LWLRAP over all recordings at once."""
        return lwlrap(self.is_present, self.scores)

    def average_precisions(self) -> NDArray[np.float64]:
        """Return (species,) average precisions, NaN for a species without TP recordings."""
        return average_precisions(self.is_present, self.scores)

    def species_table(self) -> pd.DataFrame:
        """Return species, ap and n_tp (TP recordings) in class order; ap is NaN for a species without any."""
        return pd.DataFrame(
            {
                "species": pd.Series(self.species, dtype=str),
                "ap": self.average_precisions().round(5),
                "n_tp": self.is_present.sum(axis=0),
            }
        )

    def _lwlrap_of_folds(self) -> list[float]:
        return [
            lwlrap(self.is_present[self.fold == k], self.scores[self.fold == k]) for k in np.unique(self.fold)
        ]


def cross_validate(
    out_of_fold: OutOfFold, clips: pd.DataFrame, group: NDArray[np.str_] | None = None
) -> CrossValidation:
    """Select the scores and annotations that CV is computed on: recordings with TP rows, all species.

    A species confirmed in one box and rejected in a different box of the same recording counts as present.

    Args:
        out_of_fold: Scores of recordings.
        clips: TP and FP annotations.
        group: (recordings,) group of each of them; None if they are independent.
    """
    tp, fp = (clips[clips["label_type"] == label_type] for label_type in ("tp", "fp"))
    is_present = species_presence(tp, out_of_fold.recording_ids, out_of_fold.species)
    is_rejected = species_presence(fp, out_of_fold.recording_ids, out_of_fold.species)
    has_tp = is_present.any(axis=1)
    return CrossValidation(
        fold=out_of_fold.fold[has_tp],
        species=out_of_fold.species,
        is_present=is_present[has_tp],
        is_labeled=(is_present | is_rejected)[has_tp],
        scores=out_of_fold.scores[has_tp],
        group=None if group is None else group[has_tp],
    )


def relabeled_lwlrap(out_of_fold: pd.DataFrame, clips: pd.DataFrame, pseudo: pd.DataFrame) -> float:
    """Compute LWLRAP of out-of-fold scores, counting positive pseudo-labels as confirmed.

    This does not estimate LB, because it measures networks by the labels of their own teachers.

    Args:
        out_of_fold: recording_id, fold and a score column per species.
        clips: TP and FP annotations.
        pseudo: Pseudo-labels of the last round; an empty table gives the LWLRAP on confirmed labels.
    """
    scores = out_of_fold[score_columns_in(out_of_fold)]
    species = [str(column).removeprefix("s") for column in scores]
    is_present = relabeled_presence(clips, pseudo, out_of_fold["recording_id"].tolist(), species)
    is_counted = is_present.any(axis=1)
    return lwlrap(is_present[is_counted], scores.to_numpy()[is_counted])


def score_submission(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """Compute LWLRAP of each usage over the submission's recordings; NaN if none of them has a species.

    Recordings that could not be read have no row in the submission; a real leaderboard would refuse it.

    Args:
        submission: recording_id and a score column per species.
        truth: recording_id, usage, and the same score columns with 0 or 1; rows in any order.

    Raises:
        UserError: The species differ, a recording is not in the truth, the submission is empty, or a usage is
            unknown.
    """
    columns = [name for name in submission.columns if name != "recording_id"]
    if set(truth.columns) != {"recording_id", "usage", *columns}:
        raise UserError(f"submission: columns {columns} are not those of the truth, {list(truth.columns)}")
    if extra := sorted(set(submission["recording_id"]) - set(truth["recording_id"])):
        raise UserError(f"submission: {len(extra)} recordings are not in the truth, first {extra[0]}")
    if submission.empty:
        raise UserError(f"submission: no recordings, the truth has {len(truth)}")
    if unknown := sorted(set(truth["usage"]) - set(USAGES)):
        raise UserError(f"truth: usage must be one of {USAGES}, found {unknown}")
    truth = truth[truth["recording_id"].isin(submission["recording_id"])]
    scores = submission.set_index("recording_id").loc[truth["recording_id"], columns].to_numpy()
    is_present = truth[columns].to_numpy() > 0
    return {
        usage: _lwlrap_or_nan(is_present[is_part], scores[is_part])
        for usage, is_part in ((usage, (truth["usage"] == usage).to_numpy()) for usage in USAGES)
    }


def _lwlrap_or_nan(is_present: NDArray[np.bool_], scores: NDArray[np.floating]) -> float:
    return lwlrap(is_present, scores) if is_present.any() else float("nan")


def write_metrics(values: dict[str, float], group: str, path: Path) -> None:
    """Write `{group: values}` as JSON with five decimals; NaN, which JSON lacks, becomes null."""
    rounded = {
        name: None if math.isnan(value) else value if isinstance(value, int) else round(value, 5)
        for name, value in values.items()
    }
    with written_whole(path) as unfinished:
        unfinished.write_text(json.dumps({group: rounded}, indent=2) + "\n", encoding="utf-8")
