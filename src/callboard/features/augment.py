"""Random changes of a batch of images; every draw comes from the generator handed in, on the CPU."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from callboard.features.normalisation import normalise
from callboard.params.training import AugmentParams

BRIGHTNESS_CONTRAST_LIMIT = 0.2
"""Largest change of brightness, and of contrast: the default of albumentations."""


class Place(NamedTuple):
    """Where the clips of a batch lie in their recordings, frames."""

    start: Tensor
    """(batch,) first frame of the clip."""
    recording_frames: Tensor
    """(batch,) length of the recording."""


AugmentStep = Callable[[Tensor, Place, Generator], Tensor]
"""(image (batch, frames, mels), place, generator) to the changed image."""


class Gamma:
    """|image|^gamma, clamped to [0, 1]; on a normalised image this folds values below the mean upwards."""

    def __init__(self, exponent: float) -> None:
        self.exponent = exponent

    def __call__(self, image: Tensor, place: Place, generator: Generator) -> Tensor:
        """The changed image."""
        return image.abs_().pow_(self.exponent).clamp_(0, 1)


class TimeMask:
    """One span of frames set to 0, drawn over the whole recording, so that it often misses the clip."""

    def __init__(self, bound: int) -> None:
        self.bound = bound

    def __call__(self, image: Tensor, place: Place, generator: Generator) -> Tensor:
        """The changed image."""
        start, stop = draw_spans(place.recording_frames, self.bound, generator)
        hidden = inside_spans(start - place.start, stop - place.start, image.shape[1])
        return image.masked_fill_(hidden.to(image.device).unsqueeze(2), 0.0)


class FrequencyMask:
    """One span of mel rows set to 0."""

    def __init__(self, bound: int) -> None:
        self.bound = bound

    def __call__(self, image: Tensor, place: Place, generator: Generator) -> Tensor:
        """The changed image."""
        n_clips, _, n_mels = image.shape
        start, stop = draw_spans(torch.full((n_clips,), n_mels), self.bound, generator)
        hidden = inside_spans(start, stop, n_mels)
        return image.masked_fill_(hidden.to(image.device).unsqueeze(1), 0.0)


def draw_spans(size: Tensor, bound: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Half-open spans [start, stop) within `size` (batch,), about bound / 4 wide in the mean.

    The double draw of the experiment table: width ~ U{0 … bound-1}, start ~ U,
    stop ~ U{start … start+width-1}.
    """
    n_clips = len(size)
    width = torch.randint(bound, (n_clips,), generator=generator)
    start = (torch.rand(n_clips, generator=generator) * (size - width).clamp(min=1)).long()
    stop = start + (torch.rand(n_clips, generator=generator) * width).long()
    return start, stop


def inside_spans(start: Tensor, stop: Tensor, length: int) -> Tensor:
    """(batch, length) bool, true where start <= position < stop."""
    position = torch.arange(length)
    return (position >= start.unsqueeze(1)) & (position < stop.unsqueeze(1))


CHAIN: dict[str, Callable[[Any], AugmentStep]] = {
    "gamma": Gamma,
    "time_mask": TimeMask,
    "freq_mask": FrequencyMask,
}
"""The steps behind one coin, in order, by the parameter that sets and switches them."""


class Chain:
    """All steps for the clips whose coin says so, none for the others."""

    def __init__(self, params: AugmentParams) -> None:
        self.p = params.p
        self.steps = [make(value) for name, make in CHAIN.items() if (value := getattr(params, name))]

    def __call__(self, image: Tensor, place: Place, generator: Generator) -> Tensor:
        """The image, changed in place."""
        chosen = (torch.rand(len(image), generator=generator) < self.p).nonzero().squeeze(1)
        part, part_place = image[chosen.to(image.device)], Place(*(column[chosen] for column in place))
        for step in self.steps:
            part = step(part, part_place, generator)
        return image.index_copy_(0, chosen.to(image.device), part)


class BrightnessContrast:
    """contrast · image + brightness, clamped to [0, 1], for the clips whose coin says so.

    As RandomBrightnessContrast of albumentations with its default limits.
    """

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, image: Tensor, place: Place, generator: Generator) -> Tensor:
        """The changed image."""
        coin, contrast, brightness = torch.rand(3, len(image), 1, 1, generator=generator)
        changes = (coin < self.p).float() * BRIGHTNESS_CONTRAST_LIMIT
        contrast = 1 + changes * (2 * contrast - 1)
        brightness = changes * (2 * brightness - 1)
        return image.mul(contrast.to(image.device)).add_(brightness.to(image.device)).clamp_(0, 1)


class FrequencyCrop:
    """A span of `n_rows` mel rows of every clip, or all rows of all clips.

    A batch has one height, so one coin decides for all its clips; where the span lies, each draws on its own.
    """

    def __init__(self, n_rows: int, p: float) -> None:
        self.n_rows = n_rows
        self.p = p

    def __call__(self, image: Tensor, place: Place, generator: Generator) -> Tensor:
        """The image, (batch, frames, n_rows) where the coin says so."""
        n_clips, n_frames, n_mels = image.shape
        is_cropped = torch.rand(1, generator=generator) < self.p
        first = torch.randint(n_mels - self.n_rows + 1, (n_clips, 1), generator=generator)
        if not is_cropped:
            return image
        rows = (first + torch.arange(self.n_rows)).to(image.device)  # (batch, n_rows)
        return image.gather(2, rows.unsqueeze(1).expand(-1, n_frames, -1))


def uncropped(image: Tensor, place: Place, generator: Generator) -> Tensor:
    """The image as it is; nothing is drawn, so all other draws stay as they were."""
    return image


STAGES: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]] = {
    "before_norm": lambda chain, image: normalise(chain(image)),
    "after_norm": lambda chain, image: chain(normalise(image)),
}


class Augment:
    """From images in [0, 1] to changed, normalised ones."""

    def __init__(self, params: AugmentParams) -> None:
        self.crop: AugmentStep = (
            FrequencyCrop(params.freq_crop, params.freq_crop_p) if params.freq_crop else uncropped
        )
        self.brightness_contrast = BrightnessContrast(params.brightness_contrast)
        self.chain = Chain(params)
        self.stage = STAGES[params.stage]

    def __call__(self, image: Tensor, place: Place, generator: Generator) -> Tensor:
        """The changed and normalised `image` (batch, frames, mels); `image` itself is left alone."""
        image = self.crop(image, place, generator)
        image = self.brightness_contrast(image, place, generator)
        return self.stage(lambda plain: self.chain(plain, place, generator), image)
