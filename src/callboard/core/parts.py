"""Finished parts of a stage's output, kept in the main workspace until the stage has all of them.

A stage that was killed continues with them, and other processes can make some of them, as shards. What a
part contains and where it ends is decided by data alone, so the output does not depend on who made its parts.
"""

import argparse
import hashlib
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from callboard.core.workspace import main_workspace

PARTS = Path(".cache/parts")
"""Folder of the main workspace with a folder for each stage that has parts."""

KEPT_S = 7 * 24 * 3600
"""Time for which a part that no stage takes is kept."""

Item = TypeVar("Item")


class Shard(NamedTuple):
    """One of several processes that share the parts of a stage."""

    number: int
    """From 1 to `total`."""
    total: int

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    def of(self, parts: Sequence[Item]) -> Sequence[Item]:
        """Return its share: every `total`-th part."""
        return parts[self.number - 1 :: self.total]


def add_shard_option(parser: argparse.ArgumentParser) -> None:
    """Add --shard, which makes some parts and no output."""
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="K/N",
        help="make only the parts K, K+N, K+2N … and keep them for the run without --shard",
    )


def _shard(text: str) -> Shard:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} must be K/N with K from 1 to N, such as 2/8")
    return Shard(int(match[1]), int(match[2]))


def parts_folder(stage: str) -> Path:
    """Return the folder for the finished parts of a stage, after removing abandoned ones."""
    folder = main_workspace() / PARTS / stage
    folder.mkdir(parents=True, exist_ok=True)
    oldest = time.time() - KEPT_S
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process was faster
            if path.stat().st_mtime < oldest:
                path.unlink()
    return folder


def part_key(*contents: str) -> str:
    """Return a name for a part: a digest of everything that it depends on."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content.encode()).digest())
    return digest.hexdigest()[:32]


def consecutive(sizes: Iterable[int], most: int) -> Iterator[slice]:
    """Yield slices of consecutive items, each as long as their sizes add up to at most `most`.

    An item that is larger is alone; without items, there is one empty slice.
    """
    first = stop = total = 0
    for size in sizes:
        if stop > first and total + size > most:
            yield slice(first, stop)
            first, total = stop, 0
        stop += 1
        total += size
    yield slice(first, stop)
