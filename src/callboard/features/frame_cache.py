"""Packed frames of a set, log-mel or embeddings, in one file that training and prediction read in place.

`mel.npy` contains uint8 frames, (total_frames, n_mels), one recording after another; `index.csv` lists where
each recording begins. Time comes before frequency, so that a clip is one contiguous piece of the file.
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
"""Columns of `index.csv`; because of the checksum, the index changes whenever the frames do."""


class EncodedRecording(NamedTuple):
    """The frames of one recording: value v stands for db_min + v / 255 * (db_max - db_min).

    This value is in dB if frames are log-mel. If they are embeddings, the range is the same for all
    recordings, and `mels` here and below means the numbers of an embedding.
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
    """(recordings,) number of frames of each recording."""
    db_min: NDArray[np.float64]
    db_max: NDArray[np.float64]
    n_mels: int

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the cache in `folder`.

        Raises:
            UserError: A file is missing, or `mel.npy` does not match `index.csv`.
        """
        index = read_index(folder)
        shape, _ = _read_header(folder)
        if shape[0] != (counted := index["n_frames"].sum()):
            raise UserError(
                f"{folder}: mel.npy contains {shape[0]} frames, but index.csv lists {counted}; run crop again"
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
        """(total_frames, n_mels), memory-mapped: pages once read count as resident memory."""
        if len(self) == 0:
            return np.empty((0, self.n_mels), np.uint8)
        frames: NDArray[np.uint8] = np.load(self.folder / "mel.npy", mmap_mode="r")
        return frames

    def row(self, recording_id: str) -> int:
        """Return a recording's position in the index.

        Raises:
            UserError: The recording is not in the cache.
        """
        try:
            return self._rows[recording_id]
        except KeyError:
            raise UserError(
                f"{self.folder}: recording {recording_id!r} is not among the {len(self)} in the cache"
            ) from None

    def read(self, recording_id: str) -> NDArray[np.uint8]:
        """Read (n_frames, n_mels) frames of a recording unmapped, so that resident memory does not grow."""
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
    """The packed frames of several caches, concatenated without copying: each is read in place."""

    def __init__(self, *parts: NDArray[np.uint8]) -> None:
        self.parts = parts
        self._first = np.cumsum([0, *map(len, parts)])
        self.shape = (int(self._first[-1]), parts[0].shape[1])
        self.nbytes = sum(part.nbytes for part in parts)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: NDArray[np.int64] | slice) -> NDArray[np.uint8]:
        """Return (*index, mels) frames, copied; positions count through all parts."""
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        frames = np.empty((*index.shape, self.shape[1]), np.uint8)
        for first, part in zip(self._first, self.parts, strict=False):
            is_here = (index >= first) & (index < first + len(part))
            frames[is_here] = part[index[is_here] - first]
        return frames


MappedFrames = NDArray[np.uint8] | JoinedFrames
"""(total_frames, mels) frames of one cache or several."""


def release_pages(frames: MappedFrames) -> None:
    """Release the pages of mapped files, which count as this process's memory once read.

    The operating system still caches them. Does nothing on systems without MADV_DONTNEED.
    """
    for part in frames.parts if isinstance(frames, JoinedFrames) else (frames,):
        if isinstance(part, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
            part._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


class TrainingCache:
    """The cache of the training set, followed by those of other sets used for training."""

    def __init__(self, train: MelCache, *others: MelCache) -> None:
        """Join the caches.

        Raises:
            UserError: A recording is in two caches.
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
        """Recordings that are not in the training set."""
        return frozenset(recording_id for cache in self.caches[1:] for recording_id in cache.recording_ids)

    def __len__(self) -> int:
        return sum(map(len, self.caches))

    @cached_property
    def frames(self) -> MappedFrames:
        """(total_frames, mels), memory-mapped."""
        parts = [cache.frames for cache in self.caches]
        return parts[0] if len(parts) == 1 else JoinedFrames(*parts)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """(recordings,) first frame of each recording in `frames`."""
        first = np.cumsum([0, *(len(cache.frames) for cache in self.caches[:-1])])
        return np.concatenate([cache.offsets + k for cache, k in zip(self.caches, first, strict=True)])

    @property
    def n_frames(self) -> NDArray[np.int64]:
        """(recordings,) number of frames of each recording."""
        return np.concatenate([cache.n_frames for cache in self.caches])

    def row(self, recording_id: str) -> int:
        """Return a recording's position among those of all caches, training set first.

        Raises:
            UserError: The recording is in none of the caches.
        """
        place = self._place_of.get(recording_id, 0)
        return int(self._first_row[place]) + self.caches[place].row(recording_id)


def open_training_cache(train: Path, others: Iterable[Path], clips: pd.DataFrame) -> TrainingCache:
    """Open the cache of the training set, joined with those of other sets that have an annotation.

    Args:
        train: Folder of the training set's cache.
        others: Folders of the test and external recordings' caches.
        clips: Annotations with recording_id.

    Raises:
        UserError: A cache is missing or damaged, or a recording is in two.
    """
    annotated = set(clips["recording_id"])
    caches = [MelCache.open(folder) for folder in others]
    needed = [cache for cache in caches if not annotated.isdisjoint(cache.recording_ids)]
    return TrainingCache(MelCache.open(train), *needed)


def read_index(folder: Path) -> pd.DataFrame:
    """Read the columns of INDEX_DTYPES, one row per recording, in the order of the packed file.

    Raises:
        UserError: The file is missing, or a row cannot be read.
    """
    path = folder / "index.csv"
    return typed(read_table(path, list(INDEX_DTYPES), hint="run crop first"), INDEX_DTYPES, path)


def write_cache(folder: Path, recordings: Iterable[EncodedRecording], n_mels: int) -> None:
    """Write `mel.npy` and `index.csv` as recordings arrive.

    Uses ordinary writes: a writable memory map would keep every page it touched resident, and would fail
    with a bus error instead of an exception when the disk is full.
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
    """Write the .npy header; numpy pads it so that a longer first axis does not shift the data."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (total_frames, n_mels)}
    npy.write_array_header_1_0(file, header)


def _read_header(folder: Path) -> tuple[tuple[int, int], int]:
    """Return the shape (total_frames, n_mels) of `mel.npy`, and the offset of its data in bytes."""
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
