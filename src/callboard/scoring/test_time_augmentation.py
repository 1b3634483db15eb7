"""Test-time augmentation: several looks at a window, each behind masks of its own."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from callboard.features.augment import STAGES, Chain, Place
from callboard.features.normalisation import normalise
from callboard.params.training import AugmentParams


class TestTimeAugmentation:
    """The images that a network is shown of a batch of windows; its logits are averaged over them."""

    def __init__(self, n_masked: int, augment: AugmentParams, seed: int) -> None:
        """Set up the looks.

        Args:
            n_masked: Looks behind the time and frequency masks of training; 0 = one look without any.
            augment: Sets the masks, their coin and whether they act before normalisation.
            seed: Of the masks.
        """
        self.n_masked = n_masked
        self.masks = Chain(augment.model_copy(update={"gamma": None}))
        self.stage = STAGES[augment.stage]
        self.seed = seed

    def __call__(self, image: Tensor, place: Place, first_window: int) -> Iterator[Tensor]:
        """Normalised images of `image` (batch, frames, mels) in [0, 1], which is left alone.

        The masks depend on the seed and on `first_window`, the number of the batch's first window.
        """
        if self.n_masked == 0:
            yield normalise(image)
            return
        seed = int(np.random.default_rng((self.seed, first_window)).integers(2**63))
        generator = torch.Generator().manual_seed(seed)
        for _ in range(self.n_masked):  # masks are made in place, so each look needs a copy
            yield self.stage(lambda plain: self.masks(plain, place, generator), image.clone())
