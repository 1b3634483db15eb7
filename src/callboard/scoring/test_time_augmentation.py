"""Test-time augmentation: several copies of a window, each with its own masks."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from callboard.features.augment import STAGES, Chain, Place
from callboard.features.normalisation import normalise
from callboard.params.training import AugmentParams


class TestTimeAugmentation:
    """The images that a network sees of a batch of windows; its logits are averaged over them."""

    def __init__(self, n_masked: int, augment: AugmentParams, seed: int) -> None:
        """Set up the masks.

        Args:
            n_masked: Copies of an image with the time and frequency masks of training; 0 = one without masks.
            augment: Section that sets the masks, their probability, and whether normalisation comes after.
            seed: Seed of the masks.
        """
        self.n_masked = n_masked
        self.masks = Chain(augment.model_copy(update={"gamma": None}))
        self.stage = STAGES[augment.stage]
        self.seed = seed

    def __call__(self, image: Tensor, place: Place, first_window: int) -> Iterator[Tensor]:
        """Yield normalised images of `image` (batch, frames, mels) in [0, 1], which itself is not changed.

        The masks depend on the seed and on `first_window`, the number of the batch's first window.
        """
        if self.n_masked == 0:
            yield normalise(image)
            return
        seed = int(np.random.default_rng((self.seed, first_window)).integers(2**63))
        generator = torch.Generator().manual_seed(seed)
        for _ in range(self.n_masked):  # masks act in place, so each image needs a copy
            yield self.stage(lambda plain: self.masks(plain, place, generator), image.clone())
