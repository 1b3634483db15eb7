"""Pseudo-labels by networks that have seen neither the recording nor what their student is validated on.

The student of fold k learns about a recording of fold j from a network trained without both. If that network
is a student itself, its own labels come from networks that hold out a third fold, and so on: a teacher holds
out one fold more than its student, and nothing of what it holds out has reached it, by whatever labels. It is
nested cross-validation (Varma & Simon 2006, BMC Bioinformatics 7:91) with the rounds of pseudo-labels inside.

Five folds and one round take ten networks of three fifths of the recordings; two rounds take ten of two
fifths and ten of three fifths that learn from these. None of round 0 depends on thresholds or votes, so all
are kept in `.cache` for the next time.

A network is validated on all folds that it holds out, its student's among them, so nothing may follow
validation: neither which epoch is kept nor the learning rate. The class axis (`train.classes`) is taken from
all recordings: the list of song types is known, no label of them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch

from callboard.core.errors import UserError
from callboard.data.clips import read_clips
from callboard.features.frame_cache import TrainingCache
from callboard.model.class_axis import CLASSES, ClassAxis
from callboard.model.weights import LoadedModel, WeightsParams, load_model, save_model
from callboard.params.base import validate
from callboard.params.references import INIT_FROM
from callboard.params.scoring import PseudoParams
from callboard.pseudo.labels import PSEUDO_SOURCES, Teacher, as_clips, label_recordings, write_pseudo_labels
from callboard.scoring.predict import ScoreParams
from callboard.training.checkpoint import checkpoint_for
from callboard.training.fit import Execution, FitParams, Fitted, fit
from callboard.training.fold_data import select_fold
from callboard.training.progress import ProgressWriter
from callboard.training.schedules import FOLLOWS_VALIDATION
from callboard.training.start_weights import FoldWeights, find_recipe
from callboard.training.validation import SELECTIONS

Folds = frozenset[int]
"""Numbers of the folds that a network holds out."""

Follow = Callable[[str], Callable[[range], Iterable[int]]]
"""From the name of a network to what wraps its epochs, for a progress bar."""


class NestedParams(FitParams, ScoreParams):
    """What networks are trained by, what they score by, and what becomes of the scores."""

    pseudo: PseudoParams


def fold_names(folds: Folds) -> str:
    """As `2` or `0-2`."""
    return "-".join(map(str, sorted(folds)))


def network_name(number: int, folds: Folds) -> str:
    """A network of a round, as `r0/folds0-2`."""
    return f"r{number}/folds{fold_names(folds)}"


def voters_name(number: int, student: Folds) -> str:
    """The networks of a round that teach a student, all together, as `r0/folds0-*`."""
    return f"r{number}/folds{fold_names(student)}-*"


@dataclass(frozen=True)
class Inputs:
    """What networks learn from."""

    mel: Path
    """Folder with the caches of all sets."""
    clips: Path
    folds: pd.DataFrame
    """recording_id, fold."""
    species: list[str]
    open_cache: Callable[[pd.DataFrame], TrainingCache]
    """The caches that annotations lie in."""
    digested: list[Path | str]
    """What decides about weights: tables, indices of caches, the fingerprint of the code."""


@dataclass(frozen=True)
class Nested:
    """The networks of a tree, trained as they are asked for."""

    params: NestedParams
    inputs: Inputs
    folder: Path
    """For weights as `r0-folds0-2.pt`, and labels of their students, where they are networks too, as
    `r1-folds0-2.csv`."""
    device: torch.device
    n_threads: int
    follow: Follow
    scored: set[str] = field(default_factory=set, init=False)
    """Recordings that were listened to so far."""
    _trained: dict[str, Path] = field(default_factory=dict, init=False)

    def pseudo_labels(self, number: int) -> pd.DataFrame:
        """What the students of round `number` learn from, each from its own networks.

        Returns:
            As `as_clips`; the fold that a student holds out in column `student`.
        """
        tables = [self.labels_for(number, frozenset([fold])) for fold in self._folds]
        table = pd.concat(tables, ignore_index=True)
        return table.assign(clip_id=table["clip_id"].min() + table.index)

    def labels_for(self, number: int, student: Folds) -> pd.DataFrame:
        """What one student learns from: on each fold that it is trained on, a network without it as well.

        Test recordings are voted on by all these networks, which have not seen what the student holds out.

        Args:
            number: The student's round.
            student: The folds that it holds out.
        """
        others = [fold for fold in self._folds if fold not in student]
        models = [self._network(number - 1, student | {fold})._replace(fold=fold) for fold in others]
        name, params = f"r{number - 1}", self.params
        folds = self.inputs.folds[~self.inputs.folds["fold"].isin(student)]
        teacher = Teacher(name, models, self.inputs.mel, self._scoring, self.device, params.pseudo.isolation)
        heard = [score(teacher, self._clips, folds) for score in PSEUDO_SOURCES[params.pseudo.source]]
        self.scored.update(*(one.scores.recording_ids for one in heard))
        found = pd.concat([label_recordings(one, self._clips, params.pseudo, name) for one in heard])
        names = {f"{name}/fold{fold}": network_name(number - 1, student | {fold}) for fold in others}
        found["teacher"] = found["teacher"].replace({name: voters_name(number - 1, student), **names})
        return as_clips(found, self._clips, number, fold_names(student))

    def _network(self, number: int, folds: Folds) -> LoadedModel:
        """The network of a round that holds out some folds, trained if it is not yet."""
        name = network_name(number, folds)
        if name not in self._trained:
            self._trained[name] = self._train(number, folds)
        return load_model(self._trained[name], self.device, self.params.predict.weights)

    def _train(self, number: int, folds: Folds) -> Path:
        tables = []
        if number:
            tables = [self.folder / f"r{number}-folds{fold_names(folds)}.csv"]
            write_pseudo_labels(self.labels_for(number, folds), tables[0])
        start = self._start(self._fitting, folds)
        fitted = self._fit(self._fitting, network_name(number, folds), folds, tables, start)
        path = self.folder / f"r{number}-folds{fold_names(folds)}.pt"
        params = WeightsParams(model=self.params.model, clip=self.params.clip)
        save_model(path, fitted.model, params, self._axis, min(folds), self._held_out(folds), fitted.averages)
        return path

    def _start(self, params: FitParams, folds: Folds) -> FoldWeights | None:
        """What `train.init_from` stands for: its recipe, carried out without these folds.

        The weights themselves are of no use, each has seen all folds but one.

        Raises:
            UserError: the recipe, or one that it starts from itself, follows validation.
        """
        if not (reference := params.train.init_from):
            return None
        recipe = validate(FitParams, find_recipe(reference), reference)
        _refuse_what_follows_validation(recipe, reference)
        before = self._start(recipe, folds)
        fitted = self._fit(
            recipe, f"{reference.partition('@')[0]} without {fold_names(folds)}", folds, [], before
        )
        return FoldWeights(reference, recipe.model, fitted.model.state_dict())

    def _fit(
        self, params: FitParams, name: str, folds: Folds, tables: list[Path], start: FoldWeights | None
    ) -> Fitted:
        """Train, or take up what is kept of it.

        Args:
            params: The recipe.
            name: For the progress bar.
            folds: To be held out.
            tables: Pseudo-labels.
            start: Weights to start from.
        """
        inputs, number = self.inputs, min(folds)
        clips = pd.concat([self._clips, *map(read_clips, tables)])
        merged = inputs.folds.assign(fold=inputs.folds["fold"].where(~self._is_in(folds), number))
        cache = inputs.open_cache(clips)
        data = select_fold(cache, clips, merged, number, self._axis, params.train.labels)
        checkpoint = checkpoint_for(params, [*tables, *inputs.digested], f"s{fold_names(folds)}")
        shown = ProgressWriter(checkpoint.path, name, params.train.epochs)
        execution = Execution(self.device, self.n_threads, checkpoint, self.follow(name), show=shown.write)
        return fit(params, number, data, execution, start)

    def _held_out(self, folds: Folds) -> pd.Series:
        held_out: pd.Series = self.inputs.folds.loc[self._is_in(folds), "recording_id"]
        return held_out

    def _is_in(self, folds: Folds) -> pd.Series:
        return self.inputs.folds["fold"].isin(folds)

    @cached_property
    def _folds(self) -> list[int]:
        return sorted(self.inputs.folds["fold"].unique().tolist())

    @cached_property
    def _clips(self) -> pd.DataFrame:
        return read_clips(self.inputs.clips)

    @cached_property
    def _axis(self) -> ClassAxis:
        return CLASSES[self.params.train.classes](self._clips, self.inputs.species)

    @cached_property
    def _fitting(self) -> FitParams:
        return FitParams(**{name: getattr(self.params, name) for name in FitParams.model_fields})

    @cached_property
    def _scoring(self) -> ScoreParams:
        return ScoreParams(**{name: getattr(self.params, name) for name in ScoreParams.model_fields})


def _refuse_what_follows_validation(recipe: FitParams, reference: str) -> None:
    """Refuse what `Experiment` refuses of the networks themselves."""
    settings = {
        f"train.select {recipe.train.select}": recipe.train.select in SELECTIONS,
        f"sched.name {recipe.sched.name}": recipe.sched.name in FOLLOWS_VALIDATION,
    }
    if following := [setting for setting, is_set in settings.items() if is_set]:
        raise UserError(
            f"{INIT_FROM}: {reference} has {' and '.join(following)}, which follows validation; "
            "pseudo.isolation nested trains it again and validates on its student's fold too, so it takes a "
            "result with train.select last and another sched.name"
        )
