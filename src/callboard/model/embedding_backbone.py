"""Embeddings as a feature map: the replacement for a backbone if frames are already embeddings."""

from typing import Any

from torch import Tensor, nn

from callboard.core.errors import UserError, one_line
from callboard.features.normalisation import MEAN, STD
from callboard.params.model import FRAMES_BACKBONE

GAIN = 8.0
"""Factor that scales levels in [0, 1] to numbers around 1."""


class EmbeddingFrames(nn.Module):
    """Backbone that makes every frame a segment of one mel cell, with the embedding's numbers as channels."""

    def __init__(
        self, n_numbers: int = 1024, norm: bool = True, hidden: int = 0, dropout: float = 0.0
    ) -> None:
        """Set up the layers.

        Args:
            n_numbers: Length of an embedding.
            norm: Whether each number is batch-normalised.
            hidden: Width of a hidden layer applied to each frame; 0 = no hidden layer.
            dropout: Dropout probability.
        """
        super().__init__()
        self.num_features = hidden or n_numbers
        self.norm = nn.BatchNorm2d(n_numbers) if norm else nn.Identity()
        self.hidden = nn.Sequential(nn.Conv2d(n_numbers, hidden, 1), nn.ReLU()) if hidden else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, image: Tensor) -> Tensor:
        """Return the map (batch, channels, frames, 1) of a normalised `image` (batch, 1, frames, numbers)."""
        levels = image.transpose(1, 3) * STD + MEAN
        features: Tensor = self.dropout(self.hidden(self.norm(levels * GAIN)))
        return features


def build(backbone_args: dict[str, Any]) -> EmbeddingFrames:
    """Build the backbone from `model.backbone_args`.

    Raises:
        UserError: The arguments are unknown or invalid.
    """
    try:
        return EmbeddingFrames(**backbone_args)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"model.backbone_args: {FRAMES_BACKBONE} cannot be built with {backbone_args}: {one_line(error)}"
        ) from error
