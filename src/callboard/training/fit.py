"""Fit one fold: a function of params and data to weights and a learning curve."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from callboard.core.errors import UserError
from callboard.model.detector import SedModel, build_model
from callboard.model.device import autocast
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


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


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
    show: Callable[[Sequence[EpochRow]], None] = lambda curve: None
    """Called with the curve so far, before the first epoch that is trained and after every one."""


@dataclass
class Learner:
    """What changes while training."""

    model: SedModel
    optimizer: Optimizer
    averages: Averages = field(default_factory=dict)
    """Of the weights, where `train.ema_decay` and `train.swa_epochs` ask for them."""
    history: list[EpochRow] = field(default_factory=list)
    best_score: float = -math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the best validated epoch, kept where `train.select` asks for it."""

    def state(self) -> dict[str, Any]:
        """All of it as plain values and tensors."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averages": {name: average.state_dict() for name, average in self.averages.items()},
            "history": self.history,
            "best_score": self.best_score,
            "best_weights": self.best_weights,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, average in self.averages.items():
            average.load_state_dict(state["averages"][name])
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
    averages: dict[str, SedModel]
    """The network with averages of its weights, by `predict.weights`, whatever epoch `train.select` keeps."""


def fit(
    params: FitParams, fold: int, data: FoldData, execution: Execution, start: FoldWeights | None = None
) -> Fitted:
    """Train a network on the training part of `fold`, or go on from its checkpoint.

    Args:
        params: All that training depends on.
        fold: Number of the fold.
        data: Of the fold.
        execution: Where and how.
        start: Weights to start from, of the same fold; None = random or pretrained ones.

    Raises:
        UserError: the loss is no longer finite, the backbone cannot be built, the start weights are of
            another network, or there is no validation recording where the best epoch or the learning rate
            depends on one.
    """
    if not len(data.validation):
        _refuse_what_follows_validation(params, fold)
    data = on_device(data, execution.device)
    source = BatchSource(data, params, fold, execution.device, execution.n_threads)
    loss = Loss(params.loss, torch.as_tensor(data.n_tp_annotations, device=execution.device))
    learner = build_learner(params, fold, data.n_classes, execution.device, start)
    if execution.checkpoint and (state := execution.checkpoint.read()):
        learner.restore(state)
    execution.show(learner.history)
    for epoch in execution.follow(range(len(learner.history), params.train.epochs)):
        report = run_epoch(learner, loss, source, params, epoch)
        learner.history.append(report.row)
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
    return Fitted(learner.model, learner.history, averages)


def _refuse_what_follows_validation(params: FitParams, fold: int) -> None:
    """Refuse settings that a fold without validation recordings cannot have."""
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
    """A new network, the same for the same seed, fold and start weights, and its optimiser.

    Raises:
        UserError: the backbone cannot be built, or the start weights are of another network.
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
    """Train an epoch (counted from 0), and validate where it is due."""
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
    if not math.isfinite(means["loss"]):
        raise UserError(
            f"fold {source.moment.fold}, epoch {epoch + 1}: the loss is {means['loss']} at learning rate "
            f"{rate(0):.3g}; a lower optim.lr may help"
        )
    if is_validated(params.train, epoch):
        heads = trained_heads(params.loss)
        validation = validate_epoch(learner.model, source.data, params.clip, heads, source.device)
        row |= {"val_lwlrap": validation.lwlrap, "val_loss": validation.loss}
        if measure := SELECTIONS.get(params.train.select):
            learner.keep_if_best(measure(validation))
    return EpochReport(row, shown.n_items, duration_s, batches.wait_s)


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
    """Forward, backward, update; the loss and its unweighted terms, averaged over the forward passes.

    Labels are smoothed before they are blended, each clip's by itself.
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
