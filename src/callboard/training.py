"""Fit one fold: a function of params and data to weights and a learning curve."""

import csv
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from callboard.batches import (
    Batch,
    BatchParams,
    BatchSource,
    FoldData,
    Moment,
    Purpose,
    gather_clips,
    on_device,
)
from callboard.checkpoint import Checkpoint
from callboard.device import autocast
from callboard.errors import UserError
from callboard.image import normalise, to_unit
from callboard.losses import TERMS, Loss, count_to_weights
from callboard.metrics import lwlrap
from callboard.mixup import MIXUP, Mixup
from callboard.model import SedModel, build_model
from callboard.outputs import written_whole
from callboard.params.loss import LossParams
from callboard.params.model import ModelParams
from callboard.params.training import ClipParams, OptimParams, SchedParams, TrainParams

CURVE_COLUMNS = ["epoch", "lr", "loss", *TERMS, "val_lwlrap"]
"""Epochs count from 1; lr is that of the epoch's first batch; terms are unweighted means, empty where off."""

EpochRow = dict[str, float | None]
"""One line of the learning curve."""

WINDOWS_PER_PASS = 128
"""Windows of one forward pass when validating."""


class FitParams(BatchParams):
    """Everything that training depends on."""

    model: ModelParams
    loss: LossParams
    optim: OptimParams
    sched: SchedParams


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class Step(NamedTuple):
    """When a learning rate is asked for."""

    batches_done: int
    """Since the start of training."""
    batches_per_epoch: int
    history: list[EpochRow]
    """The epochs finished so far."""


def constant_rate(optim: OptimParams, sched: SchedParams, step: Step) -> float:
    """The learning rate as set."""
    return optim.lr


def cosine_rate(optim: OptimParams, sched: SchedParams, step: Step) -> float:
    """A cosine from lr to eta_min over t_max epochs, climbing back over the next t_max, batch by batch."""
    phase = math.pi * step.batches_done / (sched.t_max * step.batches_per_epoch)
    return sched.eta_min + (optim.lr - sched.eta_min) * 0.5 * (1 + math.cos(phase))


SCHEDULES: dict[str, Callable[[OptimParams, SchedParams, Step], float]] = {
    "none": constant_rate,
    "cosine": cosine_rate,
}
"""Learning rates without state of their own, so that a resumed training needs none."""


class EpochReport(NamedTuple):
    """What there is to tell of an epoch."""

    row: EpochRow
    n_clips: int
    duration_s: float
    wait_s: float
    """Part of the duration spent waiting for batches."""


@dataclass(frozen=True)
class Execution:
    """Where and how a training runs; apart from the rounding of the device, none of it changes a number."""

    device: torch.device
    n_threads: int = 1
    """Threads that prepare batches ahead."""
    checkpoint: Checkpoint | None = None
    """Where to resume from and to save to after every epoch."""
    follow: Callable[[range], Iterable[int]] = iter
    """Wraps the epochs, for a progress bar."""
    log: Callable[[EpochReport], None] = lambda report: None
    """Called after every epoch."""


@dataclass
class Learner:
    """What changes while training."""

    model: SedModel
    optimizer: Optimizer
    history: list[EpochRow] = field(default_factory=list)
    best_score: float = -math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the best validated epoch, kept where `train.select` is best."""

    def state(self) -> dict[str, Any]:
        """All of it as plain values and tensors."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "best_score": self.best_score,
            "best_weights": self.best_weights,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = state["history"]
        self.best_score = state["best_score"]
        self.best_weights = state["best_weights"]

    def keep_if_best(self, score: float) -> None:
        """Remember the weights if no earlier epoch scored as high."""
        if score > self.best_score:
            self.best_score = score
            self.best_weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}


class Fitted(NamedTuple):
    """A trained fold."""

    model: SedModel
    history: list[EpochRow]


def fit(params: FitParams, fold: int, data: FoldData, execution: Execution) -> Fitted:
    """Train a network on the training part of `fold`, or go on from its checkpoint.

    Raises:
        UserError: the loss is no longer finite, the backbone cannot be built, or there is no validation
            recording to select the best epoch by.
    """
    if params.train.select == "best" and not len(data.validation):
        raise UserError(
            f"train.select best: fold {fold} has no TP recording to validate on; use train.select=last"
        )
    data = on_device(data, execution.device)
    source = BatchSource(data, params, fold, execution.device, execution.n_threads)
    loss = Loss(params.loss, count_to_weights(data.n_tp_annotations).to(execution.device))
    learner = build_learner(params, fold, data.n_species, execution.device)
    if execution.checkpoint and (state := execution.checkpoint.read()):
        learner.restore(state)
    for epoch in execution.follow(range(len(learner.history), params.train.epochs)):
        report = run_epoch(learner, loss, source, params, epoch)
        learner.history.append(report.row)
        if execution.checkpoint:
            execution.checkpoint.write(learner.state())
        execution.log(report)
    if params.train.select == "best":
        learner.model.load_state_dict(learner.best_weights)
    return Fitted(learner.model, learner.history)


def build_learner(params: FitParams, fold: int, n_species: int, device: torch.device) -> Learner:
    """A new network, the same for the same seed and fold, and its optimiser."""
    torch.manual_seed(Moment(params.seed, fold).torch_seed(Purpose.WEIGHTS))
    model = build_model(params.model, n_species).to(device)
    optimizer = OPTIMIZERS[params.optim.name](
        model.parameters(),
        lr=params.optim.lr,
        weight_decay=params.optim.weight_decay,
        fused=True,
    )
    return Learner(model, optimizer)


def run_epoch(
    learner: Learner, loss: Loss, source: BatchSource, params: FitParams, epoch: int
) -> EpochReport:
    """Train an epoch (counted from 0), and validate where it is due."""
    torch.manual_seed(source.moment._replace(epoch=epoch).torch_seed(Purpose.DROPOUT))
    n_batches = len(source.bounds)

    def rate(batch: int) -> float:
        step = Step(epoch * n_batches + batch, n_batches, learner.history)
        return SCHEDULES[params.sched.name](params.optim, params.sched, step)

    start = time.perf_counter()
    batches = TimedIterator(source.epoch(epoch))
    means = train_one_epoch(learner, loss, batches, rate, MIXUP[params.mixup.mode])
    duration_s = time.perf_counter() - start
    row: EpochRow = {"epoch": epoch + 1, "lr": rate(0), **means, "val_lwlrap": None}
    if not math.isfinite(means["loss"]):
        raise UserError(
            f"fold {source.moment.fold}, epoch {epoch + 1}: the loss is {means['loss']} at learning rate "
            f"{rate(0):.3g}; a lower optim.lr may help"
        )
    if is_validated(params.train, epoch):
        row["val_lwlrap"] = score = validate(learner.model, source.data, params.clip, source.device)
        if params.train.select == "best":
            learner.keep_if_best(score)
    return EpochReport(row, source.n_items, duration_s, batches.wait_s)


def is_validated(train: TrainParams, epoch: int) -> bool:
    """Whether an epoch (counted from 0) is followed by a validation: every n-th, and the last."""
    if train.validate_every == 0:
        return False
    return (epoch + 1) % train.validate_every == 0 or epoch + 1 == train.epochs


class TimedIterator:
    """An iterator that adds up how long its items were waited for."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self.wait_s = 0.0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        start = time.perf_counter()
        try:
            return next(self._batches)
        finally:
            self.wait_s += time.perf_counter() - start


def train_one_epoch(
    learner: Learner,
    loss: Loss,
    batches: Iterable[Batch],
    rate: Callable[[int], float],
    mixup: Mixup,
) -> dict[str, float]:
    """One optimiser step per batch; the mean over clips of the loss and of each unweighted term.

    Args:
        learner: Changed in place.
        loss: On the learner's device, as the batches are.
        batches: Of one epoch.
        rate: Learning rate of a batch, by its number.
        mixup: The forward passes of a step.
    """
    learner.model.train()
    sums: dict[str, Tensor] = {}
    n_clips = 0
    for number, batch in enumerate(batches):
        for group in learner.optimizer.param_groups:
            group["lr"] = rate(number)
        values = train_step(learner, loss, batch, mixup)
        for name, value in values.items():
            sums[name] = sums.get(name, 0) + value.double() * len(batch.image)
        n_clips += len(batch.image)
    return {name: value.item() / n_clips for name, value in sums.items()}


def train_step(learner: Learner, loss: Loss, batch: Batch, mixup: Mixup) -> dict[str, Tensor]:
    """Forward, backward, update; the loss and its unweighted terms, averaged over the forward passes."""
    with autocast(batch.image.device):
        passes = mixup(learner.model, batch.image, batch.targets, batch.mixing)
    losses = [loss(output, targets) for output, targets in passes]
    total = torch.stack([value for value, _ in losses]).mean()
    learner.optimizer.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    learner.optimizer.step()
    terms = {name: torch.stack([values[name] for _, values in losses]).mean() for name in losses[0][1]}
    return {"loss": total.detach(), **terms}


def validate(model: SedModel, data: FoldData, clip: ClipParams, device: torch.device) -> float:
    """LWLRAP over the TP recordings of the validation part, on the TP labels; NaN if there are none.

    A quick look for the learning curve: windows side by side, the mean of attention and max probabilities,
    the largest over windows.
    """
    if not len(data.validation):
        return math.nan
    model.eval()
    scores = np.zeros(data.is_present.shape, dtype=np.float32)
    window, start = _side_by_side(data.n_frames[data.validation], clip.n_frames)
    for first in range(0, len(window), WINDOWS_PER_PASS):
        part = slice(first, first + WINDOWS_PER_PASS)
        recording = data.validation[window[part]]
        first_frame = data.first_frame[recording] + start[part]
        n_valid = data.n_frames[recording] - start[part]
        frames = gather_clips(data.frames, first_frame, n_valid, clip.n_frames, device)
        np.maximum.at(scores, window[part], _probabilities(model, frames))
    return lwlrap(data.is_present, scores)


def _side_by_side(
    n_frames: NDArray[np.int64], window_frames: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which recording each window is of, and its first frame there; the last one ends with the recording."""
    n_windows = -(-n_frames // window_frames)
    recording = np.repeat(np.arange(len(n_frames)), n_windows)
    position = np.arange(len(recording)) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
    last = np.maximum(n_frames - window_frames, 0)
    return recording, np.minimum(position * window_frames, last[recording])


@torch.inference_mode()
def _probabilities(model: SedModel, frames: Tensor) -> NDArray[np.float32]:
    """(windows, species) mean of attention and max probabilities."""
    with autocast(frames.device):
        output = model(normalise(to_unit(frames)))
    probabilities: NDArray[np.float32] = (
        ((output.attention.sigmoid() + output.max.sigmoid()) / 2).cpu().numpy()
    )
    return probabilities


def write_curve(history: list[EpochRow], path: Path) -> None:
    """The learning curve as CSV, columns CURVE_COLUMNS, empty cells where there is no number."""
    with written_whole(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, CURVE_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in history)


def _cell(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6g}"
