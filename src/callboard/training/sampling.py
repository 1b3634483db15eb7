"""Recordings or windows that an epoch shows, in order."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from callboard.features.windows import Windows, windows_from
from callboard.params.training import TrainParams
from callboard.training.fold_data import REJECTED, Annotations, FoldData, Integers
from callboard.training.targets import find_labels

ROUNDING = 1e-9
"""Tolerance that keeps a whole number of clips whole: 0.28 · 25 is 7.000…1."""


class Items(NamedTuple):
    """Recordings to cut a clip from, and the kind of annotation to cut it around."""

    recording: Integers
    """(items,) rows of the cache."""
    is_fp: NDArray[np.bool_]
    """(items,) whether to cut around an FP annotation; else around a TP one, or a pseudo one without TP."""


def draw_items(annotations: Annotations, fp_per_epoch: int, rng: np.random.Generator) -> Items:
    """Draw an epoch in random order: recordings with a positive clip, and `fp_per_epoch` with FP (or all)."""
    positive = np.flatnonzero(annotations.has_positive_clip)
    fp = draw_fp(annotations, fp_per_epoch, rng)
    order = rng.permutation(len(positive) + len(fp))
    return Items(np.concatenate([positive, fp])[order], (order >= len(positive)))


def draw_fp(annotations: Annotations, fp_per_epoch: int, rng: np.random.Generator) -> Integers:
    """Draw `fp_per_epoch` recordings with an FP annotation, all if there are fewer."""
    fp = np.flatnonzero(annotations.n_fp)
    return rng.choice(fp, min(fp_per_epoch, len(fp)), replace=False)


def batch_bounds(n_items: int, batch_size: int) -> list[slice]:
    """Split items into consecutive batches of `batch_size`, the last one shorter.

    A single leftover joins the batch before it, since batch normalisation cannot use a batch of one.
    """
    starts = list(range(0, n_items, batch_size))
    if len(starts) > 1 and n_items - starts[-1] == 1:
        starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], n_items], strict=True)]


class Streams(NamedTuple):
    """Random streams for the windows of an epoch."""

    fp: np.random.Generator
    phase: np.random.Generator
    order: np.random.Generator


def draw_windows(data: FoldData, clip_frames: int, train: TrainParams, streams: Streams) -> Windows:
    """Draw an epoch's windows in random order.

    Shown are recordings with a TP annotation or with only pseudo-labels, and `fp_per_epoch` with FP, each
    recording once. `skip_unlabeled` and `labeled_share` leave out some of the windows.
    """
    fp = draw_fp(data.annotations, train.fp_per_epoch, streams.fp)
    shown = np.union1d(np.flatnonzero(data.annotations.has_window), fp)
    phase = streams.phase.integers(clip_frames, size=len(data.n_frames))
    position, start = windows_from(data.n_frames[shown], clip_frames, phase[shown])
    recording = shown[position]
    labels = find_labels(data, recording, start, clip_frames)
    if train.skip_unlabeled:
        kept = np.flatnonzero(labels.clips_with(labels.is_of_clip, len(recording)))
    else:
        kept = np.arange(len(recording))
    has_expert = labels.clips_with(labels.verdict >= REJECTED, len(recording))[kept]
    order = kept[draw_order(has_expert, train.labeled_share, train.batch_size, streams.order)]
    return Windows(recording[order], start[order])


def draw_order(
    has_expert: NDArray[np.bool_], share: float | None, batch_size: int, rng: np.random.Generator
) -> Integers:
    """Return a random order of all windows, or of as many as give those with an annotation their share.

    Args:
        has_expert: (windows,) whether a TP or FP annotation is in the window; these are all kept.
        share: Least share of these in each batch; as many of the others are drawn as fit, spread evenly over
            batches. None: all windows, whatever their share.
        batch_size: As for `batch_bounds`.
        rng: For the draw and the order.
    """
    if share is None:
        return rng.permutation(len(has_expert))
    kept, others = (rng.permutation(np.flatnonzero(wanted)) for wanted in (has_expert, ~has_expert))

    def rooms(n_others: int) -> tuple[Integers, Integers]:
        """Return (batches,) sizes, and how many others fit in each."""
        bounds = batch_bounds(len(kept) + n_others, batch_size)
        size = np.array([bound.stop - bound.start for bound in bounds], dtype=np.int64)
        return size, size - np.ceil(share * size - ROUNDING).astype(np.int64)

    n_others = len(others)
    while n_others > (n_fitting := int(rooms(n_others)[1].sum())):
        n_others = n_fitting
    size, room = rooms(n_others)
    drawn = np.diff(np.cumsum(room) * n_others // max(room.sum(), 1), prepend=0)
    is_other = np.repeat(np.tile([False, True], len(size)), np.stack([size - drawn, drawn], axis=1).ravel())
    order = np.empty(len(is_other), dtype=np.int64)
    order[~is_other], order[is_other] = kept, others[:n_others]
    return order
