"""Targets and label weights of the cells of a batch, and label smoothing."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from callboard.features.transfer import to_device
from callboard.params.loss import SmoothingParams
from callboard.training.fold_data import CONFIRMED, REJECTED, FoldData, Integers


class Targets(NamedTuple):
    """Targets of clips, float in [0, 1]; fractions come from pseudo-labels, smoothing and mixup."""

    clip: Tensor
    """(batch, species) whether the species is annotated in the clip; pseudo-labels by their weight."""
    frame: Tensor
    """(batch, frames, species) whether the frame is annotated."""
    clip_labeled: Tensor
    """(batch, species) weight of a TP, FP or pseudo label in the clip; 0 if nobody looked.

    Assumes that a box rejected for a species means that the species is absent from that clip, though the
    annotator judged the box alone.
    """
    frame_labeled: Tensor
    """(batch, frames, species) label weights of frames."""
    band: Tensor
    """(batch, mels, species) whether the mel row is in an annotated box."""
    band_labeled: Tensor
    """(batch, mels, species) label weights of mel rows."""


CellWeights = Callable[[Tensor, Tensor], Tensor | float]
"""Maps (targets, is_labeled) to a factor of every cell."""


def smooth_all(targets: Tensor, known: Tensor | float, eps: float, n_species: int) -> Tensor:
    """Move present and absent cells towards each other: y (1 - ε) + k ε / n (Szegedy et al. 2016)."""
    return targets * (1 - eps) + known * (eps / n_species)


def smooth_negatives(targets: Tensor, known: Tensor | float, eps: float, n_species: int) -> Tensor:
    """Raise absent cells and leave present ones at 1: y + (k - y) ε / n."""
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
"""Targets that are softened, with their label weights, by `loss.smoothing.target`."""


def smooth_targets(targets: Targets, smoothing: SmoothingParams, known: CellWeights) -> Targets:
    """Soften targets as `smoothing` says; label weights are unchanged.

    An absent cell with target ε / n is still absent: terms that multiply cells by targets count it.
    `seq` applies to every term that reads framewise targets, the position term too.

    Args:
        targets: As annotated, before mixup.
        smoothing: Which targets, and how.
        known: Share of a cell that its target describes: 1 where an unlabelled cell counts as absent, else
            its label weight. An unlabelled cell then stays 0, and blending it with a labelled one keeps
            target / label weight at that of the labelled one.
    """
    soften = SMOOTHING_MODES[smoothing.mode]
    n_species = targets.clip.shape[-1]
    softened = {}
    for name, labels in SMOOTHED_FIELDS[smoothing.target].items():
        target, is_labeled = getattr(targets, name), getattr(targets, labels)
        softened[name] = soften(target, known(target, is_labeled), smoothing.eps, n_species)
    return targets._replace(**softened)


UNLABELED = -1.0
"""Verdict on an unlabelled cell, below all others."""


class Labels(NamedTuple):
    """Annotations with a frame in a clip, in the order of clips."""

    clip: Integers
    """(labels,) index of the clip."""
    slot: Integers
    """(labels,) position among the annotations of the clip's recording."""
    first: Integers
    """(labels,) first frame, counted in the clip."""
    stop: Integers
    """(labels,) frame after the last, counted in the clip."""
    verdict: NDArray[np.float64]
    """(labels,) as in Annotations.verdict."""
    is_of_clip: NDArray[np.bool_]
    """(labels,) whether it applies to the clip as a whole: a negative only if it covers every frame of the
    recording in the clip, all others always."""

    def clips_with(self, is_meant: NDArray[np.bool_], n_clips: int) -> NDArray[np.bool_]:
        """Return (clips,) whether a clip has a label in the mask `is_meant`."""
        is_with: NDArray[np.bool_] = np.bincount(self.clip[is_meant], minlength=n_clips) > 0
        return is_with


def find_labels(data: FoldData, recording: Integers, start: Integers, n_frames: int) -> Labels:
    """Find the annotations in each clip.

    Args:
        data: Data of the fold.
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
    """Build the targets of clips: every TP or pseudo annotation is positive where it is in the clip.

    FP annotations and negative pseudo-labels make labelled negatives; the latter apply to a clip only if one
    covers all of it. In a cell with several, annotations win over pseudo-labels and present over absent; of
    soft targets the largest counts. Pseudo-labels of a species are ignored in the frames of a clip in which
    a box rejects the species and none confirms it, so a clip's target is always the maximum over its frames.
    The mel rows of an annotation count if any of its frames is in the clip.

    Args:
        data: Data of the fold.
        recording: (clips,) rows of the cache.
        start: (clips,) first frame of each clip in its recording.
        n_frames: Length of a clip.
        mels: Rows of the filterbank that a clip shows.
        device: Device of the targets.
        pseudo_weight: Label weight of pseudo-labels, also a factor of their targets.
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
        """Return targets and label weights (clips, length, species) from half-open spans of the labels."""
        shape = len(recording), length, data.n_classes
        span, position = _positions(first, np.where(is_overruled, first, stop))
        index = np.ravel_multi_index((cell[0][span], position, cell[1][span]), shape)
        verdict = to_device(torch.from_numpy(labels.verdict[span]).float(), device)
        cells = torch.full((math.prod(shape),), UNLABELED, device=device)
        cells.scatter_reduce_(0, to_device(torch.from_numpy(index), device), verdict, "amax")
        return read_verdicts(cells.view(shape), pseudo_weight)

    clip, clip_labeled = read_verdicts(to_device(torch.from_numpy(of_clip).float(), device), pseudo_weight)
    frame, frame_labeled = mark(labels.first, labels.stop, n_frames)
    band, band_labeled = mark(low, high, highest - lowest)
    return Targets(clip, frame, clip_labeled, frame_labeled, band, band_labeled)


def read_verdicts(verdict: Tensor, pseudo_weight: float) -> tuple[Tensor, Tensor]:
    """Turn verdicts on cells, UNLABELED or as in Annotations, into targets and label weights."""
    is_expert = verdict >= REJECTED
    target = torch.where(is_expert, (verdict == CONFIRMED).float(), pseudo_weight * verdict.clamp(min=0))
    labeled = torch.where(is_expert, 1.0, pseudo_weight * (verdict >= 0).float())
    return target, labeled


def _positions(first: Integers, stop: Integers) -> tuple[Integers, Integers]:
    """Expand half-open spans: return the span of each position, and the position, both (positions,)."""
    length = stop - first
    span = np.repeat(np.arange(len(length)), length)
    return span, np.arange(len(span)) + (first - np.cumsum(length) + length)[span]
