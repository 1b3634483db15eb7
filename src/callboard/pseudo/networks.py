"""Training of networks that hold out several folds.

A network is validated on all folds that it holds out, its student's among them, so nothing may depend on
validation: neither the epoch to keep nor the learning rate. The class axis (`train.classes`) is derived
from all recordings: the list of song types is known, but none of their labels.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch

from callboard.core.errors import UserError
from callboard.data.clips import read_clips
from callboard.features.frame_cache import TrainingCache
from callboard.model.class_axis import CLASSES, ClassAxis
from callboard.model.weights import WeightsParams, save_model
from callboard.params.base import validate
from callboard.params.references import INIT_FROM
from callboard.pseudo.held_out import Folds, fold_names
from callboard.training.checkpoint import Checkpoint, checkpoint_for
from callboard.training.curve import write_curve
from callboard.training.fit import Execution, FitParams, Fitted, fit
from callboard.training.fold_data import select_fold
from callboard.training.progress import ProgressWriter
from callboard.training.schedules import FOLLOWS_VALIDATION
from callboard.training.start_weights import FoldWeights, find_recipe
from callboard.training.validation import SELECTIONS

Follow = Callable[[str], Callable[[range], Iterable[int]]]
"""Maps the name of a network to a wrapper of its epochs, for a progress bar."""


@dataclass(frozen=True)
class Inputs:
    """Inputs that networks learn from."""

    clips: Path
    """Confirmed and rejected boxes."""
    pseudo: list[Path]
    """Tables of pseudo-labels; empty for networks of round 0."""
    folds: pd.DataFrame
    """recording_id, fold."""
    species: list[str]
    open_cache: Callable[[pd.DataFrame], TrainingCache]
    """Opens the caches with the recordings of the annotations."""
    digested: list[Path | str]
    """Other inputs that determine the weights: tables, indices of caches, the fingerprint of the code."""


@dataclass(frozen=True)
class NetworkTraining:
    """Training of one network, which holds out some folds."""

    name: str
    """Name as shown."""
    held_out: Folds
    params: FitParams
    inputs: Inputs
    device: torch.device
    n_threads: int
    follow: Follow

    def write(self, path: Path, curve: Path) -> None:
        """Train, or resume where a killed run stopped, and write the weights and the learning curve.

        Raises:
            UserError: the recipe of `train.init_from` cannot be carried out again.
        """
        params, pseudo = self.params, self.inputs.pseudo
        fitted, checkpoint = self._fit(params, self.name, pseudo, self._start(params))
        held_out = self.inputs.folds.loc[self._is_held_out, "recording_id"]
        weights = WeightsParams(model=params.model, clip=params.clip)
        save_model(path, fitted.model, weights, self._axis, min(self.held_out), held_out, fitted.averages)
        write_curve(fitted.history, fitted.computes, curve)
        checkpoint.remove()

    def _start(self, params: FitParams) -> FoldWeights | None:
        """Carry out the recipe of `train.init_from` without the folds that are held out.

        The original weights are of no use, since each has seen all folds but one. Other results start from
        the same recipe, so its checkpoint is kept.

        Raises:
            UserError: the recipe, or one that it starts from itself, depends on validation.
        """
        if not (reference := params.train.init_from):
            return None
        recipe = validate(FitParams, find_recipe(reference), reference)
        _refuse_what_follows_validation(recipe, reference)
        name = f"{reference.partition('@')[0]} without {fold_names(self.held_out)}"
        fitted, _ = self._fit(recipe, name, [], self._start(recipe))
        return FoldWeights(reference, recipe.model, fitted.model.state_dict())

    def _fit(
        self, params: FitParams, name: str, pseudo: list[Path], start: FoldWeights | None
    ) -> tuple[Fitted, Checkpoint]:
        """Train, or resume from the checkpoint; return it too.

        Args:
            params: The recipe.
            name: For the progress bar.
            pseudo: Tables of pseudo-labels.
            start: Weights to start from.
        """
        folds, number = self.inputs.folds, min(self.held_out)
        clips = pd.concat([self._clips, *map(read_clips, pseudo)])
        merged = folds.assign(fold=folds["fold"].where(~self._is_held_out, number))
        cache = self.inputs.open_cache(clips)
        data = select_fold(cache, clips, merged, number, self._axis, params.train.labels)
        inputs = [*pseudo, *self.inputs.digested]
        checkpoint = checkpoint_for(params, inputs, f"s{fold_names(self.held_out)}")
        shown = ProgressWriter(checkpoint.path, name, params.train.epochs)
        execution = Execution(self.device, self.n_threads, checkpoint, self.follow(name), show=shown.write)
        return fit(params, number, data, execution, start), checkpoint

    @cached_property
    def _is_held_out(self) -> pd.Series:
        return self.inputs.folds["fold"].isin(self.held_out)

    @cached_property
    def _clips(self) -> pd.DataFrame:
        return read_clips(self.inputs.clips)

    @cached_property
    def _axis(self) -> ClassAxis:
        return CLASSES[self.params.train.classes](self._clips, self.inputs.species)


def _refuse_what_follows_validation(recipe: FitParams, reference: str) -> None:
    """Refuse what `Experiment` refuses for the networks themselves."""
    settings = {
        f"train.select {recipe.train.select}": recipe.train.select in SELECTIONS,
        f"sched.name {recipe.sched.name}": recipe.sched.name in FOLLOWS_VALIDATION,
    }
    if following := [setting for setting, is_set in settings.items() if is_set]:
        raise UserError(
            f"{INIT_FROM}: {reference} has {' and '.join(following)}, which depends on validation; "
            "pseudo.isolation nested retrains it and validates on its student's fold too, so it needs a "
            "result with train.select last and a different sched.name"
        )
