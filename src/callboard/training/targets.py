"""What a batch of clips is compared with: targets and label weights of cells, and label smoothing."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from callboard.params.loss import SmoothingParams
from callboard.training.fold_data import CONFIRMED, REJECTED, FoldData, Integers


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


UNLABELED = -1.0
"""The verdict on a cell that nobody spoke of, below every other."""


class Labels(NamedTuple):
    """The annotations with a frame in a clip, clips in order."""

    clip: Integers
    """(labels,)."""
    slot: Integers
    """(labels,) position among the annotations of the clip's recording."""
    first: Integers
    """(labels,) first frame, in the clip."""
    stop: Integers
    """(labels,) frame after the last, in the clip."""
    verdict: NDArray[np.float64]
    """(labels,)."""
    is_of_clip: NDArray[np.bool_]
    """(labels,) whether it speaks of the clip: a negative only if no frame of the recording in the clip is
    outside it, everything else always."""

    def clips_with(self, is_meant: NDArray[np.bool_], n_clips: int) -> NDArray[np.bool_]:
        """(clips,) whether one of its labels is meant."""
        is_with: NDArray[np.bool_] = np.bincount(self.clip[is_meant], minlength=n_clips) > 0
        return is_with


def find_labels(data: FoldData, recording: Integers, start: Integers, n_frames: int) -> Labels:
    """What the annotations say of clips.

    Args:
        data: Of the fold.
        recording: (clips,) rows of the cache.
        start: (clips,) first frame of each clip in its recording.
        n_frames: Length of a clip.
    """
    annotations = data.annotations
    first, stop = (np.clip(edge[recording] - start[:, None], 0, n_frames) for edge in annotations[:2])
    clip, slot = np.nonzero(stop > first)
    first, stop = first[clip, slot], stop[clip, slot]
    verdict = annotations.verdict[recording[clip], slot]
    n_valid = np.minimum(data.n_frames[recording] - start, n_frames)[clip]
    return Labels(clip, slot, first, stop, verdict, (verdict > 0) | (stop - first >= n_valid))


def build_targets(
    data: FoldData,
    recording: Integers,
    start: Integers,
    n_frames: int,
    mels: slice,
    device: torch.device,
    pseudo_weight: float = 1.0,
) -> Targets:
    """What the clips are compared with: every TP or pseudo annotation is positive where it is in the clip.

    FP annotations and negative pseudo-labels make labelled negatives, the latter of a clip only if all of it
    is within one. In a cell with several, experts win over pseudo-labels and present over absent; of soft
    targets the largest counts. Pseudo-labels of a species have no say in the frames of a clip that an expert
    rejected it in and none confirmed it in, so a clip's target is always the largest of its frames'. The mel
    rows of an annotation count if some frame of it is in the clip.

    Args:
        data: Of the fold.
        recording: (clips,) rows of the cache.
        start: (clips,) first frame of each clip in its recording.
        n_frames: Length of a clip.
        mels: Of the filterbank's rows, those that a clip shows.
        device: Where the targets are wanted.
        pseudo_weight: Label weight of pseudo-labels, a factor of their targets too.
    """
    annotations = data.annotations
    labels = find_labels(data, recording, start, n_frames)
    row = recording[labels.clip], labels.slot
    lowest, highest, _ = mels.indices(data.frames.shape[1])
    low, high = (np.clip(edge[row] - lowest, 0, highest - lowest) for edge in annotations[2:4])
    cell = labels.clip, annotations.species[row]
    of_clip = np.full((len(recording), data.n_classes), UNLABELED)
    np.maximum.at(of_clip, tuple(axis[labels.is_of_clip] for axis in cell), labels.verdict[labels.is_of_clip])
    is_overruled = (labels.verdict > 0) & (labels.verdict < REJECTED) & (of_clip[cell] == REJECTED)

    def mark(first: Integers, stop: Integers, length: int) -> tuple[Tensor, Tensor]:
        """Targets and label weights (clips, length, species) from half-open spans of the labels."""
        shape = len(recording), length, data.n_classes
        span, position = _positions(first, np.where(is_overruled, first, stop))
        index = np.ravel_multi_index((cell[0][span], position, cell[1][span]), shape)
        verdict = torch.from_numpy(labels.verdict[span]).to(device, torch.float32)
        cells = torch.full((math.prod(shape),), UNLABELED, device=device)
        cells.scatter_reduce_(0, torch.from_numpy(index).to(device), verdict, "amax")
        return read_verdicts(cells.view(shape), pseudo_weight)

    clip, clip_labeled = read_verdicts(torch.from_numpy(of_clip).to(device, torch.float32), pseudo_weight)
    frame, frame_labeled = mark(labels.first, labels.stop, n_frames)
    band, band_labeled = mark(low, high, highest - lowest)
    return Targets(clip, frame, clip_labeled, frame_labeled, band, band_labeled)


def read_verdicts(verdict: Tensor, pseudo_weight: float) -> tuple[Tensor, Tensor]:
    """Targets and label weights of cells on which verdicts are UNLABELED or as Annotations has them."""
    is_expert = verdict >= REJECTED
    target = torch.where(is_expert, (verdict == CONFIRMED).float(), pseudo_weight * verdict.clamp(min=0))
    labeled = torch.where(is_expert, 1.0, pseudo_weight * (verdict >= 0).float())
    return target, labeled


def _positions(first: Integers, stop: Integers) -> tuple[Integers, Integers]:
    """Half-open spans to the span that each of their positions is of, and the position: both (positions,)."""
    length = stop - first
    span = np.repeat(np.arange(len(length)), length)
    return span, np.arange(len(span)) + (first - np.cumsum(length) + length)[span]
