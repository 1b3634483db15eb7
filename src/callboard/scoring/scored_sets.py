"""Scores of the training and test set for any `infer` section: of its own networks, a blend or a stack."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.core.errors import UserError
from callboard.data.presence import species_presence
from callboard.data.score_tables import fill_submission, score_columns, score_table
from callboard.params.scoring import InferParams
from callboard.results.result import OUT_OF_FOLD, SUBMISSION
from callboard.scoring.blend import blend_tables, part_tables, refuse_rescaled, refuse_split_groups
from callboard.scoring.evaluation import OutOfFold, blend_out_of_fold, pool_out_of_fold
from callboard.scoring.prevalence import estimate_prevalence, with_odds_times
from callboard.scoring.stacking import CrossFitted, Stack, cross_fitted, fit_stack, in_words
from callboard.scoring.window_scores import WindowScores, load_scores, recording_scores


@dataclass(frozen=True)
class TrainingScores:
    """Scores of every recording in the folds table, from models that had not seen it."""

    path: Path
    """File of the experiment's own window scores, read when needed."""
    folds: pd.DataFrame
    clips: pd.DataFrame
    species: list[str]
    """The class axis."""
    _stacks: dict[tuple[str, ...], Stack] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Fitted stacks by parts, so that each is fitted once."""
    _cross_fits: dict[tuple[str, ...], CrossFitted] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @cached_property
    def window_scores(self) -> WindowScores:
        """Window scores of the experiment's own networks."""
        window_scores = load_scores(self.path)
        if window_scores.species != self.species:
            raise UserError(
                f"{self.path}: the scores have species {window_scores.species}, "
                f"but the source lists {self.species}"
            )
        return window_scores

    def out_of_fold(self, params: InferParams) -> OutOfFold:
        """Return out-of-fold scores for `params`; `prevalence` has no effect: it adapts to other sets.

        Raises:
            UserError: See `pool_out_of_fold` and `blend_tables`.
        """
        refuse_split_groups(params.blend, self.folds)
        if params.stack:
            scores, _ = self._cross_fitted(params)
            return OutOfFold(self._recording_ids, self._fold, self.species, scores)
        if params.blend:
            return blend_out_of_fold(params.blend, self.folds, self.species, params.blend_weights)
        return pool_out_of_fold(self.window_scores, self.folds, params)

    def stack(self, params: InferParams) -> Stack:
        """Return the stack of the parts of `blend`, fitted on all recordings.

        Raises:
            UserError: See `blend_tables`.
        """
        parts = tuple(params.blend)
        if parts not in self._stacks:
            self._stacks[parts] = fit_stack(self._parts(params), self._is_present)
        return self._stacks[parts]

    def how(self, params: InferParams) -> list[str]:
        """Describe the blend or stack that replaces the experiment's own networks; empty if there is none."""
        if params.stack:
            _, is_fitted = self._cross_fitted(params)
            return [stack_in_words(params, is_fitted, self.species)]
        return [blend_in_words(params)] * bool(params.blend)

    def _cross_fitted(self, params: InferParams) -> CrossFitted:
        parts = tuple(params.blend)
        if parts not in self._cross_fits:
            self._cross_fits[parts] = cross_fitted(self._parts(params), self._is_present, self._fold)
        return self._cross_fits[parts]

    @cached_property
    def _recording_ids(self) -> list[str]:
        return list(self.folds["recording_id"])

    @cached_property
    def _fold(self) -> NDArray[np.int64]:
        return self.folds["fold"].to_numpy()

    @cached_property
    def _is_present(self) -> NDArray[np.bool_]:
        """(recordings, species) whether the recording has a confirmed annotation."""
        confirmed = self.clips[self.clips["label_type"] == "tp"]
        return species_presence(confirmed, self._recording_ids, self.species)

    def _parts(self, params: InferParams) -> NDArray[np.float64]:
        return part_scores(params, OUT_OF_FOLD, self._recording_ids, self.species)


@dataclass(frozen=True)
class SubmissionScores:
    """Scores of every recording in the sample submission that has them."""

    path: Path
    """File of the experiment's own window scores, read when needed."""
    wanted: pd.DataFrame
    """Rows and columns of the submission, from the sample submission."""
    training: TrainingScores
    """Training set, on whose out-of-fold scores prevalences are estimated and stacks are fitted."""

    @cached_property
    def window_scores(self) -> WindowScores:
        """Window scores of the experiment's own networks."""
        return load_scores(self.path)

    def submission(self, params: InferParams) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        """Return the submission for `params`, and the table of prevalences if it was rescaled by them.

        Raises:
            UserError: Species or recordings have no scores; see also `blend_tables`, `refuse_rescaled` and
                `estimate_prevalence`.
        """
        table = fill_submission(self.wanted, self._table(params))
        if not params.prevalence or table.empty:
            return table, None
        if params.blend:
            refuse_rescaled(params.blend, "prevalence")
        species, columns = self.training.species, score_columns(self.training.species)
        scores = table[columns].to_numpy()
        prevalence = estimate_prevalence(self.training.out_of_fold(params).scores, scores, species=species)
        rescaled = with_odds_times(scores, prevalence.factors(params.prevalence))
        submission = score_table(table["recording_id"].tolist(), species, rescaled)
        return submission[list(table.columns)], prevalence.table(species, params.prevalence)

    def how(self, params: InferParams) -> str:
        """Describe in words how the scores were made."""
        if params.stack:
            is_fitted = self.training.stack(params).is_fitted
            return stack_in_words(params, is_fitted, self.training.species)
        if params.blend:
            return blend_in_words(params)
        over = (
            f"{params.window_agg} over windows, {params.fold_agg} over {self.window_scores.n_models} models"
        )
        return f"{params.head} head, {over}"

    def _table(self, params: InferParams) -> pd.DataFrame:
        if not params.blend:
            scores = recording_scores(self.window_scores, params)
            return score_table(self.window_scores.recording_ids, self.window_scores.species, scores)
        recording_ids = self.wanted["recording_id"].tolist()
        columns = [name for name in self.wanted.columns if name != "recording_id"]
        if not params.stack:
            return blend_tables(params.blend, SUBMISSION, recording_ids, columns, params.blend_weights)
        refuse_rescaled(params.blend, "stack")
        species = self.training.species
        parts = part_scores(params, SUBMISSION, recording_ids, species)
        return score_table(recording_ids, species, self.training.stack(params).scores(parts))


def part_scores(
    params: InferParams, path: str, recording_ids: list[str], species: list[str]
) -> NDArray[np.float64]:
    """Return (parts, recordings, species) scores from one table of each part of `blend`.

    Raises:
        UserError: See `part_tables`.
    """
    return np.array(part_tables(params.blend, path, recording_ids, score_columns(species)))


def stack_in_words(params: InferParams, is_fitted: NDArray[np.bool_], species: list[str]) -> str:
    """Describe a stack: its parts, and how many species have regressions."""
    return f"stack of {', '.join(params.blend)}: {in_words(is_fitted, species)}"


def blend_in_words(params: InferParams) -> str:
    """Describe a blend: its parts, with their weights if given."""
    if not params.blend_weights:
        return f"blend of {', '.join(params.blend)}"
    weighted = zip(params.blend_weights, params.blend, strict=True)
    return "blend of " + ", ".join(f"{weight:g} × {part}" for weight, part in weighted)
