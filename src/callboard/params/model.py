"""Backbone and heads."""

from typing import Any, Literal

from callboard.params.base import Params


class ModelParams(Params):
    """The `model` section."""

    backbone: str
    """Any timm model that gives a feature map."""
    backbone_args: dict[str, Any]
    """Passed to `timm.create_model`, e.g. channels and layers of a small resnet."""
    pretrained: bool
    """Start from timm's weights (needs a model hub); false = random initialisation."""
    head_bias: bool
    attention: Literal["softmax", "tanh", "sigmoid", "softmax_tanh"]
    """What makes attention weights of attention logits, over time."""
    segment_source: Literal["class", "class_x_attention"]
    """What the segmentwise output is made of."""
    cbam: bool
    """Channel and spatial attention on the backbone's feature map (Woo et al. 2018)."""
    frequency_head: bool
    """A second head with weights of its own, pooled over time instead of frequency."""
