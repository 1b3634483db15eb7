"""Batches of training clips: what an epoch shows, where clips are cut, what they are compared with.

Nothing here keeps state: everything drawn for a batch is a function of (seed, fold, epoch, batch), so neither
the number of threads, nor the order of folds, nor an interruption changes a number.
"""

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from callboard.augment import Augment, Place
from callboard.errors import UserError
from callboard.image import to_unit
from callboard.losses import Targets
from callboard.mel_cache import MelCache
from callboard.mixup import Mixing, draw_mixing
from callboard.params.base import Params, Seed
from callboard.params.training import AugmentParams, ClipParams, MixupParams, TrainParams
from callboard.presence import species_presence
from callboard.workers import ahead

Integers = NDArray[np.int64]
Frames = NDArray[np.uint8] | Tensor
"""The packed frames (total_frames, mels) of a cache, mapped from disk or on a device."""

MAX_SEED = 2**63
"""Above every seed that torch takes."""

COPIED_FRAMES = 2**18
"""Frames copied to a GPU at a time: 32 MB at 128 mels."""

KINDS = ("tp", "fp", "pseudo")
"""Label types in the order in which a recording's annotations are kept."""


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


class Annotations(NamedTuple):
    """Annotations of training recordings: a row per recording of the cache, TP first, then FP, pseudo."""

    start: Integers
    """(recordings, annotations) first frame, in the recording."""
    stop: Integers
    """(recordings, annotations) frame after the last; padding stops where it starts."""
    species: Integers
    """(recordings, annotations) position on the class axis."""
    is_fp: NDArray[np.bool_]
    """(recordings, annotations)."""
    n_tp: Integers
    """(recordings,)."""
    n_fp: Integers
    """(recordings,)."""


@dataclass(frozen=True)
class FoldData:
    """What one fold is trained and validated on; `annotations` has none of a validation recording."""

    frames: Frames
    first_frame: Integers
    """(recordings,) where each recording of the cache begins in `frames`."""
    n_frames: Integers
    """(recordings,) its length."""
    annotations: Annotations
    n_tp_annotations: Integers
    """(species,) TP annotations of the training part."""
    validation: Integers
    """Recordings of the validation part with a TP annotation, as rows of the cache."""
    is_present: NDArray[np.bool_]
    """(validation recordings, species): a TP annotation somewhere in the recording."""

    @property
    def n_species(self) -> int:
        """Length of the class axis."""
        return len(self.n_tp_annotations)

    def count_items(self, fp_per_epoch: int) -> int:
        """Clips per epoch."""
        n_tp, n_fp = (
            int(np.count_nonzero(counts)) for counts in (self.annotations.n_tp, self.annotations.n_fp)
        )
        return n_tp + min(fp_per_epoch, n_fp)


def select_fold(
    cache: MelCache, clips: pd.DataFrame, folds: pd.DataFrame, fold: int, species: list[str]
) -> FoldData:
    """The data of one fold.

    Args:
        cache: Frames of the training recordings.
        clips: TP, FP and pseudo annotations with their frame spans.
        folds: recording_id, fold.
        fold: The validation part; all other folds are the training part.
        species: The class axis.

    Raises:
        UserError: the folds table lacks the fold or an annotated recording, an annotated species is unknown,
            or the training part has no TP annotation.
    """
    fold_of = dict(zip(folds["recording_id"], folds["fold"], strict=True))
    _refuse_unknown(clips, fold_of, species)
    if fold not in fold_of.values():
        raise UserError(f"fold {fold} is not in the folds table, which has {sorted(set(fold_of.values()))}")
    is_validation = clips["recording_id"].map(fold_of) == fold
    is_tp = clips["label_type"] == "tp"
    if not (is_tp & ~is_validation).any():
        raise UserError(f"fold {fold}: its training part has no TP annotation, so there is nothing to learn")
    validated = clips[is_validation & is_tp]
    recording_ids = sorted(set(validated["recording_id"]))
    training = clips[~is_validation]
    return FoldData(
        frames=cache.frames,
        first_frame=cache.offsets,
        n_frames=cache.n_frames,
        annotations=_pad_annotations(training, cache, species),
        n_tp_annotations=_count_species(training[training["label_type"] == "tp"], species),
        validation=np.array([cache.row(recording_id) for recording_id in recording_ids], dtype=np.int64),
        is_present=species_presence(validated, recording_ids, species),
    )


def _refuse_unknown(clips: pd.DataFrame, fold_of: dict[str, int], species: list[str]) -> None:
    for column, known, table in (("recording_id", fold_of, "folds"), ("species_id", species, "species")):
        unknown = clips[~clips[column].isin(list(known))]
        if not unknown.empty:
            row = unknown.iloc[0]
            raise UserError(
                f"{len(unknown)} annotation(s) have a {column} that the {table} table lacks, first: "
                f"{row['label_type']} of species {row['species_id']} in recording {row['recording_id']}"
            )
    if bad := sorted(set(clips["label_type"]) - set(KINDS)):
        raise UserError(f"label_type must be one of {', '.join(KINDS)}, found {', '.join(bad)}")


def _count_species(annotations: pd.DataFrame, species: list[str]) -> Integers:
    return np.bincount(
        pd.Index(species).get_indexer(pd.Index(annotations["species_id"])), minlength=len(species)
    )


def _pad_annotations(clips: pd.DataFrame, cache: MelCache, species: list[str]) -> Annotations:
    row = np.array([cache.row(recording_id) for recording_id in clips["recording_id"]], dtype=np.int64)
    kind = clips["label_type"].map(KINDS.index).to_numpy()
    order = np.lexsort((kind, row))
    row, kind = row[order], kind[order]
    n_annotations = np.bincount(row, minlength=len(cache))
    slot = np.arange(len(row)) - np.repeat(np.cumsum(n_annotations) - n_annotations, n_annotations)
    padded = np.zeros((4, len(cache), n_annotations.max()), dtype=np.int64)
    padded[0, row, slot] = clips["start_frame"].to_numpy()[order]
    padded[1, row, slot] = clips["stop_frame"].to_numpy()[order]
    padded[2, row, slot] = pd.Index(species).get_indexer(pd.Index(clips["species_id"]))[order]
    padded[3, row, slot] = kind == KINDS.index("fp")
    n_tp, n_fp = (np.bincount(row[kind == KINDS.index(name)], minlength=len(cache)) for name in ("tp", "fp"))
    return Annotations(padded[0], padded[1], padded[2], padded[3].astype(bool), n_tp, n_fp)


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


def copy_frames(frames: NDArray[np.uint8], device: torch.device) -> Tensor:
    """All frames on `device`, a piece at a time so that the whole is never in this process's memory."""
    copied = torch.empty(frames.shape, dtype=torch.uint8, device=device)
    for first in range(0, len(frames), COPIED_FRAMES):
        piece = slice(first, first + COPIED_FRAMES)
        copied[piece] = torch.from_numpy(np.array(frames[piece])).to(device)
    _release_pages(frames)
    return copied


class Items(NamedTuple):
    """Recordings to cut a clip from, and around which kind of annotation."""

    recording: Integers
    """(items,) rows of the cache."""
    is_fp: NDArray[np.bool_]
    """(items,) around an FP annotation, else around a TP one."""


def draw_items(annotations: Annotations, fp_per_epoch: int, rng: np.random.Generator) -> Items:
    """An epoch in random order: every recording with TP, and `fp_per_epoch` with FP (all where fewer)."""
    tp = np.flatnonzero(annotations.n_tp)
    fp = np.flatnonzero(annotations.n_fp)
    fp = rng.choice(fp, min(fp_per_epoch, len(fp)), replace=False)
    order = rng.permutation(len(tp) + len(fp))
    return Items(np.concatenate([tp, fp])[order], (order >= len(tp)))


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
    n_tp, n_fp = annotations.n_tp[items.recording], annotations.n_fp[items.recording]
    draw, offset_draw = rng.random((2, len(items.recording)))
    slot = np.where(items.is_fp, n_tp + (draw * n_fp).astype(np.int64), (draw * n_tp).astype(np.int64))
    span = annotations.start[items.recording, slot], annotations.stop[items.recording, slot]
    centre = (span[0] + span[1]) // 2
    offsets = np.sort(clip.offsets)
    n_fitting = (offsets < centre[:, None]).sum(axis=1)
    start = centre - np.where(n_fitting > 0, offsets[(offset_draw * n_fitting).astype(np.int64)], centre)
    last: Integers = np.maximum(data.n_frames[items.recording] - clip.n_frames, 0)
    first: Integers = np.minimum(start, last)
    return first


CLIP_STARTS: dict[str, Callable[[FoldData, Items, ClipParams, np.random.Generator], Integers]] = {
    "event": event_starts,
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
        _release_pages(frames)
    is_short = n_valid < n_frames
    if is_short.any():
        beyond = torch.from_numpy(np.arange(n_frames) >= n_valid[:, None]).to(device)
        clips = clips.masked_fill(beyond.unsqueeze(2), 0)
    return clips


def _release_pages(frames: NDArray[np.uint8]) -> None:
    """Pages of a mapped file count as this process's memory once touched; the system still caches them."""
    if isinstance(frames, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
        frames._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def build_targets(
    data: FoldData, recording: Integers, start: Integers, n_frames: int, device: torch.device
) -> Targets:
    """What the clips are compared with: every TP or pseudo annotation is positive where it is in the clip.

    FP annotations make labelled negatives; where a TP covers the same cell, the TP wins.

    Args:
        data: Of the fold.
        recording: (clips,) rows of the cache.
        start: (clips,) first frame of each clip in its recording.
        n_frames: Length of a clip.
        device: Where the targets are wanted.
    """
    annotations = data.annotations
    first = np.clip(annotations.start[recording] - start[:, None], 0, n_frames)
    stop = np.clip(annotations.stop[recording] - start[:, None], 0, n_frames)
    clip, slot = np.nonzero(stop > first)
    first, length = first[clip, slot], (stop - first)[clip, slot]
    rows = np.repeat(np.arange(len(clip)), length)  # an annotation's row once for each of its frames
    frame = np.arange(len(rows)) + (first - np.cumsum(length) + length)[rows]
    cells = np.stack([clip[rows], frame, annotations.species[recording[clip], slot][rows]])
    positive_cells = cells[:, ~annotations.is_fp[recording[clip], slot][rows]]
    by_frame, by_clip = (len(recording), n_frames, data.n_species), (len(recording), data.n_species)
    return Targets(
        clip=_ones_at(positive_cells[::2], by_clip, device),
        frame=_ones_at(positive_cells, by_frame, device),
        clip_labeled=_ones_at(cells[::2], by_clip, device),
        frame_labeled=_ones_at(cells, by_frame, device),
    )


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
        frames = gather_clips(data.frames, first_frame, recording_frames - start, clip.n_frames, self.device)
        generator = torch.Generator().manual_seed(moment.torch_seed(Purpose.AUGMENT))
        place = Place(torch.from_numpy(start), torch.from_numpy(recording_frames))
        return Batch(
            image=self.augment(to_unit(frames), place, generator),
            targets=build_targets(data, items.recording, start, clip.n_frames, self.device),
            mixing=draw_mixing(self.params.mixup, len(start), moment.rng(Purpose.MIXUP)),
        )
