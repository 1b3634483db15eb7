"""Batches of training clips: what an epoch shows, where clips are cut, what they are compared with.

Nothing here keeps state: everything drawn for a batch is a function of (seed, fold, epoch, batch), so neither
the number of threads, nor the order of folds, nor an interruption changes a number.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from callboard.augment import Augment, Place
from callboard.fold_data import Annotations, FoldData, Frames, Integers
from callboard.image import to_unit
from callboard.mel_cache import MappedFrames, release_pages
from callboard.mixup import Mixing, draw_mixing
from callboard.params.base import Params, Seed
from callboard.params.training import AugmentParams, ClipParams, MixupParams, TrainParams
from callboard.targets import Targets
from callboard.windows import clip_length
from callboard.workers import ahead

MAX_SEED = 2**63
"""Above every seed that torch takes."""

COPIED_FRAMES = 2**18
"""Frames copied to a GPU at a time: 32 MB at 128 mels."""


class BatchParams(Params):
    """What batches are made by."""

    seed: Seed
    clip: ClipParams
    augment: AugmentParams
    mixup: MixupParams
    train: TrainParams


class Purpose(IntEnum):
    """What a stream of random numbers is for: switching one off leaves the others as they were."""

    WEIGHTS = 0
    DROPOUT = 1
    ITEMS = 2
    CLIPS = 3
    AUGMENT = 4
    MIXUP = 5


class Moment(NamedTuple):
    """A point in the training of one fold; epochs and batches count from 0."""

    seed: int
    fold: int
    epoch: int = 0
    batch: int = 0

    def rng(self, purpose: Purpose) -> np.random.Generator:
        """The stream of random numbers for `purpose` at this moment."""
        return np.random.default_rng((self.seed, self.fold, self.epoch, self.batch, purpose))

    def torch_seed(self, purpose: Purpose) -> int:
        """The same as a seed for torch's generators."""
        return int(self.rng(purpose).integers(MAX_SEED))


def on_device(data: FoldData, device: torch.device) -> FoldData:
    """The same with the frames in a GPU's memory, if there is one with room for them twice over."""
    if device.type != "cuda" or isinstance(data.frames, Tensor):
        return data
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return (
        replace(data, frames=copy_frames(data.frames, device))
        if 2 * data.frames.nbytes < free_bytes
        else data
    )


def copy_frames(frames: MappedFrames, device: torch.device) -> Tensor:
    """All frames on `device`, a piece at a time so that the whole is never in this process's memory."""
    copied = torch.empty(frames.shape, dtype=torch.uint8, device=device)
    for first in range(0, len(frames), COPIED_FRAMES):
        piece = slice(first, first + COPIED_FRAMES)
        copied[piece] = torch.from_numpy(np.array(frames[piece])).to(device)
    release_pages(frames)
    return copied


class Items(NamedTuple):
    """Recordings to cut a clip from, and around which kind of annotation."""

    recording: Integers
    """(items,) rows of the cache."""
    is_fp: NDArray[np.bool_]
    """(items,) around an FP annotation; else around a TP one, or a pseudo one where there is no other."""


def draw_items(annotations: Annotations, fp_per_epoch: int, rng: np.random.Generator) -> Items:
    """An epoch in random order: those with a positive clip, and `fp_per_epoch` with FP (all if fewer)."""
    positive = np.flatnonzero(annotations.has_positive_clip)
    fp = np.flatnonzero(annotations.n_fp)
    fp = rng.choice(fp, min(fp_per_epoch, len(fp)), replace=False)
    order = rng.permutation(len(positive) + len(fp))
    return Items(np.concatenate([positive, fp])[order], (order >= len(positive)))


def batch_bounds(n_items: int, batch_size: int) -> list[slice]:
    """Consecutive batches of `batch_size`, the last one shorter; a single leftover joins the batch before it.

    Batch normalisation has no use for a batch of one.
    """
    starts = list(range(0, n_items, batch_size))
    if len(starts) > 1 and n_items - starts[-1] == 1:
        starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], n_items], strict=True)]


def event_starts(data: FoldData, items: Items, clip: ClipParams, rng: np.random.Generator) -> Integers:
    """(items,) first frames of clips around a random annotation of each recording.

    The annotation's centre lies one of `clip.offsets` after the clip's start, drawn from those that leave the
    start behind the recording's first frame; where none does, the clip starts with the recording. A clip that
    would run over the end is moved back.
    """
    annotations = data.annotations
    n_tp, n_fp, n_pseudo = (counts[items.recording] for counts in annotations[-3:])
    draw, offset_draw = rng.random((2, len(items.recording)))
    n_slots = np.where(items.is_fp, n_fp, np.where(n_tp > 0, n_tp, n_pseudo))
    slot = np.where(items.is_fp, n_tp, 0) + (draw * n_slots).astype(np.int64)
    span = annotations.start[items.recording, slot], annotations.stop[items.recording, slot]
    centre = (span[0] + span[1]) // 2
    offsets = np.sort(clip.offsets)
    n_fitting = (offsets < centre[:, None]).sum(axis=1)
    start = centre - np.where(n_fitting > 0, offsets[(offset_draw * n_fitting).astype(np.int64)], centre)
    last: Integers = np.maximum(data.n_frames[items.recording] - clip.n_frames, 0)
    first: Integers = np.minimum(start, last)
    return first


def whole_recordings(data: FoldData, items: Items, clip: ClipParams, rng: np.random.Generator) -> Integers:
    """(items,) zeros: clips are as long as the longest recording, so each shows all of its own."""
    return np.zeros(len(items.recording), dtype=np.int64)


CLIP_STARTS: dict[str, Callable[[FoldData, Items, ClipParams, np.random.Generator], Integers]] = {
    "event": event_starts,
    "full": whole_recordings,
}


def gather_clips(
    frames: Frames, first_frame: Integers, n_valid: Integers, n_frames: int, device: torch.device
) -> Tensor:
    """Clips (clips, n_frames, mels), uint8 on `device`; behind a recording's end they are 0, its quietest.

    Args:
        frames: Packed frames; gathered where they lie.
        first_frame: (clips,) first frame of each clip in `frames`.
        n_valid: (clips,) frames from there to the recording's end, at least 1.
        n_frames: Length of a clip.
        device: Where the clips are wanted.
    """
    position = np.minimum(np.arange(n_frames), n_valid[:, None] - 1)
    index = first_frame[:, None] + position
    if isinstance(frames, Tensor):
        clips = frames[torch.from_numpy(index).to(frames.device)].to(device)
    else:
        clips = torch.from_numpy(np.asarray(frames[index])).to(device)
        release_pages(frames)
    is_short = n_valid < n_frames
    if is_short.any():
        beyond = torch.from_numpy(np.arange(n_frames) >= n_valid[:, None]).to(device)
        clips = clips.masked_fill(beyond.unsqueeze(2), 0)
    return clips


def build_targets(
    data: FoldData, recording: Integers, start: Integers, n_frames: int, mels: slice, device: torch.device
) -> Targets:
    """What the clips are compared with: every TP or pseudo annotation is positive where it is in the clip.

    FP annotations make labelled negatives; where a TP covers the same cell, the TP wins. The mel rows of an
    annotation count if some frame of it is in the clip.

    Args:
        data: Of the fold.
        recording: (clips,) rows of the cache.
        start: (clips,) first frame of each clip in its recording.
        n_frames: Length of a clip.
        mels: Of the filterbank's rows, those that a clip shows.
        device: Where the targets are wanted.
    """
    annotations = data.annotations
    first, stop = (np.clip(edge[recording] - start[:, None], 0, n_frames) for edge in annotations[:2])
    clip, slot = np.nonzero(stop > first)
    row = recording[clip], slot
    lowest, highest, _ = mels.indices(data.frames.shape[1])
    low, high = (np.clip(edge[row] - lowest, 0, highest - lowest) for edge in annotations[2:4])
    species, is_fp = annotations.species[row], annotations.is_fp[row]

    def mark(span: Integers, position: Integers, length: int) -> tuple[Tensor, Tensor]:
        """Positive and labelled cells (clips, length, species), given as annotations and positions."""
        cells = np.stack([clip[span], position, species[span]])
        shape = len(recording), length, data.n_classes
        return _ones_at(cells[:, ~is_fp[span]], shape, device), _ones_at(cells, shape, device)

    once = np.arange(len(clip))
    by_clip, clip_labeled = (cells.squeeze(1) for cells in mark(once, np.zeros_like(once), 1))
    frame, frame_labeled = mark(*_positions(first[clip, slot], stop[clip, slot]), n_frames)
    band, band_labeled = mark(*_positions(low, high), highest - lowest)
    return Targets(by_clip, frame, clip_labeled, frame_labeled, band, band_labeled)


def _positions(first: Integers, stop: Integers) -> tuple[Integers, Integers]:
    """Half-open spans to the span that each of their positions is of, and the position: both (positions,)."""
    length = stop - first
    span = np.repeat(np.arange(len(length)), length)
    return span, np.arange(len(span)) + (first - np.cumsum(length) + length)[span]


def _ones_at(cells: Integers, shape: tuple[int, ...], device: torch.device) -> Tensor:
    zeros = torch.zeros(shape, device=device)
    zeros[torch.from_numpy(cells.copy()).to(device).unbind()] = 1.0
    return zeros


class Batch(NamedTuple):
    """One training step's input, on the device."""

    image: Tensor
    """(clips, frames, mels), augmented and normalised."""
    targets: Targets
    mixing: Mixing


class BatchSource:
    """Makes the batches of one fold."""

    def __init__(
        self, data: FoldData, params: BatchParams, fold: int, device: torch.device, n_threads: int
    ) -> None:
        self.data = data
        self.params = params
        self.moment = Moment(params.seed, fold)
        self.device = device
        self.n_threads = n_threads
        self.augment = Augment(params.augment)
        self.clip_frames = clip_length(params.clip, data.n_frames)
        self.n_items = data.count_items(params.train.fp_per_epoch)
        self.bounds = batch_bounds(self.n_items, params.train.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch in order, prepared ahead on threads."""
        moment = self.moment._replace(epoch=epoch)
        items = draw_items(self.data.annotations, self.params.train.fp_per_epoch, moment.rng(Purpose.ITEMS))

        def make(batch: int) -> Batch:
            part = self.bounds[batch]
            return self.make(Items(items.recording[part], items.is_fp[part]), moment._replace(batch=batch))

        return ahead(make, range(len(self.bounds)), self.n_threads, self.n_threads + 1)

    def make(self, items: Items, moment: Moment) -> Batch:
        """The batch of `items`, drawn as of `moment`."""
        data, clip = self.data, self.params.clip
        start = CLIP_STARTS[clip.mode](data, items, clip, moment.rng(Purpose.CLIPS))
        recording_frames = data.n_frames[items.recording]
        first_frame = data.first_frame[items.recording] + start
        n_valid = recording_frames - start
        frames = gather_clips(data.frames, first_frame, n_valid, self.clip_frames, self.device)
        mels = clip.visible_mels
        generator = torch.Generator().manual_seed(moment.torch_seed(Purpose.AUGMENT))
        place = Place(torch.from_numpy(start), torch.from_numpy(recording_frames))
        return Batch(
            image=self.augment(to_unit(frames[..., mels]), place, generator),
            targets=build_targets(data, items.recording, start, self.clip_frames, mels, self.device),
            mixing=draw_mixing(self.params.mixup, len(start), moment.rng(Purpose.MIXUP)),
        )
