"""Log-mel frames of the uint8 cache as images: unit range, then ImageNet statistics."""

import torch
from torch import Tensor

MEAN = 0.449
"""ImageNet's channel means (0.485, 0.456, 0.406), averaged: three equal channels through a first convolution
are one channel through the sum of its weights, which is what timm makes of `in_chans=1`."""
STD = 0.226
"""ImageNet's channel deviations (0.229, 0.224, 0.225), averaged."""


def to_unit(frames: Tensor) -> Tensor:
    """Frames of the cache, uint8 of any shape, as float32 in [0, 1]."""
    return frames.to(torch.float32).div_(255.0)


def normalise(image: Tensor) -> Tensor:
    """An image in [0, 1] with ImageNet's mean and deviation removed."""
    return (image - MEAN).div_(STD)
