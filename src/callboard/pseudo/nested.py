"""Pseudo-labels by networks that have seen neither the recording nor what their student is validated on.

The student of fold k learns about a recording of fold j from a network trained without both. If that network
is a student itself, its own labels come from networks that hold out a third fold, and so on: a teacher holds
out one fold more than its student, and nothing that it holds out has reached it through any labels. This is
nested cross-validation (Varma & Simon 2006, BMC Bioinformatics 7:91) with the rounds of pseudo-labels inside.

Each network is a stage of its own, and so are the labels of one that is a student: dvc.yaml has them for the
folds of `pseudo.held_out`. The networks of round 0 do not depend on thresholds or votes.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch

from callboard.model.weights import LoadedModel, load_model
from callboard.params.scoring import PseudoParams
from callboard.pseudo.held_out import (
    Folds,
    fold_names,
    labels_file,
    network_name,
    networks_behind,
    voters_name,
    weights_file,
)
from callboard.pseudo.labels import Teacher, as_clips, label_sets
from callboard.pseudo.provenance import NestedFiles, read_nested
from callboard.scoring.parts import ScoreParams


class LabelParams(ScoreParams):
    """Parameters of scoring, and of labelling by the scores."""

    pseudo: PseudoParams


@dataclass(frozen=True)
class Nested:
    """Networks that teach the students of a round."""

    params: LabelParams
    mel: Path
    """Folder with the caches of all sets."""
    clips: pd.DataFrame
    """Confirmed and rejected boxes."""
    folds: pd.DataFrame
    """recording_id, fold."""
    networks: Path
    """Folder of the networks."""
    device: torch.device
    scored: set[str] = field(default_factory=set, init=False)
    """Recordings scored so far."""

    def pseudo_labels(self, number: int) -> pd.DataFrame:
        """Return what the students of round `number` learn from, each from its own networks.

        Returns:
            As `as_clips`, with the fold that a student holds out in column `student`.
        """
        tables = [self.labels_for(number, frozenset([fold])) for fold in self._all_folds]
        table = pd.concat(tables, ignore_index=True)
        return table.assign(clip_id=table["clip_id"].min() + table.index)

    def labels_for(self, number: int, student: Folds) -> pd.DataFrame:
        """Return what one student learns from: labels of each of its folds, by a network that lacks it too.

        All these networks, which have not seen what the student holds out either, vote on test recordings.

        Args:
            number: The student's round.
            student: Folds that it holds out.
        """
        others = [fold for fold in self._all_folds if fold not in student]
        models = [self._load(number - 1, student | {fold})._replace(fold=fold) for fold in others]
        name, params = f"r{number - 1}", self.params
        folds = self.folds[~self.folds["fold"].isin(student)]
        teacher = Teacher(name, models, self.mel, params, self.device, params.pseudo.isolation)
        found, scored = label_sets(teacher, self.clips, folds, params.pseudo)
        self.scored.update(scored)
        names = {f"{name}/fold{fold}": network_name(number - 1, student | {fold}) for fold in others}
        found["teacher"] = found["teacher"].replace({name: voters_name(number - 1, student), **names})
        return as_clips(found, self.clips, number, fold_names(student))

    def files(self, number: int, size: int = 1) -> NestedFiles:
        """Read the files of all networks that the students learn from, directly or indirectly.

        Args:
            number: Round of the students.
            size: Number of folds that each student holds out.
        """
        networks = networks_behind(self._all_folds, number, size)
        weights = {network_name(*one): self.networks / weights_file(*one) for one in networks}
        tables = {network_name(*one): self.networks / labels_file(*one) for one in networks if one[0]}
        return read_nested(weights, tables)

    def _load(self, number: int, folds: Folds) -> LoadedModel:
        return load_model(
            self.networks / weights_file(number, folds), self.device, self.params.predict.weights
        )

    @cached_property
    def _all_folds(self) -> list[int]:
        return sorted(self.folds["fold"].unique().tolist())
