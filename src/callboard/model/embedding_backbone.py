"""Embeddings as a feature map: what stands in a backbone's place where frames are embeddings already."""

from typing import Any

from torch import Tensor, nn

from callboard.core.errors import UserError, one_line
from callboard.features.normalisation import MEAN, STD
from callboard.params.model import FRAMES_BACKBONE

GAIN = 8.0
"""Levels in [0, 1] to numbers around 1."""


class EmbeddingFrames(nn.Module):
    """Every frame becomes a segment of one cell, its numbers are the channels."""

    def __init__(
        self, n_numbers: int = 1024, norm: bool = True, hidden: int = 0, dropout: float = 0.0
    ) -> None:
        """Set up the layers.

        Args:
            n_numbers: Length of an embedding.
            norm: Whether numbers are normalised over the batch, each by itself.
            hidden: Width of a layer of frames; 0 = none.
            dropout: Share of the channels that training leaves out.
        """
        super().__init__()
        self.num_features = hidden or n_numbers
        self.norm = nn.BatchNorm2d(n_numbers) if norm else nn.Identity()
        self.hidden = nn.Sequential(nn.Conv2d(n_numbers, hidden, 1), nn.ReLU()) if hidden else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, image: Tensor) -> Tensor:
        """The map (batch, channels, frames, 1) of a normalised `image` (batch, 1, frames, numbers)."""
        levels = image.transpose(1, 3) * STD + MEAN
        features: Tensor = self.dropout(self.hidden(self.norm(levels * GAIN)))
        return features


def build(backbone_args: dict[str, Any]) -> EmbeddingFrames:
    """The frames as `model.backbone_args` has them.

    Raises:
        UserError: arguments that they do not take.
    """
    try:
        return EmbeddingFrames(**backbone_args)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"model.backbone_args: {FRAMES_BACKBONE} cannot be built with {backbone_args}: {one_line(error)}"
        ) from error
