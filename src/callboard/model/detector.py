"""The detector: a backbone (any timm model that gives a feature map) and the heads that read the map."""

from typing import Any

import timm
import torch
from torch import Tensor, nn

from callboard.core.errors import UserError, nearest, one_line
from callboard.model import embedding_backbone as embedding_frames
from callboard.model.cbam import Cbam
from callboard.model.heads import AttentionHead, SedOutput, TimeFrequencyHead
from callboard.model.pretrained import hub_asked_once, load_pretrained, no_hub_weights
from callboard.params.model import FRAMES_BACKBONE, ModelParams

PROBE_SIZE = 64
"""Frames and mel rows of the blank image used to find the shape of a backbone's feature map."""


ONEDNN_BLOCK = 16
"""Channels per block of oneDNN with AVX-512; strided 1x1 convolutions of fewer crash if channels are last."""


class SedModel(nn.Module):
    """Backbone, refinement of its feature map (CBAM or identity), and head."""

    def __init__(self, backbone: nn.Module, refine: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.refine = refine
        self.head = head

    def forward(self, image: Tensor) -> SedOutput:
        """Return the outputs of a normalised `image` (batch, frames, mels)."""
        output: SedOutput = self.head(self.features(image))
        return output

    def features(self, image: Tensor) -> Tensor:
        """Return the map (batch, channels, segments, mel cells) of an `image` as in `forward`."""
        features: Tensor = self.refine(self.backbone(image.unsqueeze(1)))
        return features


def build_model(params: ModelParams, n_classes: int) -> SedModel:
    """Build a new network with weights drawn from torch's global generator.

    Optional modules are initialised last, so that a seed gives all other weights the same values without
    them.
    Convolutions use channels-last layout where that is safe: a CPU trains 1.3 times as fast.

    Raises:
        UserError: timm lacks the backbone, its arguments do not fit, it does not give a feature map, or its
            pretrained weights are unavailable or do not fit.
    """
    backbone = _build_backbone(params)
    n_features = _count_features(backbone, params.backbone)
    head: nn.Module = AttentionHead(n_features, n_classes, params)
    refine = Cbam(n_features) if params.cbam else nn.Identity()
    if params.frequency_head:
        head = TimeFrequencyHead(head, AttentionHead(n_features, n_classes, params))
    model = SedModel(backbone, refine, head)
    if not any(_breaks_channels_last(module) for module in model.modules()):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]  # torch before 2.14 has no such overload
    return model


def _breaks_channels_last(module: nn.Module) -> bool:
    """Return whether a convolution's weight gradient would overwrite foreign memory (oneDNN issue 6035)."""
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.in_channels // module.groups < ONEDNN_BLOCK
    )


def _build_backbone(params: ModelParams) -> nn.Module:
    if params.backbone == FRAMES_BACKBONE:
        return embedding_frames.build(params.backbone_args)
    if not timm.is_model(params.backbone):
        hint = nearest(params.backbone, timm.list_models())
        raise UserError(f"model.backbone: timm has no model {params.backbone!r}{hint}")
    try:
        backbone = _create(params, pretrained=False)
    except Exception as error:
        raise UserError(
            f"model.backbone_args: {params.backbone} cannot be built with {params.backbone_args}: "
            f"{one_line(error)}"
        ) from error
    if params.weights is not None:
        load_pretrained(backbone, params.weights)
    return _create_pretrained(params) if params.pretrained else backbone


def _create(params: ModelParams, *, pretrained: bool) -> nn.Module:
    backbone: nn.Module = timm.create_model(
        params.backbone,
        pretrained=pretrained,
        in_chans=1,
        num_classes=0,
        global_pool="",
        **params.backbone_args,
    )
    return backbone


def _create_pretrained(params: ModelParams) -> nn.Module:
    with hub_asked_once() as answers:
        try:
            return _create(params, pretrained=True)
        except Exception as error:
            raise no_hub_weights(params.backbone, error, answers=answers) from error


def _count_features(backbone: Any, name: str) -> int:
    """Return the number of channels of the backbone's feature map.

    Raises:
        UserError: The output is not a map (batch, channels, segments, mel cells).
    """
    if name == FRAMES_BACKBONE:
        return int(backbone.num_features)
    backbone.eval()
    try:
        with torch.no_grad():
            shape = tuple(backbone(torch.zeros(1, 1, PROBE_SIZE, PROBE_SIZE)).shape)
    except Exception as error:
        raise UserError(
            f"model.backbone: {name} does not take images of any size: {one_line(error)}"
        ) from error
    backbone.train()
    named = ("num_features", "head_hidden_size")  # not every timm model has both
    widths = [getattr(backbone, attribute) for attribute in named if hasattr(backbone, attribute)]
    if len(shape) != 4 or (widths and shape[1] not in widths):
        channels = widths[0] if widths else "channels"
        raise UserError(
            f"model.backbone: {name} gives {shape} where a feature map (batch, {channels}, "
            "segments, mel cells) is needed; use a convolutional backbone"
        )
    return int(shape[1])
