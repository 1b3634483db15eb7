"""The moving average of a network's weights over the steps of its training."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Tensors = tuple[Tensor, ...] | list[Tensor]


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
