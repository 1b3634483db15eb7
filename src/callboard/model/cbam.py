"""Attention on a feature map, over its channels and over its cells (CBAM: Woo et al. 2018).

Like the paper's formulas, it has no biases and no batch normalisation.
"""

import torch
from torch import Tensor, nn

REDUCTION = 16
"""Channels per hidden unit of the channel attention; the paper's default."""

KERNEL_SIZE = 7
"""Cells along time and along frequency that a cell's weight depends on; as in the paper."""


class ChannelAttention(nn.Module):
    """Weighting of each channel by σ(MLP(its mean) + MLP(its maximum)), with one MLP for both."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        n_hidden = max(n_channels // REDUCTION, 1)
        self.squeeze = nn.Linear(n_channels, n_hidden, bias=False)
        self.excite = nn.Linear(n_hidden, n_channels, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return the weighted map (batch, channels, segments, mel cells)."""
        pooled = torch.stack([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))])  # (2, batch, channels)
        weights: Tensor = self.excite(self.squeeze(pooled).relu()).sum(dim=0).sigmoid()  # (batch, channels)
        return features * weights[:, :, None, None]


class CellAttention(nn.Module):
    """Weighting of each cell by σ of a convolution over the mean and maximum of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(2, 1, KERNEL_SIZE, padding=KERNEL_SIZE // 2, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return the weighted map (batch, channels, segments, mel cells)."""
        pooled = torch.stack([features.mean(dim=1), features.amax(dim=1)], dim=1)  # (batch, 2, segments, …)
        weights: Tensor = self.convolve(pooled).sigmoid()  # (batch, 1, segments, mel cells)
        return features * weights


class Cbam(nn.Sequential):
    """Channel attention, then attention over cells; the map keeps its shape."""

    def __init__(self, n_channels: int) -> None:
        super().__init__(ChannelAttention(n_channels), CellAttention())
