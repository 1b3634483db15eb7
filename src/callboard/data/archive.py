"""Folders of recordings to be scored, and their division into shards by names and sizes alone."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

from callboard.core.console import first_few
from callboard.core.errors import UserError
from callboard.data.recording_folders import RECORDING_SUFFIXES, files_below

SHARD_RECORDINGS = 256
"""Most recordings of a shard, which is what a killed command loses."""

FEWEST_SHARDS, SMALLEST_SHARD = 20, 16
"""Number of shards of a small archive, so that progress shows and a kill loses little, unless they would have
fewer recordings than this."""

SHARD_BYTES = 1_400_000_000
"""Most bytes of a shard: 4 h of one channel at 48 kHz in 16 bits, if its files are not compressed."""


class ArchiveFile(NamedTuple):
    """A recording, known by its name, size and time of change."""

    name: str
    """Path below its folder, with `/`; with several folders, below the folder that contains it."""
    path: str
    n_bytes: int
    mtime_ns: int


ArchiveShard = Sequence[ArchiveFile]
"""Recordings that are scored together."""


def list_archive(folders: Sequence[Path]) -> list[ArchiveFile]:
    """List all recordings below some folders, hidden ones aside, ordered by name.

    Raises:
        UserError: A folder does not exist or cannot be read, has no recordings, or is also part of another;
            or two names are equal.
    """
    _refuse_nested(folders)
    found: dict[str, ArchiveFile] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: {'is not a folder' if folder.exists() else 'folder does not exist'}")
        prefix = f"{os.path.basename(os.path.normpath(folder))}/" if len(folders) > 1 else ""
        others: Counter[str] = Counter()
        n_before = len(found)
        for entry in files_below(folder, links_once=True):
            if not entry.is_file():
                continue
            suffix = os.path.splitext(entry.name)[1].lower()
            if suffix not in RECORDING_SUFFIXES:
                others[suffix or "no suffix"] += 1
                continue
            file = _archive_file(entry, folder, prefix)
            if (other := found.setdefault(file.name, file)) != file:
                raise UserError(f"{other.path} and {file.path} would both be called {file.name}")
        if len(found) == n_before:
            kinds = first_few([f"{kind}: {count}" for kind, count in others.most_common()])
            seen = f"only files of other formats ({kinds})" if kinds else "no files"
            raise UserError(f"{folder}: no recordings ({', '.join(RECORDING_SUFFIXES)}), {seen}")
    return [found[name] for name in sorted(found)]


def _refuse_nested(folders: Sequence[Path]) -> None:
    places = [folder.resolve() for folder in folders]
    for a, b in permutations(range(len(places)), 2):
        if places[b].is_relative_to(places[a]):
            where = "given twice" if places[a] == places[b] else f"in {folders[a]}"
            raise UserError(f"{folders[b]}: is {where}, so that its recordings would count twice")


def _archive_file(entry: os.DirEntry[str], folder: Path, prefix: str) -> ArchiveFile:
    name = prefix + entry.path[len(str(folder)) + 1 :].replace(os.sep, "/")
    if not name.isprintable():
        raise UserError(f"{folder}: file name {name!r} is not printable UTF-8; rename it")
    status = entry.stat()
    return ArchiveFile(name, entry.path, status.st_size, status.st_mtime_ns)


def plan_shards(files: Sequence[ArchiveFile]) -> Iterator[ArchiveShard]:
    """Divide recordings, in order, into shards of up to SHARD_RECORDINGS and SHARD_BYTES."""
    n_recordings = min(max(len(files) // FEWEST_SHARDS, SMALLEST_SHARD), SHARD_RECORDINGS)
    first = n_bytes = 0
    for stop, file in enumerate(files):
        if stop > first and (stop - first == n_recordings or n_bytes + file.n_bytes > SHARD_BYTES):
            yield files[first:stop]
            first, n_bytes = stop, 0
        n_bytes += file.n_bytes
    if files:
        yield files[first:]
