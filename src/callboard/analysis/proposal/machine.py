"""Sizes of training for this machine, and the duration of a training step, measured on it."""

from typing import NamedTuple

from callboard.analysis.proposal.settings import SMALL, Proposal, Recipe, large_recipe
from callboard.model.device import computed_on, pick_device
from callboard.params.base import validate
from callboard.training.fit import FitParams
from callboard.training.step_time import step_time_s


class TrainingTime(NamedTuple):
    """Expected duration of a training."""

    processor: str
    step_s: float
    """Measured duration of a step, seconds."""
    fold_s: float
    """Expected duration of a fold, seconds."""


def machine_recipe() -> Recipe:
    """Return the recipe for this machine: the large one if it has an NVIDIA GPU."""
    return large_recipe() if pick_device().type == "cuda" else SMALL


def training_time(proposal: Proposal) -> TrainingTime:
    """Measure some steps of the proposed training on noise.

    Raises:
        UserError: the network cannot be built, or memory is not enough.
    """
    tree, device = proposal.tree, pick_device()
    sections = {name: tree[name] for name in FitParams.model_fields}
    params, n_mels = validate(FitParams, sections, "the proposed settings"), tree["features"]["n_mels"]
    step_s = step_time_s(params, n_mels, len(proposal.survey.tables.species), device)
    processor = computed_on(device, n_mels).processor
    return TrainingTime(processor, step_s, proposal.n_steps * params.train.epochs * step_s)
