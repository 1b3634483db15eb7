"""Random augmentations of a batch of images; all random numbers come from the given CPU generator."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from callboard.features.normalisation import normalise
from callboard.features.transfer import to_device
from callboard.params.training import AugmentParams

BRIGHTNESS_CONTRAST_LIMIT = 0.2
"""Largest change of brightness and of contrast; the default of albumentations."""


class Place(NamedTuple):
    """Positions of a batch of clips in their recordings, in frames."""

    start: Tensor
    """(batch,) first frame of the clip."""
    recording_frames: Tensor
    """(batch,) length of the recording."""


AugmentStep = Callable[[Tensor, Place, Generator], Tensor]
"""(image (batch, frames, mels), place, generator) to the changed image."""


class Gamma:
    """|image|^gamma, clamped to [0, 1]; on a normalised image, values below the mean are folded upwards."""

    def __init__(self, exponent: float) -> None:
        self.exponent = exponent

    def __call__(self, image: Tensor, place: Place, generator: Generator) -> Tensor:
        """Return the image, changed in place."""
        return image.abs_().pow_(self.exponent).clamp_(0, 1)


class TimeMask:
    """A mask that sets a span of frames to 0; drawn over the whole recording, it often misses the clip."""

    def __init__(self, bound: int) -> None:
        self.bound = bound

    def __call__(self, image: Tensor, place: Place, generator: Generator) -> Tensor:
        """Return the image, changed in place."""
        start, stop = draw_spans(place.recording_frames, self.bound, generator)
        start, stop = to_device(torch.stack([start, stop]) - place.start, image.device)
        return image.masked_fill_(inside_spans(start, stop, image.shape[1]).unsqueeze(2), 0.0)


class FrequencyMask:
    """A mask that sets a span of mel rows to 0."""

    def __init__(self, bound: int) -> None:
        self.bound = bound

    def __call__(self, image: Tensor, place: Place, generator: Generator) -> Tensor:
        """Return the image, changed in place."""
        n_clips, _, n_mels = image.shape
        start, stop = draw_spans(torch.full((n_clips,), n_mels), self.bound, generator)
        start, stop = to_device(torch.stack([start, stop]), image.device)
        return image.masked_fill_(inside_spans(start, stop, n_mels).unsqueeze(1), 0.0)


def draw_spans(size: Tensor, bound: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw half-open spans [start, stop) within `size` (batch,), on average about bound / 4 wide.

    The two draws are those of the original author: width ~ U{0 … bound-1}, start ~ U,
    stop ~ U{start … start+width-1}.
    """
    n_clips = len(size)
    width = torch.randint(bound, (n_clips,), generator=generator)
    start = (torch.rand(n_clips, generator=generator) * (size - width).clamp(min=1)).long()
    stop = start + (torch.rand(n_clips, generator=generator) * width).long()
    return start, stop


def inside_spans(start: Tensor, stop: Tensor, length: int) -> Tensor:
    """Return (batch, length) bool, true where start <= position < stop."""
    position = torch.arange(length, device=start.device)
    return (position >= start.unsqueeze(1)) & (position < stop.unsqueeze(1))


CHAIN: dict[str, Callable[[Any], AugmentStep]] = {
    "gamma": Gamma,
    "time_mask": TimeMask,
    "freq_mask": FrequencyMask,
}
"""Steps that share one coin toss per clip, in order, by the parameter that sets them or switches them off."""


class Chain:
    """Application of all steps to each clip with probability `p`, and of none otherwise."""

    def __init__(self, params: AugmentParams) -> None:
        self.p = params.p
        self.steps = [make(value) for name, make in CHAIN.items() if (value := getattr(params, name))]

    def __call__(self, image: Tensor, place: Place, generator: Generator) -> Tensor:
        """Return the image, changed in place."""
        chosen = (torch.rand(len(image), generator=generator) < self.p).nonzero().squeeze(1)
        rows = to_device(chosen, image.device)
        part, part_place = image[rows], Place(*(column[chosen] for column in place))
        for step in self.steps:
            part = step(part, part_place, generator)
        return image.index_copy_(0, rows, part)


class BrightnessContrast:
    """contrast · image + brightness, clamped to [0, 1], for each clip with probability `p`.

    Same as RandomBrightnessContrast of albumentations with its default limits.
    """

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, image: Tensor, place: Place, generator: Generator) -> Tensor:
        """Return a changed copy of the image."""
        coin, contrast, brightness = torch.rand(3, len(image), 1, 1, generator=generator)
        changes = (coin < self.p).float() * BRIGHTNESS_CONTRAST_LIMIT
        contrast = 1 + changes * (2 * contrast - 1)
        brightness = changes * (2 * brightness - 1)
        contrast, brightness = to_device(torch.stack([contrast, brightness]), image.device)
        return image.mul(contrast).add_(brightness).clamp_(0, 1)


class FrequencyCrop:
    """Cropping of every clip to `n_rows` mel rows with probability `p`.

    All clips of a batch have the same height, so they are cropped together; each draws its own first row.
    """

    def __init__(self, n_rows: int, p: float) -> None:
        self.n_rows = n_rows
        self.p = p

    def __call__(self, image: Tensor, place: Place, generator: Generator) -> Tensor:
        """Return the image as (batch, frames, n_rows) if it is cropped, unchanged otherwise."""
        n_clips, n_frames, n_mels = image.shape
        is_cropped = torch.rand(1, generator=generator) < self.p
        first = torch.randint(n_mels - self.n_rows + 1, (n_clips, 1), generator=generator)
        if not is_cropped:
            return image
        rows = to_device(first + torch.arange(self.n_rows), image.device)  # (batch, n_rows)
        return image.gather(2, rows.unsqueeze(1).expand(-1, n_frames, -1))


def uncropped(image: Tensor, place: Place, generator: Generator) -> Tensor:
    """Return the image unchanged; nothing is drawn, so all other random draws stay the same."""
    return image


STAGES: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]] = {
    "before_norm": lambda chain, image: normalise(chain(image)),
    "after_norm": lambda chain, image: chain(normalise(image)),
}


class Augment:
    """Augmentation and normalisation of images in [0, 1]."""

    def __init__(self, params: AugmentParams) -> None:
        self.crop: AugmentStep = (
            FrequencyCrop(params.freq_crop, params.freq_crop_p) if params.freq_crop else uncropped
        )
        self.brightness_contrast = BrightnessContrast(params.brightness_contrast)
        self.chain = Chain(params)
        self.stage = STAGES[params.stage]

    def __call__(self, image: Tensor, place: Place, generator: Generator) -> Tensor:
        """Return the augmented and normalised `image` (batch, frames, mels), which itself is not changed."""
        image = self.crop(image, place, generator)
        image = self.brightness_contrast(image, place, generator)
        return self.stage(lambda plain: self.chain(plain, place, generator), image)
