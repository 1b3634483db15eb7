"""DVC's cache: outputs by their md5 in dvc.lock, compared with it, and folders that are missing."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from configparser import ConfigParser
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from callboard.core.errors import UserError
from callboard.core.files import path_inside, written_whole
from callboard.core.json_cache import JsonCache, shared_cache
from callboard.core.reading import reading
from callboard.core.workspace import main_workspace
from callboard.results.dvc_lock import all_outs, parse_lock
from callboard.results.git import files_in

FOLDER_SUFFIX = ".dir"
"""Suffix of a folder's md5 in dvc.lock; its entry in the cache is a list of files."""

HASH_OR_NONE = re.compile(r"[^./\\:]*(\.dir)?")
"""Form of a hash, or of none; a text without it could name a file elsewhere."""

MAKE_FOLDERS = "`dvc repro`, then commit dvc.lock, metrics and plots"
"""Remedy for `folders_not_cached`."""


class DamagedFileError(UserError):
    """The content of a file in DVC's cache is not what its name says."""

    def __init__(self, path: Path, what: str, found: str, wanted: str) -> None:
        """Compose the message.

        Args:
            path: The file.
            what: Description of the file.
            found: md5 of the content.
            wanted: md5 in dvc.lock.
        """
        super().__init__(
            f"{what} is damaged in DVC's cache: {path} has md5 {found}, must be {wanted}; {regain(path)}"
        )
        self.path = path


class NotCachedError(UserError):
    """A file of a result cannot be had: the cache has lost it, or the result never had it."""


def regain(*paths: Path) -> str:
    """Return how to get damaged files of the cache back."""
    return (
        f"`rm -f {' '.join(map(str, paths))}`, then `dvc pull` or `dvc exp pull`, or run the experiment again"
    )


def cached_file(md5: str, what: str) -> Path:
    """Return the path of a file in DVC's cache, after comparing its content with its name.

    Args:
        md5: md5 of the file in dvc.lock.
        what: Description of the file, for the error.

    Raises:
        DamagedFileError: the file has other content.
        NotCachedError: the file is not in the cache, or `md5` is not a hash.
    """
    path = object_path(md5, main_workspace())
    if not path.is_file():
        raise NotCachedError(
            f"{what} is not in DVC's cache ({path}); `dvc pull` it or run the experiment again"
        )
    refuse_damaged(path, md5, what)
    return path


def refuse_damaged(path: Path, md5: str, what: str) -> None:
    """Compare the content of a file with its md5 in dvc.lock; once per process if the file stays as it is.

    Args:
        path: The file.
        md5: md5 in dvc.lock, with `FOLDER_SUFFIX` if it is the list of a folder's files.
        what: Description of the file, for the error.

    Raises:
        DamagedFileError: they differ.
    """
    status = path.stat()
    found = _md5(path, status.st_size, status.st_mtime_ns)
    if found != (wanted := md5.removesuffix(FOLDER_SUFFIX)):
        raise DamagedFileError(path, what, found, wanted)


LARGE_BYTES = 2**24
"""Size from which the md5 of a file is remembered on disk, by path, size and time of change, as DVC does.

Those of smaller files take 25 ms at most.
"""


@lru_cache(maxsize=10_000)
def _md5(path: Path, size: int, mtime_ns: int) -> str:
    key = f"{path} {size} {mtime_ns}"
    memory: JsonCache | dict[str, str] = shared_cache("digests", __name__) if size >= LARGE_BYTES else {}
    if key not in memory:
        with path.open("rb") as file:
            memory[key] = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return str(memory[key])


def object_path(md5: str, workspace: Path) -> Path:
    """Return the path that a file has, or would have, in a workspace's cache."""
    return cache_folder(workspace) / object_name(md5)


def object_name(md5: str) -> str:
    """Return the path of a file below the folder of a cache or a remote.

    Raises:
        NotCachedError: `md5` is not a hash, so it could name a file elsewhere.
    """
    if not HASH_OR_NONE.fullmatch(md5):
        raise NotCachedError(f"{md5!r} in DVC's lock or list is not an md5")
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def add_to_cache(md5: str, content: bytes) -> None:
    """Write a file that DVC has hashed elsewhere into the main workspace's cache."""
    path = object_path(md5, main_workspace())
    if not path.exists():
        with written_whole(path) as unfinished:
            unfinished.write_bytes(content)
            unfinished.chmod(0o444)  # as DVC does: workspaces can have links to it


def is_cached(md5: str) -> bool:
    """Return whether DVC's cache has a file of that name, damaged or not."""
    try:
        return object_path(md5, main_workspace()).is_file()
    except UserError:
        return False


def cached_in_folder(listing: Path, name: str, folder: str) -> Path:
    """Return the path in DVC's cache of one file of a folder.

    Args:
        listing: The list of the folder's files, which is in the cache under the md5 of the folder.
        name: Path of the file below the folder.
        folder: Description of the folder, for the error.

    Raises:
        NotCachedError: the folder does not have the file, or the cache has lost it.
        UserError: the list or the file is damaged.
    """
    return cached_file(md5s_listed(listing).get(name, ""), f"{folder}/{name}")


@contextmanager
def linked_folder(listing: Path, only: str = "") -> Iterator[Path]:
    """Yield a temporary folder of links to the cached files of a folder.

    Files that the cache has lost are left out.

    Args:
        listing: As in `cached_in_folder`.
        only: Beginning of the paths of the files that are wanted; others are neither checked nor linked.

    Raises:
        UserError: the list names a path outside the folder, or a file is damaged.
    """
    with TemporaryDirectory() as temporary:
        for name, md5 in md5s_listed(listing).items():
            link = path_inside(Path(temporary), name, f"DVC's list {listing.name}")
            with reading(listing, "a list of a folder's files"):  # it can have a file where it has a folder
                link.parent.mkdir(parents=True, exist_ok=True)
                if name.startswith(only) and is_cached(md5):
                    link.symlink_to(cached_file(md5, f"{name} of {listing.name}").resolve())
        yield Path(temporary)


def md5s_listed(listing: Path) -> dict[str, str]:
    """Map the path of each file below its folder to its md5."""
    with reading(listing, "a list of a folder's files", damaged="`dvc pull` or run the experiment again"):
        entries = json.loads(listing.read_text(encoding="utf-8"))
        found = {entry["relpath"]: entry["md5"] for entry in entries}
        if not all(isinstance(text, str) for pair in found.items() for text in pair):
            raise ValueError("relpath and md5 must be text")
    return found


def folders_not_cached() -> list[str]:
    """Return folders that the main workspace's dvc.lock lists and DVC's cache lacks.

    Empty without a complete dvc.lock. Folders are missing if dvc.lock was committed without `dvc repro`, or
    on another machine. An experiment in a copy of the workspace then fails after a stage that DVC need not
    run and that reads a file of such a folder: DVC looks it up in the previous version of the folder.
    """
    try:
        lock = parse_lock(files_in(main_workspace())("dvc.lock"), "dvc.lock")
    except UserError:
        return []
    return [
        name for name, md5 in all_outs(lock).items() if md5.endswith(FOLDER_SUFFIX) and not is_cached(md5)
    ]


def cache_folder(workspace: Path) -> Path:
    """Return `cache.dir` of a workspace, or DVC's default; paths are relative to .dvc, as in DVC."""
    return workspace / ".dvc" / dvc_config(workspace).get("cache", "dir", fallback="cache").strip("\"'")


def dvc_config(workspace: Path, names: Sequence[str] = ("config", "config.local")) -> ConfigParser:
    """Read DVC's settings of a workspace, of which those in later files hold; a missing file has none.

    Raises:
        UnreadableFileError: a file is damaged.
    """
    config = ConfigParser(strict=False, interpolation=None)
    for path in (workspace / ".dvc" / name for name in names):
        with reading(path, "settings of DVC"):
            config.read(path, encoding="utf-8")
    return config
