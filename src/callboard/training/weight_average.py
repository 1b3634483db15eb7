"""Averages of a network's weights: a moving one over all steps, an equal one over the last epochs."""

from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from callboard.model.device import autocast
from callboard.params.training import TrainParams

Tensors = tuple[Tensor, ...] | list[Tensor]


Averages = dict[str, AveragedModel]
"""Averages that training keeps, by the names of `predict.weights`."""


def averages_of(model: nn.Module, params: TrainParams) -> Averages:
    """Create the averages of `model` that `params` enables; `after_step` and `after_epoch` update them."""
    averages = {}
    if params.ema_decay:
        averages["ema"] = average_of(model, params.ema_decay)
    if params.swa_epochs:
        averages["swa"] = AveragedModel(model)
    return averages


def after_step(averages: Averages, model: nn.Module) -> None:
    """Update the moving average after a step."""
    if "ema" in averages:
        averages["ema"].update_parameters(model)


def after_epoch(averages: Averages, model: nn.Module, params: TrainParams, epoch: int) -> None:
    """Update the average over the last epochs after `epoch`, counted from 0, if it is among them."""
    if "swa" in averages and epoch >= params.epochs - params.swa_epochs:
        averages["swa"].update_parameters(model)


def renew_statistics(average: AveragedModel, images: Iterable[Tensor]) -> None:
    """Recompute running statistics of batch normalisation as means over batches: no step had these weights.

    Args:
        average: Changed in place; unchanged without batch normalisation.
        images: Batches of an epoch, as training shows them before mixup.
    """

    def in_precision() -> Iterable[Tensor]:
        for image in images:
            with autocast(image):  # also covers the network's pass, which runs while this generator waits
                yield image

    update_bn(in_precision(), average)


def average_of(model: nn.Module, decay: float) -> AveragedModel:
    """Create a moving average of `model`; call its `update_parameters` after every step.

    The first step's weights are taken as they are, so early ones weigh `decay` ^ (steps since). Running
    statistics of normalisations are averaged like weights; counters take the newest value.

    Args:
        model: Network before the first step.
        decay: w ← decay · w + (1 - decay) · new.
    """
    return AveragedModel(model, multi_avg_fn=_moving_average(decay), use_buffers=True)


def _moving_average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Return an update of tensors of one type; torch's own rounds counters down, so they never change."""
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    def update(averaged: Tensors, newest: Tensors, n_averaged: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            average(averaged, newest, n_averaged)
        else:
            for old, new in zip(averaged, newest, strict=True):
                old.copy_(new)

    return update
