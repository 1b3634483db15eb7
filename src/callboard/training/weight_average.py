"""Averages of a network's weights: a moving one over all steps of training, an equal one over last epochs."""

from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from callboard.model.device import autocast
from callboard.params.training import TrainParams

Tensors = tuple[Tensor, ...] | list[Tensor]


Averages = dict[str, AveragedModel]
"""By the names of `predict.weights`, those that training asks for."""


def averages_of(model: nn.Module, params: TrainParams) -> Averages:
    """The averages of `model` that are asked for, to be told of every step and every epoch."""
    averages = {}
    if params.ema_decay:
        averages["ema"] = average_of(model, params.ema_decay)
    if params.swa_epochs:
        averages["swa"] = AveragedModel(model)
    return averages


def after_step(averages: Averages, model: nn.Module) -> None:
    """Tell the moving average of a step."""
    if "ema" in averages:
        averages["ema"].update_parameters(model)


def after_epoch(averages: Averages, model: nn.Module, params: TrainParams, epoch: int) -> None:
    """Tell the average over last epochs of one, counted from 0, if it is among them."""
    if "swa" in averages and epoch >= params.epochs - params.swa_epochs:
        averages["swa"].update_parameters(model)


def renew_statistics(average: AveragedModel, images: Iterable[Tensor]) -> None:
    """Running statistics of batch normalisations anew, as means over batches: no step had these weights.

    Args:
        average: Changed in place; without such layers nothing is done.
        images: Batches of an epoch, as training shows them before mixup.
    """

    def in_precision() -> Iterable[Tensor]:
        for image in images:
            with autocast(image):  # of the network's pass, which happens while this waits
                yield image

    update_bn(in_precision(), average)


def average_of(model: nn.Module, decay: float) -> AveragedModel:
    """An average of `model`, to be told of every step by `update_parameters`.

    The first step's weights are taken as they are, so early ones weigh `decay` ^ (steps since). Running
    statistics of normalisations are averaged as weights are; counters are the newest.

    Args:
        model: As it is before the first step.
        decay: w ← decay · w + (1 - decay) · new.
    """
    return AveragedModel(model, multi_avg_fn=_moving_average(decay), use_buffers=True)


def _moving_average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Of tensors of one type; torch's own would round counters down, whose average then never moves."""
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    def update(averaged: Tensors, newest: Tensors, n_averaged: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            average(averaged, newest, n_averaged)
        else:
            for old, new in zip(averaged, newest, strict=True):
                old.copy_(new)

    return update
