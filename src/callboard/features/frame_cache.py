"""Packed frames of a set, log-mel or embeddings, in a few files that training and prediction read in place.

A pack, such as `0000.npy`, contains uint8 frames, (frames, n_mels), one recording after another; `index.csv`
lists where each recording begins. Time comes before frequency, so that a clip is one contiguous piece of a
file. Even a set without recordings has a pack, which shows n_mels.
"""

import mmap
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self
from zlib import crc32

import numpy as np
import pandas as pd
from numpy.lib import format as npy
from numpy.typing import NDArray

from callboard.core.errors import UserError
from callboard.core.reading import reading
from callboard.data.annotations import read_table, typed
from callboard.features.frame_spool import EncodedFrames

INDEX_DTYPES = {
    "recording_id": "str",
    "pack": "int64",
    "offset": "int64",
    "n_frames": "int64",
    "db_min": "float64",
    "db_max": "float64",
    "crc32": "int64",
}
"""Columns of `index.csv`; because of the checksum, the index changes whenever the frames do."""

FRAMES_AT_ONCE = 16384
"""Frames that are written or checked at a time: 4 min at the default settings, 34 MB of the most mel rows."""


class EncodedRecording(NamedTuple):
    """The frames of one recording: value v stands for db_min + v / 255 * (db_max - db_min).

    This value is in dB if frames are log-mel. If they are embeddings, the range is the same for all
    recordings, and `mels` here and below means the numbers of an embedding.
    """

    recording_id: str
    frames: EncodedFrames
    """(n_frames, n_mels)."""
    db_min: float
    db_max: float


class IndexRow(NamedTuple):
    """A row of `index.csv` without the pack."""

    recording_id: str
    offset: int
    """First frame in the pack."""
    n_frames: int
    db_min: float
    db_max: float
    crc32: int
    """Checksum of the frames."""


class Pack(NamedTuple):
    """A file of frames."""

    path: Path
    n_frames: int
    data_start: int
    """Bytes before the frames."""


@dataclass(frozen=True)
class MelCache:
    """A set of recordings as uint8 frames, opened for reading."""

    folder: Path
    packs: list[Pack]
    recording_ids: list[str]
    pack: NDArray[np.int64]
    """(recordings,) index into `packs`."""
    offsets: NDArray[np.int64]
    """(recordings,) first frame of each recording in `frames`, counted through all packs."""
    n_frames: NDArray[np.int64]
    """(recordings,) number of frames of each recording."""
    db_min: NDArray[np.float64]
    db_max: NDArray[np.float64]
    n_mels: int

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the cache in `folder`.

        Raises:
            UserError: A file is missing, or a pack does not match `index.csv`.
        """
        index = read_index(folder)
        pack_of = index["pack"].to_numpy()
        n_packs = max(pack_of.max(initial=0) + 1, len([*folder.glob("*.npy")]))
        found = [_open_pack(folder / pack_name(number)) for number in range(n_packs)]
        counted = np.bincount(pack_of, index["n_frames"], minlength=n_packs)
        for (pack, n_mels), n_frames in zip(found, counted, strict=True):
            if pack.n_frames != n_frames:
                raise UserError(
                    f"{pack.path}: contains {pack.n_frames} frames, but index.csv lists {n_frames:.0f}; "
                    "run crop again"
                )
            if n_mels != (expected := found[0][1]):
                raise UserError(f"{pack.path}: has {n_mels} mel rows, not {expected}; run crop again")
        first = np.cumsum([0, *(pack.n_frames for pack, _ in found)])
        return cls(
            folder=folder,
            packs=[pack for pack, _ in found],
            recording_ids=index["recording_id"].tolist(),
            pack=pack_of,
            offsets=first[pack_of] + index["offset"].to_numpy(),
            n_frames=index["n_frames"].to_numpy(),
            db_min=index["db_min"].to_numpy(),
            db_max=index["db_max"].to_numpy(),
            n_mels=found[0][1],
        )

    def __len__(self) -> int:
        return len(self.recording_ids)

    def only(self, *recording_ids: str) -> "MelCache":
        """Return this cache with some of its recordings, in this order, as if it had no others.

        Raises:
            UserError: A recording is not in the cache.
        """
        rows = np.array([self.row(recording_id) for recording_id in recording_ids], dtype=np.int64)
        columns = {
            name: getattr(self, name)[rows] for name in ("pack", "offsets", "n_frames", "db_min", "db_max")
        }
        return replace(self, recording_ids=list(recording_ids), **columns)

    @cached_property
    def frames(self) -> "MappedFrames":
        """(total_frames, n_mels), memory-mapped: pages once read count as resident memory."""
        return _joined([self._mapped(pack) for pack in self.packs])

    def _mapped(self, pack: Pack) -> NDArray[np.uint8]:
        if pack.n_frames == 0:  # an empty file cannot be mapped
            return np.empty((0, self.n_mels), np.uint8)
        frames: NDArray[np.uint8] = np.load(pack.path, mmap_mode="r")
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

    def read(self, recording_id: str, span: slice = slice(None)) -> NDArray[np.uint8]:
        """Read (n_frames, n_mels) frames of a recording, or successive ones, unmapped.

        Unlike those of `frames`, they do not stay resident.
        """
        row = self.row(recording_id)
        pack = self.packs[self.pack[row]]
        first, stop, _ = span.indices(int(self.n_frames[row]))
        in_pack = int(self.offsets[row] - self._first_frame[self.pack[row]]) + first
        n_bytes = max(stop - first, 0) * self.n_mels
        start = pack.data_start + in_pack * self.n_mels
        return np.fromfile(pack.path, np.uint8, n_bytes, offset=start).reshape(-1, self.n_mels)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {recording_id: row for row, recording_id in enumerate(self.recording_ids)}

    @cached_property
    def _first_frame(self) -> NDArray[np.int64]:
        """(packs + 1,) first frame of each pack in `frames`."""
        return np.cumsum([0, *(pack.n_frames for pack in self.packs)])


class JoinedFrames:
    """The frames of several packs, concatenated without copying: each is read in place."""

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
        position = index.ravel()
        frames = np.empty((len(position), self.shape[1]), np.uint8)
        places = np.searchsorted(self._first, position, side="right") - 1
        borders = np.flatnonzero(
            np.diff(places, prepend=-1)
        )  # where a run within one part begins, as a clip is
        for run in map(slice, borders, [*borders[1:], len(position)]):
            place = places[run.start]
            inside = position[run] - self._first[place]
            np.take(self.parts[place], inside, axis=0, out=frames[run], mode="clip")  # "raise" needs a copy
        return frames.reshape(*index.shape, self.shape[1])


MappedFrames = NDArray[np.uint8] | JoinedFrames
"""(total_frames, mels) frames of one pack or several."""


def _joined(parts: Sequence[NDArray[np.uint8]]) -> MappedFrames:
    return parts[0] if len(parts) == 1 else JoinedFrames(*parts)


def packs_of(frames: MappedFrames) -> Sequence[NDArray[np.uint8]]:
    """Return the frames of each pack."""
    return frames.parts if isinstance(frames, JoinedFrames) else (frames,)


def release_pages(frames: MappedFrames) -> None:
    """Release the pages of mapped files, which count as this process's memory once read.

    The operating system still caches them. Does nothing on systems without MADV_DONTNEED.
    """
    for part in packs_of(frames):
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
        return _joined([part for cache in self.caches for part in packs_of(cache.frames)])

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
    """Read the columns of INDEX_DTYPES, one row per recording, in the order of the packs.

    Raises:
        UserError: The file is missing, or a row cannot be read.
    """
    path = folder / "index.csv"
    index = typed(read_table(path, list(INDEX_DTYPES), hint="run crop first"), INDEX_DTYPES, path)
    place, n_frames = index["pack"], index["n_frames"]
    offset = n_frames.groupby(place).cumsum() - n_frames
    is_wrong = (place.diff().fillna(place) < 0) | (n_frames < 0) | (index["offset"] != offset)
    if is_wrong.any():
        recording_id = index["recording_id"][is_wrong].iloc[0]
        raise UserError(
            f"{path}: recording {recording_id!r} is not where the one before it ends; run crop again"
        )
    return index


def pack_name(number: int) -> str:
    """Return the name of a pack's file."""
    return f"{number:04d}.npy"


def write_cache(folder: Path, recordings: Iterable[EncodedRecording], n_mels: int) -> None:
    """Write a cache of one pack."""
    folder.mkdir(parents=True, exist_ok=True)
    write_index(folder, [write_pack(folder / pack_name(0), recordings, n_mels)])


def write_pack(path: Path, recordings: Iterable[EncodedRecording], n_mels: int) -> list[IndexRow]:
    """Write frames as recordings arrive, and return their rows of the index.

    Uses ordinary writes: a writable memory map would keep every page it touched resident, and would fail
    with a bus error instead of an exception when the disk is full.
    """
    rows: list[IndexRow] = []
    total_frames = 0
    with path.open("wb") as file:
        _write_header(file, 0, n_mels)
        for recording in recordings:
            n_frames, checksum = len(recording.frames), 0
            for start in range(0, n_frames, FRAMES_AT_ONCE):
                frames = np.ascontiguousarray(recording.frames[start : start + FRAMES_AT_ONCE]).data
                file.write(frames)
                checksum = crc32(frames, checksum)
            scale = recording.db_min, recording.db_max
            rows.append(IndexRow(recording.recording_id, total_frames, n_frames, *scale, checksum))
            total_frames += n_frames
        file.seek(0)
        _write_header(file, total_frames, n_mels)
    return rows


def is_whole_pack(path: Path, rows: Sequence[IndexRow]) -> bool:
    """Return whether a file exists and contains the frames that `write_pack` returned these rows for."""
    try:
        pack, n_mels = _open_pack(path)
    except UserError:  # no file, or no header
        return False
    if pack.n_frames != sum(row.n_frames for row in rows):
        return False
    with path.open("rb") as file:
        file.seek(pack.data_start)
        return all(_checksum(file, row.n_frames, n_mels) == row.crc32 for row in rows)


def _checksum(file: BinaryIO, n_frames: int, n_mels: int) -> int:
    checksum = 0
    for start in range(0, n_frames, FRAMES_AT_ONCE):
        checksum = crc32(file.read(min(FRAMES_AT_ONCE, n_frames - start) * n_mels), checksum)
    return checksum


def write_index(folder: Path, packs: Iterable[Iterable[IndexRow]]) -> None:
    """Write `index.csv` of packs whose rows `write_pack` has returned, in their order."""
    rows = [(row[0], number, *row[1:]) for number, pack in enumerate(packs) for row in pack]
    pd.DataFrame(rows, columns=list(INDEX_DTYPES)).to_csv(folder / "index.csv", index=False)


def _write_header(file: BinaryIO, total_frames: int, n_mels: int) -> None:
    """Write the .npy header; numpy pads it so that a longer first axis does not shift the data."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (total_frames, n_mels)}
    npy.write_array_header_1_0(file, header)


def _open_pack(path: Path) -> tuple[Pack, int]:
    """Return a pack and its n_mels."""
    with reading(path, "a mel cache", missing="run crop first", damaged="run crop again"):
        with path.open("rb") as file:
            if (version := npy.read_magic(file)) != (1, 0):
                raise ValueError(f"version {version}")
            shape, _, dtype = npy.read_array_header_1_0(file)
            data_start = file.tell()
        n_bytes = os.path.getsize(path) - data_start
    if dtype != np.uint8 or len(shape) != 2 or min(shape) < 0 or shape[0] * shape[1] != n_bytes:
        raise UserError(
            f"{path}: {dtype} of shape {shape} in {n_bytes} bytes is not a mel cache; run crop again"
        )
    return Pack(path, shape[0], data_start), shape[1]
