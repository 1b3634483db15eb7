"""Fit one fold: parameters and data in, weights and a learning curve out."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from callboard.core.compute import Compute
from callboard.core.errors import UserError
from callboard.core.machine import named_if_out_of_memory, refuse_more_memory
from callboard.model.detector import SedModel, build_model
from callboard.model.device import autocast, computed_on
from callboard.params.loss import LossParams
from callboard.params.model import ModelParams
from callboard.params.training import OptimParams, SchedParams, TrainParams
from callboard.training.batches import Batch, BatchParams, BatchSource, on_device
from callboard.training.checkpoint import Checkpoint
from callboard.training.curve import EpochRow
from callboard.training.fold_data import FoldData
from callboard.training.losses.terms import Loss
from callboard.training.mixup import MIXUP, Mixup
from callboard.training.randomness import Purpose, RngKey
from callboard.training.schedules import FOLLOWS_VALIDATION, SCHEDULES, ScheduleStep
from callboard.training.start_weights import FoldWeights
from callboard.training.validation import SELECTIONS, trained_heads, validate_epoch
from callboard.training.weight_average import Averages, after_epoch, after_step, averages_of, renew_statistics


class FitParams(BatchParams):
    """Everything that training depends on."""

    model: ModelParams
    loss: LossParams
    optim: OptimParams
    sched: SchedParams


FLOAT32_BYTES = 4

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class EpochReport(NamedTuple):
    """Summary of one epoch, for logging."""

    row: EpochRow
    n_clips: int
    duration_s: float
    wait_s: float
    """Part of the duration spent waiting for batches."""


@dataclass(frozen=True)
class Execution:
    """Device, threads and callbacks of training; apart from the device's rounding, none changes a number."""

    device: torch.device
    n_threads: int = 1
    """Threads that prepare batches ahead."""
    checkpoint: Checkpoint | None = None
    """Checkpoint to resume from and to write after every epoch."""
    follow: Callable[[range], Iterable[int]] = iter
    """Wraps the epochs, for a progress bar."""
    log: Callable[[EpochReport], None] = lambda report: None
    """Called after every epoch."""
    show: Callable[[Sequence[EpochRow]], None] = lambda curve: None
    """Called with the curve so far, before the first epoch trained here and after every epoch."""


@dataclass
class Learner:
    """Mutable state of training."""

    model: SedModel
    optimizer: Optimizer
    averages: Averages = field(default_factory=dict)
    """Weight averages, if `train.ema_decay` or `train.swa_epochs` enables them."""
    history: list[EpochRow] = field(default_factory=list)
    computes: list[Compute] = field(default_factory=list)
    """Record of each epoch of `history`; they differ if training is resumed on an unlike machine."""
    best_score: float = -math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the best validated epoch, kept if `train.select` needs them."""

    def state(self) -> dict[str, Any]:
        """Return everything as plain values and tensors."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averages": {name: average.state_dict() for name, average in self.averages.items()},
            "history": self.history,
            "computes": [asdict(one) for one in self.computes],
            "best_score": self.best_score,
            "best_weights": self.best_weights,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, average in self.averages.items():
            average.load_state_dict(state["averages"][name])
        self.history = state["history"]
        self.computes = [Compute(**one) for one in state["computes"]]
        self.best_score = state["best_score"]
        self.best_weights = state["best_weights"]

    def keep_if_best(self, score: float) -> None:
        """Keep the current weights if every earlier epoch scored lower."""
        if score > self.best_score:
            self.best_score = score
            self.best_weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}


class Fitted(NamedTuple):
    """A trained fold."""

    model: SedModel
    history: list[EpochRow]
    averages: dict[str, SedModel]
    """The network with averaged weights, by `predict.weights`, whatever epoch `train.select` keeps."""
    computes: list[Compute]
    """Record of what computed each epoch."""


def fit(
    params: FitParams, fold: int, data: FoldData, execution: Execution, start: FoldWeights | None = None
) -> Fitted:
    """Train a network on the training part of `fold`, or resume from its checkpoint.

    Args:
        params: All parameters that training depends on.
        fold: Number of the fold.
        data: Data of the fold.
        execution: Where and how to run.
        start: Weights to start from, of the same fold; None for random or pretrained ones.

    Raises:
        UserError: the loss is not finite, the backbone cannot be built, the start weights are of a different
            network, or the epoch to keep or the learning rate depends on validation and the fold has no
            recording to validate on; or memory is not enough.
    """
    if not len(data.validation):
        _refuse_what_follows_validation(params, fold)
    with named_if_out_of_memory(f"training of fold {fold}", SMALLER_BATCHES):
        return _fit(params, fold, data, execution, start)


SMALLER_BATCHES = "lower train.batch_size or clip.n_frames"
"""Remedy for a training that needs too much memory."""


def _fit(
    params: FitParams, fold: int, data: FoldData, execution: Execution, start: FoldWeights | None
) -> Fitted:
    data = on_device(data, execution.device)
    source = BatchSource(data, params, fold, execution.device, execution.n_threads)
    if execution.device.type == "cpu":
        n_clips = min(params.train.batch_size, len(data.n_frames) + data.n_frames.sum() // source.clip_frames)
        n_bytes = n_clips * source.clip_frames * source.n_mels * FLOAT32_BYTES
        refuse_more_memory(f"the images of a batch of fold {fold} alone", n_bytes, SMALLER_BATCHES)
    loss = Loss(params.loss, torch.as_tensor(data.n_tp_annotations, device=execution.device))
    learner = build_learner(params, fold, data.n_classes, execution.device, start)
    if execution.checkpoint and (state := execution.checkpoint.read()):
        learner.restore(state)
    execution.show(learner.history)
    for epoch in execution.follow(range(len(learner.history), params.train.epochs)):
        report = run_epoch(learner, loss, source, params, epoch)
        learner.history.append(report.row)
        learner.computes.append(computed_on(execution.device, source.n_mels))
        after_epoch(learner.averages, learner.model, params.train, epoch)
        if execution.checkpoint:
            execution.checkpoint.write(learner.state())
        execution.show(learner.history)
        execution.log(report)
    if params.train.select in SELECTIONS:
        learner.model.load_state_dict(learner.best_weights)
    if "swa" in learner.averages:
        torch.manual_seed(source.moment._replace(epoch=params.train.epochs).torch_seed(Purpose.DROPOUT))
        images = (batch.image for batch in source.epoch(params.train.epochs))
        renew_statistics(learner.averages["swa"], images)
    averages = {name: cast(SedModel, average.module) for name, average in learner.averages.items()}
    return Fitted(learner.model, learner.history, averages, learner.computes)


def _refuse_what_follows_validation(params: FitParams, fold: int) -> None:
    """Refuse settings that need validation, for a fold without validation recordings."""
    refused = {
        f"train.select {params.train.select}": (params.train.select in SELECTIONS, "train.select=last"),
        f"sched.name {params.sched.name}": (params.sched.name in FOLLOWS_VALIDATION, "sched.name=none"),
    }
    for setting, (is_set, instead) in refused.items():
        if is_set:
            raise UserError(f"{setting}: fold {fold} has no TP recording to validate on; use {instead}")


def build_learner(
    params: FitParams, fold: int, n_classes: int, device: torch.device, start: FoldWeights | None = None
) -> Learner:
    """Build a network, deterministic in seed, fold and start weights, and its optimiser.

    Raises:
        UserError: the backbone cannot be built, or the start weights are of a different network.
    """
    torch.manual_seed(RngKey(params.seed, fold).torch_seed(Purpose.WEIGHTS))
    if start:
        model = build_model(params.model.blank, n_classes)
        start.load_into(model, params.model)
    else:
        model = build_model(params.model, n_classes)
    model = model.to(device)
    optimizer = OPTIMIZERS[params.optim.name](
        model.parameters(),
        lr=params.optim.lr,
        weight_decay=params.optim.weight_decay,
        fused=True,
    )
    return Learner(model, optimizer, averages_of(model, params.train))


def run_epoch(
    learner: Learner, loss: Loss, source: BatchSource, params: FitParams, epoch: int
) -> EpochReport:
    """Train an epoch (counted from 0), and validate if it is due."""
    torch.manual_seed(source.moment._replace(epoch=epoch).torch_seed(Purpose.DROPOUT))
    start = time.perf_counter()
    shown = source.epoch(epoch)

    def rate(batch: int) -> float:
        step = ScheduleStep(epoch * shown.n_batches + batch, shown.n_batches, learner.history)
        return SCHEDULES[params.sched.name](params.optim, params.sched, step)

    batches = TimedIterator(shown)
    means = train_one_epoch(learner, loss, batches, rate, MIXUP[params.mixup.mode])
    duration_s = time.perf_counter() - start
    row: EpochRow = {"epoch": epoch + 1, "lr": rate(0), **means, "val_lwlrap": None, "val_loss": None}

    def refuse_diverged(what: str, is_finite: bool) -> None:
        if not is_finite:
            raise UserError(
                f"fold {source.moment.fold}: {what} no longer finite at epoch {epoch + 1}, at learning rate "
                f"{rate(0):.3g}; lower optim.lr"
            )

    refuse_diverged("the loss is", math.isfinite(means["loss"]))
    refuse_diverged("the network's weights are", has_finite_weights(learner.model))
    if is_validated(params.train, epoch):
        heads = trained_heads(params.loss)
        validation = validate_epoch(learner.model, source.data, params.clip, heads, source.device)
        refuse_diverged("scores are", not (len(source.data.validation) and math.isnan(validation.loss)))
        row |= {"val_lwlrap": validation.lwlrap, "val_loss": validation.loss}
        if measure := SELECTIONS.get(params.train.select):
            learner.keep_if_best(measure(validation))
    return EpochReport(row, shown.n_items, duration_s, batches.wait_s)


def has_finite_weights(model: SedModel) -> bool:
    """Return whether all weights and statistics are finite; a step on an infinite gradient makes some NaN."""
    return all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())


def is_validated(train: TrainParams, epoch: int) -> bool:
    """Return whether an epoch (counted from 0) is followed by a validation: every n-th, and the last."""
    if train.validate_every == 0:
        return False
    return (epoch + 1) % train.validate_every == 0 or epoch + 1 == train.epochs


class TimedIterator:
    """Iterator that adds up the time spent waiting for its items."""

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
    """Take one optimiser step per batch; return means over clips of the loss and of each unweighted term.

    Args:
        learner: Changed in place.
        loss: On the same device as the learner and the batches.
        batches: Batches of one epoch.
        rate: Maps a batch, counted from 0, to its learning rate.
        mixup: Runs the forward passes of a step.
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
    """Run forward, backward and update; return loss and unweighted terms, averaged over forward passes.

    Labels are smoothed clip by clip, before they are blended.
    """
    targets = loss.smooth(batch.targets)
    with autocast(batch.image):
        passes = mixup(learner.model, batch.image, targets, batch.mixing)
    losses = [loss(output, blended) for output, blended in passes]
    total = torch.stack([value for value, _ in losses]).mean()
    learner.optimizer.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    learner.optimizer.step()
    after_step(learner.averages, learner.model)
    terms = {name: torch.stack([values[name] for _, values in losses]).mean() for name in losses[0][1]}
    return {"loss": total.detach(), **terms}
