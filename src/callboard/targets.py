"""What a batch of clips is compared with, and how its targets are softened before clips are blended.

Notation: y targets, k the share of a cell that they speak of, ε = `loss.smoothing.eps`, n the length of the
species axis.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from callboard.params.loss import SmoothingParams


class Targets(NamedTuple):
    """What a batch of clips is compared with; all float in [0, 1], fractions by smoothing and mixup."""

    clip: Tensor
    """(batch, species): the species has an annotated frame in the clip; pseudo-labels by their weight."""
    frame: Tensor
    """(batch, frames, species): the frame is annotated."""
    clip_labeled: Tensor
    """(batch, species): weight of a TP, FP or pseudo label in the clip; 0 = nobody looked.

    Assumes that a box rejected for a species says: the species is absent from that clip. The expert said so
    of the box alone.
    """
    frame_labeled: Tensor
    """(batch, frames, species): the same for each frame."""
    band: Tensor
    """(batch, mels, species): the mel row lies in an annotated box."""
    band_labeled: Tensor
    """(batch, mels, species): label weights of mel rows."""


CellWeights = Callable[[Tensor, Tensor], Tensor | float]
"""(targets, is_labeled) to a factor of every cell."""


def smooth_all(targets: Tensor, known: Tensor | float, eps: float, n_species: int) -> Tensor:
    """Present and absent cells move towards each other: y (1 - ε) + k ε / n (Szegedy et al. 2016)."""
    return targets * (1 - eps) + known * (eps / n_species)


def smooth_negatives(targets: Tensor, known: Tensor | float, eps: float, n_species: int) -> Tensor:
    """Absent cells rise, present ones stay 1: y + (k - y) ε / n."""
    return targets + (known - targets) * (eps / n_species)


SMOOTHING_MODES: dict[str, Callable[[Tensor, Tensor | float, float, int], Tensor]] = {
    "uniform": smooth_all,
    "negative": smooth_negatives,
}

SMOOTHED_FIELDS: dict[str, dict[str, str]] = {
    "none": {},
    "clip": {"clip": "clip_labeled"},
    "seq": {"frame": "frame_labeled", "band": "band_labeled"},
}
"""The targets that are softened, with their label weights."""


def smooth_targets(targets: Targets, smoothing: SmoothingParams, known: CellWeights) -> Targets:
    """Targets softened as `smoothing` says; label weights stay.

    An absent cell of target ε / n is still absent, so whoever takes targets as factors of cells counts it.
    `seq` is for every term that reads framewise targets, the position term too.

    Args:
        targets: As annotated, before mixup.
        smoothing: Which targets, and how.
        known: The share of a cell that its target speaks of: 1 where a cell that nobody labelled counts as
            absent, else its label weight. A cell nobody looked at then stays 0, and blending it with a
            labelled one keeps target / label weight at that of the labelled one.
    """
    soften = SMOOTHING_MODES[smoothing.mode]
    n_species = targets.clip.shape[-1]
    softened = {}
    for name, labels in SMOOTHED_FIELDS[smoothing.target].items():
        target, is_labeled = getattr(targets, name), getattr(targets, labels)
        softened[name] = soften(target, known(target, is_labeled), smoothing.eps, n_species)
    return targets._replace(**softened)
