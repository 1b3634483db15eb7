"""Start weights: those of a different experiment, of the same fold.

DVC does not see them as a dependency. `train.init_from` is therefore `name@key`, which fixes their content:
the parameter alone determines what training starts from.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from callboard.core.errors import UserError
from callboard.core.reading import reading
from callboard.model.class_axis import ClassAxis
from callboard.model.detector import SedModel
from callboard.model.weights import WeightsParams, read_weights
from callboard.params.base import validate
from callboard.params.defaults import flatten, texts_with_defaults
from callboard.params.model import ModelParams
from callboard.params.references import INIT_FROM
from callboard.results.dvc_lock import Lock, all_outs, stages_in
from callboard.results.git import files_in
from callboard.results.lookup import find_exactly
from callboard.results.result import CLIPS, Result, changes

SETTING = INIT_FROM
FIRST_ROUND = "models/r0"
"""Folder of the networks trained on annotations alone."""

SAME_DATA = ("data/mel", CLIPS)
"""Outputs that both experiments must share."""
DATA_STAGES = ("prepare", "crop")
"""Stages whose parameters determine these outputs."""


class FoldWeights(NamedTuple):
    """Weights of one fold of a finished experiment."""

    reference: str
    model: ModelParams
    """Parameters of the network that they belong to."""
    state_dict: dict[str, Tensor]
    """Weights of the last step or the selected epoch, never their average."""

    def load_into(self, model: SedModel, params: ModelParams) -> None:
        """Replace the weights of a network.

        Args:
            model: Changed in place.
            params: Parameters that it was built from.

        Raises:
            UserError: the weights are of a different network; the message lists differing parameters.
        """
        try:
            model.load_state_dict(self.state_dict)
        except RuntimeError as error:
            theirs, ours = (flatten({"model": section.model_dump()}) for section in (self.model, params))
            raise UserError(
                f"{SETTING}: the weights of {self.reference} are of a different network: "
                f"{', '.join(changes(theirs, ours)) or 'built by different code'}"
            ) from error


def find_fold_weights(reference: str, fold: int, axis: ClassAxis, held_out: set[str]) -> FoldWeights:
    """Find the weights of a finished experiment for the same fold, whose recordings they have not seen.

    Args:
        reference: `name@key`.
        fold: Number of the fold.
        axis: Classes of the network that starts from them.
        held_out: Recordings of the fold.

    Raises:
        UserError: the result does not exist, is of different data, lacks the fold, has different
            recordings in it or different classes, or the weights are not in DVC's cache.
    """
    finished = find_exactly(reference, SETTING)
    _refuse_other_data(finished, _lock_here())
    path = f"{finished.models}/fold{fold}.pt"
    if path not in finished.outs:
        raise UserError(f"{SETTING}: {reference} has no weights of fold {fold}; split.folds must be the same")
    content = read_weights(finished.output(path), torch.device("cpu"))
    if other := sorted(held_out ^ set(content["held_out"])):
        raise UserError(
            f"{SETTING}: fold {fold} of {reference} holds out different recordings: {len(other)} "
            f"differ, first {other[0]}; its weights have seen what this fold scores, so the split section "
            "must be the same"
        )
    for what, theirs, ours in (
        ("species", content["species"], axis.species),
        ("classes", content["classes"], axis.names),
    ):
        if theirs != ours:
            raise UserError(f"{SETTING}: {reference} has different {what}: {_difference(theirs, ours)}")
    model = validate(WeightsParams, content["params"], Path(path)).model
    return FoldWeights(reference, model, content["state_dict"])


def find_recipe(reference: str) -> dict[str, Any]:
    """Return the sections of params.yaml that a finished experiment's folds were trained with.

    Args:
        reference: `name@key`.

    Raises:
        UserError: the result does not exist, or it has learned from pseudo-labels, which are made for its own
            folds.
    """
    finished = find_exactly(reference, SETTING)
    if finished.models != FIRST_ROUND:
        raise UserError(
            f"{SETTING}: {reference} predicts with {finished.models or 'no networks'}; pseudo.isolation "
            f"nested retrains it with more folds held out, which needs a result without rounds of its own"
        )
    trainings = [stage for name, stage in finished.lock.items() if name.startswith("train@")]
    with reading(f"{SETTING}: dvc.lock of {reference}", "that of a training"):
        sections: dict[str, Any] = trainings[0]["params"]["params.yaml"]
    return sections


def _refuse_other_data(finished: Result, here: Lock) -> None:
    outs = all_outs(here)
    for path in SAME_DATA:
        if finished.outs.get(path) != outs.get(path):
            differing = changes(_data_params(finished.lock), _data_params(here))
            raise UserError(
                f"{SETTING}: {finished.ref.reference} was trained on a different {path} "
                f"({', '.join(differing) or 'made by different code or from different files'}); "
                f"run {finished.name} again from here"
            )


def _lock_here() -> Lock:
    """Return the stages of this workspace's dvc.lock.

    Raises:
        UserError: it is damaged, or does not have the stages that make the data.
    """
    stages = stages_in(files_in(Path.cwd())("dvc.lock"), "dvc.lock")
    if "crop" not in stages:
        raise UserError(f"{SETTING}: dvc.lock does not say what data this is; run `dvc repro`")
    return stages


def _data_params(lock: Lock) -> dict[str, str]:
    """Return flat parameters of the stages that make the data, with defaults."""
    trees: list[dict[str, Any]] = [
        lock.get(stage, {}).get("params", {}).get("params.yaml", {}) for stage in DATA_STAGES
    ]
    return texts_with_defaults({key: value for tree in trees for key, value in flatten(tree).items()})


def _difference(theirs: list[str], ours: list[str]) -> str:
    """Describe how two lists of names differ."""
    for one, other, words in ((theirs, ours, "only there"), (ours, theirs, "only here")):
        if alone := [name for name in one if name not in other]:
            return f"{len(alone)} {words}, first {alone[0]}"
    return "in a different order"
