"""Attention on a feature map, over its channels and over its cells (CBAM: Woo et al. 2018).

Without the biases and the batch normalisation that the paper's formulas do not have.
"""

import torch
from torch import Tensor, nn

REDUCTION = 16
"""Channels per hidden unit of the channel attention; the paper's default."""

KERNEL_SIZE = 7
"""Cells along time and frequency that a cell's weight depends on; the paper's choice."""


class ChannelAttention(nn.Module):
    """Each channel times σ(MLP(its mean) + MLP(its maximum)), one MLP over the channels for both."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        n_hidden = max(n_channels // REDUCTION, 1)
        self.squeeze = nn.Linear(n_channels, n_hidden, bias=False)
        self.excite = nn.Linear(n_hidden, n_channels, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """The weighted map (batch, channels, segments, mel cells)."""
        pooled = torch.stack([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))])  # (2, batch, channels)
        weights: Tensor = self.excite(self.squeeze(pooled).relu()).sum(dim=0).sigmoid()  # (batch, channels)
        return features * weights[:, :, None, None]


class CellAttention(nn.Module):
    """Each cell times σ of a convolution over the channels' mean and maximum there."""

    def __init__(self) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(2, 1, KERNEL_SIZE, padding=KERNEL_SIZE // 2, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """The weighted map (batch, channels, segments, mel cells)."""
        pooled = torch.stack([features.mean(dim=1), features.amax(dim=1)], dim=1)  # (batch, 2, segments, …)
        weights: Tensor = self.convolve(pooled).sigmoid()  # (batch, 1, segments, mel cells)
        return features * weights


class Cbam(nn.Sequential):
    """Channel attention, then attention over cells; the map keeps its shape."""

    def __init__(self, n_channels: int) -> None:
        super().__init__(ChannelAttention(n_channels), CellAttention())
