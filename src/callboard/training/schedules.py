"""Learning rates as pure functions of what is behind: none has state, so a resumed training needs none."""

import math
from collections.abc import Callable
from typing import NamedTuple

from callboard.params.training import OptimParams, SchedParams
from callboard.training.curve import EpochRow

PLATEAU_THRESHOLD = 1e-4
"""Share of the best score so far by which a score must exceed it to be a rise: the default of torch."""


class ScheduleStep(NamedTuple):
    """When a learning rate is asked for."""

    batches_done: int
    """Since the start of training."""
    batches_per_epoch: int
    history: list[EpochRow]
    """The epochs finished so far."""


def constant_rate(optim: OptimParams, sched: SchedParams, step: ScheduleStep) -> float:
    """The learning rate as set."""
    return optim.lr


def cosine_rate(optim: OptimParams, sched: SchedParams, step: ScheduleStep) -> float:
    """A cosine from lr to eta_min over t_max epochs, climbing back over the next t_max, batch by batch."""
    phase = math.pi * step.batches_done / (sched.t_max * step.batches_per_epoch)
    return sched.eta_min + (optim.lr - sched.eta_min) * 0.5 * (1 + math.cos(phase))


def plateau_rate(optim: OptimParams, sched: SchedParams, step: ScheduleStep) -> float:
    """The rate times `factor` for every patience + 1 validations in a row without a rise of LWLRAP.

    What torch's ReduceLROnPlateau arrives at in mode max with its default threshold. Epochs without a
    validation do not count. A validation that is NaN would count as one without a rise; `fit` refuses folds
    that have no other.
    """
    rate, best, n_waited = optim.lr, -math.inf, 0
    for row in step.history:
        score = row["val_lwlrap"]
        if score is None:
            continue
        if score > best * (1 + PLATEAU_THRESHOLD):
            best, n_waited = score, 0
        else:
            n_waited += 1
        if n_waited > sched.patience:
            rate, n_waited = rate * sched.factor, 0
    return rate


SCHEDULES: dict[str, Callable[[OptimParams, SchedParams, ScheduleStep], float]] = {
    "none": constant_rate,
    "cosine": cosine_rate,
    "plateau": plateau_rate,
}
"""By sched.name."""

FOLLOWS_VALIDATION = {"plateau"}
"""Schedules that mean nothing without validation."""
