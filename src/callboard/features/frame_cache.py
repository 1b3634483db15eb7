"""One packed file of frames per set, read in place by training and prediction: log-mel, or embeddings.

`mel.npy` holds uint8 frames, (total_frames, n_mels), one recording after another; `index.csv` says where each
begins. Time comes before frequency, so that a clip is one contiguous piece of the file.
"""

import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self
from zlib import crc32

import numpy as np
import pandas as pd
from numpy.lib import format as npy
from numpy.typing import NDArray

from callboard.core.errors import UserError
from callboard.data.annotations import read_table, typed

INDEX_DTYPES = {
    "recording_id": "str",
    "offset": "int64",
    "n_frames": "int64",
    "db_min": "float64",
    "db_max": "float64",
    "crc32": "int64",
}
"""Columns of `index.csv`; with the checksum of its frames, the index changes whenever the frames do."""


class EncodedRecording(NamedTuple):
    """The frames of one recording: value v stands for db_min + v / 255 * (db_max - db_min).

    That is in dB where frames are log-mel. Where they are embeddings, the range is the same for all
    recordings, and mels here and below are numbers of an embedding.
    """

    recording_id: str
    frames: NDArray[np.uint8]
    """(n_frames, n_mels)."""
    db_min: float
    db_max: float


@dataclass(frozen=True)
class MelCache:
    """A set of recordings as uint8 frames, opened for reading."""

    folder: Path
    recording_ids: list[str]
    offsets: NDArray[np.int64]
    """(recordings,) first frame of each recording in the packed file."""
    n_frames: NDArray[np.int64]
    """(recordings,)."""
    db_min: NDArray[np.float64]
    db_max: NDArray[np.float64]
    n_mels: int

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The cache in `folder`.

        Raises:
            UserError: a file is missing, or `mel.npy` is not what `index.csv` describes.
        """
        index = read_index(folder)
        shape, _ = _read_header(folder)
        if shape[0] != (counted := index["n_frames"].sum()):
            raise UserError(
                f"{folder}: mel.npy holds {shape[0]} frames, index.csv counts {counted}; run crop again"
            )
        return cls(
            folder=folder,
            recording_ids=index["recording_id"].tolist(),
            offsets=index["offset"].to_numpy(),
            n_frames=index["n_frames"].to_numpy(),
            db_min=index["db_min"].to_numpy(),
            db_max=index["db_max"].to_numpy(),
            n_mels=shape[1],
        )

    def __len__(self) -> int:
        return len(self.recording_ids)

    @cached_property
    def frames(self) -> NDArray[np.uint8]:
        """(total_frames, n_mels), mapped from disk: pages that are touched count as resident memory."""
        if len(self) == 0:
            return np.empty((0, self.n_mels), np.uint8)
        frames: NDArray[np.uint8] = np.load(self.folder / "mel.npy", mmap_mode="r")
        return frames

    def row(self, recording_id: str) -> int:
        """Position of a recording in the index.

        Raises:
            UserError: the cache has no such recording.
        """
        try:
            return self._rows[recording_id]
        except KeyError:
            raise UserError(f"{self.folder}: no recording {recording_id!r} among {len(self)}") from None

    def read(self, recording_id: str) -> NDArray[np.uint8]:
        """(n_frames, n_mels) of one recording, by a plain read: resident memory does not grow."""
        row = self.row(recording_id)
        start = self._data_start + int(self.offsets[row]) * self.n_mels
        n_bytes = int(self.n_frames[row]) * self.n_mels
        return np.fromfile(self.folder / "mel.npy", np.uint8, n_bytes, offset=start).reshape(-1, self.n_mels)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {recording_id: row for row, recording_id in enumerate(self.recording_ids)}

    @cached_property
    def _data_start(self) -> int:
        return _read_header(self.folder)[1]


class JoinedFrames:
    """The packed frames of several caches, one behind the other; none is copied, each is read in place."""

    def __init__(self, *parts: NDArray[np.uint8]) -> None:
        self.parts = parts
        self._first = np.cumsum([0, *map(len, parts)])
        self.shape = (int(self._first[-1]), parts[0].shape[1])
        self.nbytes = sum(part.nbytes for part in parts)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: NDArray[np.int64] | slice) -> NDArray[np.uint8]:
        """(*index, mels) frames at positions in all parts together."""
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        frames = np.empty((*index.shape, self.shape[1]), np.uint8)
        for first, part in zip(self._first, self.parts, strict=False):
            is_here = (index >= first) & (index < first + len(part))
            frames[is_here] = part[index[is_here] - first]
        return frames


MappedFrames = NDArray[np.uint8] | JoinedFrames
"""(total_frames, mels) of one cache or several."""


def release_pages(frames: MappedFrames) -> None:
    """Pages of a mapped file count as this process's memory once touched; the system still caches them."""
    for part in frames.parts if isinstance(frames, JoinedFrames) else (frames,):
        if isinstance(part, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
            part._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


class TrainingCache:
    """The cache of the training set and, behind it, those of other sets that are trained on too."""

    def __init__(self, train: MelCache, *others: MelCache) -> None:
        """Join the caches.

        Raises:
            UserError: a recording is in two.
        """
        self.caches = (train, *others)
        self._first_row = np.cumsum([0, *map(len, self.caches)])
        self._place_of: dict[str, int] = {}
        for place, cache in enumerate(self.caches):
            if both := sorted(self._place_of.keys() & set(cache.recording_ids)):
                other = self.caches[self._place_of[both[0]]]
                raise UserError(
                    f"{len(both)} recordings are in both {other.folder} and {cache.folder}, first {both[0]}"
                )
            self._place_of |= dict.fromkeys(cache.recording_ids, place)

    @property
    def other_ids(self) -> frozenset[str]:
        """Recordings that are not of the training set."""
        return frozenset(recording_id for cache in self.caches[1:] for recording_id in cache.recording_ids)

    def __len__(self) -> int:
        return sum(map(len, self.caches))

    @cached_property
    def frames(self) -> MappedFrames:
        """(total_frames, mels), mapped from disk."""
        parts = [cache.frames for cache in self.caches]
        return parts[0] if len(parts) == 1 else JoinedFrames(*parts)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """(recordings,) first frame of each recording in `frames`."""
        first = np.cumsum([0, *(len(cache.frames) for cache in self.caches[:-1])])
        return np.concatenate([cache.offsets + k for cache, k in zip(self.caches, first, strict=True)])

    @property
    def n_frames(self) -> NDArray[np.int64]:
        """(recordings,)."""
        return np.concatenate([cache.n_frames for cache in self.caches])

    def row(self, recording_id: str) -> int:
        """Position of a recording, training ones first.

        Raises:
            UserError: no cache has it.
        """
        place = self._place_of.get(recording_id, 0)
        return int(self._first_row[place]) + self.caches[place].row(recording_id)


def open_training_cache(train: Path, others: Iterable[Path], clips: pd.DataFrame) -> TrainingCache:
    """The cache of the training set, with those of the other sets that an annotation lies in.

    Args:
        train: Its folder.
        others: Folders of test and external recordings.
        clips: Annotations with recording_id.

    Raises:
        UserError: a cache is missing or damaged, or a recording is in two.
    """
    annotated = set(clips["recording_id"])
    caches = [MelCache.open(folder) for folder in others]
    needed = [cache for cache in caches if not annotated.isdisjoint(cache.recording_ids)]
    return TrainingCache(MelCache.open(train), *needed)


def read_index(folder: Path) -> pd.DataFrame:
    """Columns of INDEX_DTYPES, one row per recording, in the order of the packed file.

    Raises:
        UserError: no such file, or a row that cannot be read.
    """
    path = folder / "index.csv"
    return typed(read_table(path, list(INDEX_DTYPES), hint="run crop first"), INDEX_DTYPES, path)


def write_cache(folder: Path, recordings: Iterable[EncodedRecording], n_mels: int) -> None:
    """Write `mel.npy` and `index.csv` as recordings arrive.

    Frames go out by ordinary writes: a writable memory map would keep every page it touched resident, and
    would end in a bus error, not in an exception, when the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, int, int, float, float, int]] = []
    total_frames = 0
    with (folder / "mel.npy").open("wb") as file:
        _write_header(file, 0, n_mels)
        for recording in recordings:
            frames = np.ascontiguousarray(recording.frames).data
            file.write(frames)
            n_frames = len(recording.frames)
            scale = recording.db_min, recording.db_max
            rows.append((recording.recording_id, total_frames, n_frames, *scale, crc32(frames)))
            total_frames += n_frames
        file.seek(0)
        _write_header(file, total_frames, n_mels)
    pd.DataFrame(rows, columns=list(INDEX_DTYPES)).to_csv(folder / "index.csv", index=False)


def _write_header(file: BinaryIO, total_frames: int, n_mels: int) -> None:
    """The .npy header; numpy pads it so that a longer first axis does not move the data."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (total_frames, n_mels)}
    npy.write_array_header_1_0(file, header)


def _read_header(folder: Path) -> tuple[tuple[int, int], int]:
    """Shape (total_frames, n_mels) of `mel.npy`, and where its data starts, bytes."""
    path = folder / "mel.npy"
    try:
        with path.open("rb") as file:
            npy.read_magic(file)
            shape, _, dtype = npy.read_array_header_1_0(file)
            data_start = file.tell()
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run crop first") from None
    n_bytes = os.path.getsize(path) - data_start
    if dtype != np.uint8 or len(shape) != 2 or shape[0] * shape[1] != n_bytes:
        raise UserError(
            f"{path}: {dtype} of shape {shape} in {n_bytes} bytes is not a mel cache; run crop again"
        )
    return (shape[0], shape[1]), data_start
