"""What annotations say of clips, as targets and label weights of their cells."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from callboard.fold_data import CONFIRMED, REJECTED, FoldData, Integers
from callboard.targets import Targets

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
