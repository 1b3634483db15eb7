"""Learning rates as pure functions of the past: none has state, so resuming restores none."""

import math
from collections.abc import Callable
from typing import NamedTuple

from callboard.params.training import OptimParams, SchedParams
from callboard.training.curve import EpochRow

PLATEAU_THRESHOLD = 1e-4
"""Share of the best score so far by which a score must exceed it to count as a rise: torch's default."""


class ScheduleStep(NamedTuple):
    """Moment for which a learning rate is computed."""

    batches_done: int
    """Number since the start of training."""
    batches_per_epoch: int
    history: list[EpochRow]
    """Epochs finished so far."""


def constant_rate(optim: OptimParams, sched: SchedParams, step: ScheduleStep) -> float:
    """Return the learning rate as set."""
    return optim.lr


def cosine_rate(optim: OptimParams, sched: SchedParams, step: ScheduleStep) -> float:
    """Follow a cosine from lr to eta_min over t_max epochs and back over the next t_max, batch by batch."""
    phase = math.pi * step.batches_done / (sched.t_max * step.batches_per_epoch)
    return sched.eta_min + (optim.lr - sched.eta_min) * 0.5 * (1 + math.cos(phase))


def plateau_rate(optim: OptimParams, sched: SchedParams, step: ScheduleStep) -> float:
    """Multiply the rate by `factor` after every patience + 1 validations in a row without a rise of LWLRAP.

    Equals torch's ReduceLROnPlateau in mode max with its default threshold. Epochs without a validation do
    not count. A validation that is NaN would count as one without a rise; `fit` refuses folds with nothing
    to validate on.
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
"""Schedules by `sched.name`."""

FOLLOWS_VALIDATION = {"plateau"}
"""Schedules that need validation."""
