"""Heads: class and attention logits per segment of a feature map, pooled to one logit per clip."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from callboard.params.model import ModelParams


class SedOutput(NamedTuple):
    """Outputs of the network for a batch of clips."""

    attention: Tensor
    """(batch, species) logits: the class logits summed over time with the attention weights."""
    max: Tensor
    """(batch, species) logits: the largest class logit."""
    framewise: Tensor
    """(batch, segments, species) class logits z."""
    attention_weights: Tensor
    """(batch, segments, species) attention weights a, after their activation."""
    segment: Tensor
    """(batch, segments, species) logits that the segment loss compares with annotated frames."""
    frequency: "SedOutput | None" = None
    """The same outputs of the frequency head if there is one, with frequency bands in place of segments."""


def softmax_over_time(logits: Tensor) -> Tensor:
    """Return weights (batch, segments, species) that sum to 1 over the segments."""
    return logits.softmax(dim=1)


def softmax_of_tanh(logits: Tensor) -> Tensor:
    """Return the softmax over time of tanh of the logits: no segment outweighs another by more than e²."""
    return logits.tanh().softmax(dim=1)


ATTENTION_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": softmax_over_time,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softmax_tanh": softmax_of_tanh,
}


def class_logits(logits: Tensor, weights: Tensor) -> Tensor:
    """Return the class logits alone."""
    return logits


def class_times_attention(logits: Tensor, weights: Tensor) -> Tensor:
    """Return the class logits times the attention weights, elementwise."""
    return logits * weights


SEGMENT_SOURCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "class": class_logits,
    "class_x_attention": class_times_attention,
}


class AttentionHead(nn.Module):
    """Head that turns a feature map into clipwise and segmentwise logits."""

    def __init__(self, n_features: int, n_classes: int, params: ModelParams) -> None:
        super().__init__()
        self.classify = nn.Linear(n_features, n_classes, bias=params.head_bias)
        self.attend = nn.Linear(n_features, n_classes, bias=params.head_bias)
        self.activate = ATTENTION_ACTIVATIONS[params.attention]
        self.segment_source = SEGMENT_SOURCES[params.segment_source]

    def forward(self, features: Tensor) -> SedOutput:
        """Return float32 outputs, even in autocast, for `features` (batch, channels, segments, mel cells)."""
        pooled = F.relu(features).float().mean(dim=3).transpose(1, 2)  # (batch, segments, channels)
        with torch.autocast(pooled.device.type, enabled=False):  # bfloat16 logits would cause ties
            logits = self.classify(pooled)  # (batch, segments, species)
            weights = self.activate(self.attend(pooled))
        return SedOutput(
            attention=(weights * logits).sum(dim=1),
            max=logits.amax(dim=1),
            framewise=logits,
            attention_weights=weights,
            segment=self.segment_source(logits, weights),
        )


class TimeFrequencyHead(nn.Module):
    """A head over time and one over frequency, each with its own weights."""

    def __init__(self, time: nn.Module, frequency: nn.Module) -> None:
        super().__init__()
        self.time = time
        self.frequency = frequency

    def forward(self, features: Tensor) -> SedOutput:
        """Return the outputs for `features` (batch, channels, segments, mel cells).

        The frequency head gets the map with time and frequency swapped: it averages over time, and each of
        its bands is a mel cell.
        """
        over_time: SedOutput = self.time(features)
        return over_time._replace(frequency=self.frequency(features.transpose(2, 3)))
