"""Conversion of uint8 frames of the cache to images: unit range, then ImageNet statistics."""

import torch
from torch import Tensor

MEAN = 0.449
"""Average of ImageNet's channel means (0.485, 0.456, 0.406). A convolution of three equal channels equals
that of one channel with the sum of its weights, to which timm converts it for `in_chans=1`."""
STD = 0.226
"""Average of ImageNet's channel standard deviations (0.229, 0.224, 0.225)."""


def to_unit(frames: Tensor) -> Tensor:
    """Convert uint8 frames of any shape to float32 in [0, 1]."""
    return frames.to(torch.float32).div_(255.0)


def normalise(image: Tensor) -> Tensor:
    """Subtract MEAN from an image in [0, 1] and divide by STD; `image` itself is not changed."""
    return (image - MEAN).div_(STD)
