"""The `model` section: backbone and heads."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from callboard.core.pinned_weights import WEIGHTS_PACKAGES, refuse_unknown
from callboard.params.base import Params
from callboard.params.bounds import Within

FRAMES_BACKBONE = "frames"
"""Value of `model.backbone` for no backbone: embeddings are used as they are."""

BACKBONE_NUMBERS = Within(
    -10_000, 10_000, "no argument of a network is larger, and building it would not end"
)


class ModelParams(Params):
    """The `model` section."""

    backbone: str = "resnet18"
    """Any timm model that returns a feature map; `frames` if `features.kind` gives embeddings."""
    backbone_args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of `timm.create_model`, e.g. channels and layers of a small resnet."""
    pretrained: bool = False
    """Whether the backbone starts from timm's pretrained weights (needs a model hub) or from random ones."""
    weights: str | None = None
    """Pretrained weights of the backbone: the name of a package, or a file as `path@digest`, relative to the
    main workspace; null = none."""
    head_bias: bool = False
    attention: Literal["softmax", "tanh", "sigmoid", "softmax_tanh"] = "softmax"
    """Function that turns attention logits into attention weights over time."""
    segment_source: Literal["class", "class_x_attention"] = "class"
    """Outputs that the segmentwise output is computed from."""
    cbam: bool = False
    """Whether channel and spatial attention act on the backbone's feature map (Woo et al. 2018)."""
    frequency_head: bool = False
    """Whether there is a second head, with its own weights, pooled over time instead of frequency."""

    @property
    def blank(self) -> Self:
        """These parameters without pretrained weights, for a network whose weights are loaded afterwards."""
        return self.model_copy(update={"pretrained": False, "weights": None})

    @field_validator("backbone_args")
    @classmethod
    def _numbers_within_bounds(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        for name, value in arguments.items():
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, int | float):
                    try:
                        BACKBONE_NUMBERS.checked(each)
                    except ValueError as error:
                        raise ValueError(f"{name} {error}") from None
        return arguments

    @field_validator("weights")
    @classmethod
    def _weights_are_named(cls, weights: str | None) -> str | None:
        if weights is not None:
            refuse_unknown(weights)
        return weights

    @model_validator(mode="after")
    def _one_source_of_weights(self) -> Self:
        if self.pretrained and self.weights is not None:
            raise ValueError(
                f"pretrained and weights {self.weights} both give pretrained weights; set only one"
            )
        return self

    @model_validator(mode="after")
    def _weights_are_of_the_backbone(self) -> Self:
        if self.backbone == FRAMES_BACKBONE and (self.pretrained or self.weights is not None):
            raise ValueError(f"backbone {FRAMES_BACKBONE} has no weights; unset pretrained and weights")
        package = WEIGHTS_PACKAGES.get(self.weights or "")
        if package and self.backbone.split(".")[0] != package.backbone:
            raise ValueError(f"weights {self.weights} fit backbone {package.backbone}, not {self.backbone}")
        return self
