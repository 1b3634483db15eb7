"""Mixup: clips of a batch blended with other clips of the same batch (Zhang et al. 2018).

Images are blended, or the backbone's feature maps (manifold mixup: Verma et al. 2019), or each in turn.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from callboard.features.transfer import to_device
from callboard.model.detector import SedModel
from callboard.model.heads import SedOutput
from callboard.params.training import MixupParams
from callboard.training.targets import Targets


class Mixing(NamedTuple):
    """One draw for a whole batch: x becomes share · x + (1 - share) · x[partner]."""

    share: float
    partner: Tensor
    """(batch,) index of the clip that each clip is blended with, on the device of the batch."""
    frame_targets: bool
    """Whether framewise and bandwise targets are blended too."""

    def blend(self, values: Tensor) -> Tensor:
        """Blend `values`, whose first axis is the batch."""
        return torch.lerp(values[self.partner], values, self.share)

    def blend_targets(self, targets: Targets) -> Targets:
        """Blend targets and label weights with the images' share and partners."""
        if self.frame_targets:
            return Targets(*map(self.blend, targets))
        clip, clip_labeled = self.blend(targets.clip), self.blend(targets.clip_labeled)
        return targets._replace(clip=clip, clip_labeled=clip_labeled)


def draw_mixing(params: MixupParams, n_clips: int, rng: np.random.Generator, device: torch.device) -> Mixing:
    """Draw a share ~ Beta(alpha, alpha) and a permutation of the batch."""
    share = float(rng.beta(params.alpha, params.alpha))
    partner = to_device(torch.from_numpy(rng.permutation(n_clips)), device)
    return Mixing(share, partner, params.frame_targets)


Pass = tuple[SedOutput, Targets]
"""Output of one forward pass, and its targets."""


Mixup = Callable[[SedModel, Tensor, Targets, Mixing], list[Pass]]
"""Runs the forward passes of a training step; the loss is their mean."""


def no_mixup(model: SedModel, image: Tensor, targets: Targets, mixing: Mixing) -> list[Pass]:
    """Run the network on unchanged clips."""
    return [(model(image), targets)]


def input_mixup(model: SedModel, image: Tensor, targets: Targets, mixing: Mixing) -> list[Pass]:
    """Run the network on blended images, with blended targets."""
    return [(model(mixing.blend(image)), mixing.blend_targets(targets))]


def last_mixup(model: SedModel, image: Tensor, targets: Targets, mixing: Mixing) -> list[Pass]:
    """Run the heads on feature maps blended before ReLU and pooling, with blended targets."""
    return [(model.head(mixing.blend(model.features(image))), mixing.blend_targets(targets))]


def both_mixups(model: SedModel, image: Tensor, targets: Targets, mixing: Mixing) -> list[Pass]:
    """Run a pass with blended images and one with blended feature maps, with the same share and partners."""
    of_images, of_features = (mixup(model, image, targets, mixing) for mixup in (input_mixup, last_mixup))
    return of_images + of_features


MIXUP: dict[str, Mixup] = {"none": no_mixup, "input": input_mixup, "last": last_mixup, "both": both_mixups}
