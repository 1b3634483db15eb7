"""Training batches: where clips are cut, and their targets.

Nothing here keeps state: all random draws for a batch depend only on its RngKey.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from callboard.core.threads import ahead
from callboard.features.augment import Augment, Place
from callboard.features.frame_cache import MappedFrames, release_pages
from callboard.features.normalisation import to_unit
from callboard.features.transfer import to_device
from callboard.features.windows import Windows, clip_length
from callboard.params.base import DEFAULT_SEED, Params, Seed
from callboard.params.training import AugmentParams, ClipParams, MixupParams, TrainParams
from callboard.training.fold_data import FoldData, Frames, Integers
from callboard.training.mixup import Mixing, draw_mixing
from callboard.training.randomness import Purpose, RngKey
from callboard.training.sampling import Items, Streams, batch_bounds, draw_items, draw_windows
from callboard.training.targets import Targets, build_targets

COPIED_FRAMES = 2**18
"""Frames copied to a GPU at a time: 32 MB at 128 mels."""


class BatchParams(Params):
    """Parameters that batches depend on."""

    seed: Seed = DEFAULT_SEED
    clip: ClipParams
    augment: AugmentParams
    mixup: MixupParams
    train: TrainParams


def on_device(data: FoldData, device: torch.device) -> FoldData:
    """Copy the frames to GPU memory if more than twice their size is free; else return `data` unchanged."""
    if device.type != "cuda" or isinstance(data.frames, Tensor):
        return data
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return (
        replace(data, frames=copy_frames(data.frames, device))
        if 2 * data.frames.nbytes < free_bytes
        else data
    )


def copy_frames(frames: MappedFrames, device: torch.device) -> Tensor:
    """Copy all frames to `device` in pieces, so that the whole is never in this process's memory."""
    copied = torch.empty(frames.shape, dtype=torch.uint8, device=device)
    for first in range(0, len(frames), COPIED_FRAMES):
        piece = slice(first, first + COPIED_FRAMES)
        copied[piece] = torch.from_numpy(np.array(frames[piece])).to(device)
    release_pages(frames)
    return copied


def event_starts(data: FoldData, items: Items, clip: ClipParams, rng: np.random.Generator) -> Integers:
    """Return (items,) first frames of clips around a random annotation of each recording.

    The annotation's centre is one of `clip.offsets` after the clip's start, drawn from those that put the
    start after the recording's first frame; if none does, the clip starts with the recording. A clip that
    would run past the end is moved back. Around an annotation of the whole recording, a clip may be anywhere.
    """
    annotations = data.annotations
    counts = annotations.n_tp, annotations.n_fp, annotations.n_pseudo
    n_tp, n_fp, n_pseudo = (count[items.recording] for count in counts)
    draw, offset_draw = rng.random((2, len(items.recording)))
    n_slots = np.where(items.is_fp, n_fp, np.where(n_tp > 0, n_tp, n_pseudo))
    place = draw * n_slots
    slot = np.where(items.is_fp, n_tp, 0) + place.astype(np.int64)
    first, stop = annotations.start[items.recording, slot], annotations.stop[items.recording, slot]
    last: Integers = np.maximum(data.n_frames[items.recording] - clip.n_frames, 0)
    excess = np.where(stop - first < data.n_frames[items.recording], 0, last)
    centre = (first + stop - excess) // 2 + (place % 1 * (excess + 1)).astype(np.int64)
    offsets = np.sort(clip.offsets)
    n_fitting = (offsets < centre[:, None]).sum(axis=1)
    start = centre - np.where(n_fitting > 0, offsets[(offset_draw * n_fitting).astype(np.int64)], centre)
    clipped: Integers = np.minimum(start, last)
    return clipped


def whole_recordings(data: FoldData, items: Items, clip: ClipParams, rng: np.random.Generator) -> Integers:
    """Return (items,) zeros: clips are as long as the longest recording, so each shows a whole recording."""
    return np.zeros(len(items.recording), dtype=np.int64)


CLIP_STARTS: dict[str, Callable[[FoldData, Items, ClipParams, np.random.Generator], Integers]] = {
    "event": event_starts,
    "full": whole_recordings,
}


def gather_clips(
    frames: Frames, first_frame: Integers, n_valid: Integers, n_frames: int, device: torch.device
) -> Tensor:
    """Gather clips (clips, n_frames, mels), uint8 on `device`; 0, the quietest level, past a recording's end.

    Args:
        frames: Packed frames; gathered on the device that holds them.
        first_frame: (clips,) first frame of each clip in `frames`.
        n_valid: (clips,) frames from there to the recording's end, at least 1.
        n_frames: Length of a clip.
        device: Device of the clips.
    """
    home = frames.device if isinstance(frames, Tensor) else torch.device("cpu")
    first, valid = to_device(torch.from_numpy(np.stack([first_frame, n_valid])), home).unsqueeze(2)
    position = torch.arange(n_frames, device=home)
    index = first + torch.minimum(position, valid - 1)
    if isinstance(frames, Tensor):
        clips = to_device(frames[index], device)
    else:
        clips = to_device(torch.from_numpy(np.asarray(frames[index.numpy()])), device)
        release_pages(frames)
    if (n_valid < n_frames).any():
        clips = clips.masked_fill(to_device(position >= valid, device).unsqueeze(2), 0)
    return clips


class Batch(NamedTuple):
    """Input of one training step, on the device."""

    image: Tensor
    """(clips, frames, mels), augmented and normalised."""
    targets: Targets
    mixing: Mixing


class EpochPlan(NamedTuple):
    """Clips of one epoch, batch by batch."""

    bounds: list[slice]
    """Items of each batch."""
    cut: Callable[[int], Windows]
    """Maps a batch, counted from 0, to where its clips are cut."""


def show_annotations(data: FoldData, params: BatchParams, moment: RngKey) -> EpochPlan:
    """Plan one clip of each drawn recording, cut when its batch is made."""
    items = draw_items(data.annotations, params.train.fp_per_epoch, moment.rng(Purpose.ITEMS))
    bounds = batch_bounds(len(items.recording), params.train.batch_size)

    def cut(batch: int) -> Windows:
        part = Items(items.recording[bounds[batch]], items.is_fp[bounds[batch]])
        rng = moment._replace(batch=batch).rng(Purpose.CLIPS)
        return Windows(part.recording, CLIP_STARTS[params.clip.mode](data, part, params.clip, rng))

    return EpochPlan(bounds, cut)


def show_windows(data: FoldData, params: BatchParams, moment: RngKey) -> EpochPlan:
    """Plan windows of recordings, drawn for the whole epoch at once."""
    streams = Streams(*map(moment.rng, (Purpose.ITEMS, Purpose.PHASES, Purpose.ORDER)))
    windows = draw_windows(data, clip_length(params.clip, data.n_frames), params.train, streams)
    bounds = batch_bounds(len(windows.recording), params.train.batch_size)
    return EpochPlan(bounds, lambda batch: Windows._make(column[bounds[batch]] for column in windows))


EPOCH_PLANS: dict[str, Callable[[FoldData, BatchParams, RngKey], EpochPlan]] = {
    "annotations": show_annotations,
    "windows": show_windows,
}
"""Epoch plans by `train.items`."""


class EpochBatches(Iterator[Batch]):
    """Batches of an epoch in order, with the numbers of clips and batches."""

    def __init__(self, bounds: list[slice], batches: Iterator[Batch]) -> None:
        self.n_items = bounds[-1].stop
        self.n_batches = len(bounds)
        self._batches = batches

    def __next__(self) -> Batch:
        return next(self._batches)


class BatchSource:
    """Builder of the batches of one fold."""

    def __init__(
        self, data: FoldData, params: BatchParams, fold: int, device: torch.device, n_threads: int
    ) -> None:
        self.data = data
        self.params = params
        self.moment = RngKey(params.seed, fold)
        self.device = device
        self.n_threads = n_threads
        self.augment = Augment(params.augment)
        self.clip_frames = clip_length(params.clip, data.n_frames)

    @property
    def n_mels(self) -> int:
        """Number of mel rows of an image."""
        return len(range(self.data.frames.shape[1])[self.params.clip.visible_mels])

    def epoch(self, epoch: int) -> EpochBatches:
        """Return the batches of an epoch, prepared ahead on threads."""
        moment = self.moment._replace(epoch=epoch)
        shown = EPOCH_PLANS[self.params.train.items](self.data, self.params, moment)

        def make(batch: int) -> Batch:
            return self.make(shown.cut(batch), moment._replace(batch=batch))

        n_batches = len(shown.bounds)
        return EpochBatches(shown.bounds, ahead(make, range(n_batches), self.n_threads, self.n_threads + 1))

    def make(self, clips: Windows, moment: RngKey) -> Batch:
        """Make the batch of `clips`, with the random draws of `moment`."""
        data, mels = self.data, self.params.clip.visible_mels
        recording, start = clips
        recording_frames = data.n_frames[recording]
        first_frame = data.first_frame[recording] + start
        n_valid = recording_frames - start
        frames = gather_clips(data.frames, first_frame, n_valid, self.clip_frames, self.device)
        generator = torch.Generator().manual_seed(moment.torch_seed(Purpose.AUGMENT))
        place = Place(torch.from_numpy(start), torch.from_numpy(recording_frames))
        pseudo_weight = self.params.train.pseudo_weight
        return Batch(
            image=self.augment(to_unit(frames[..., mels]), place, generator),
            targets=build_targets(data, recording, start, self.clip_frames, mels, self.device, pseudo_weight),
            mixing=draw_mixing(self.params.mixup, len(start), moment.rng(Purpose.MIXUP), self.device),
        )
