"""DVC's cache: where an output lies by the md5 that dvc.lock tells, and which are missing."""

import json
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from callboard.core.errors import UserError
from callboard.core.workspace import main_workspace
from callboard.results.dvc_lock import all_outs, parse_lock

FOLDER_SUFFIX = ".dir"
"""How the md5 of a folder ends in dvc.lock; in the cache it is a list of files."""

MAKE_FOLDERS = "dvc repro, then commit dvc.lock, metrics and plots"
"""Ends the trouble of `folders_not_cached`."""


def cached_file(md5: str, what: str) -> Path:
    """A file in DVC's cache.

    Args:
        md5: As dvc.lock tells it.
        what: The file in words, for the error.

    Raises:
        UserError: it is not there.
    """
    path = _cache_folder() / "files/md5" / md5[:2] / md5[2:]
    if not path.is_file():
        raise UserError(f"{what} is not in DVC's cache ({path}); `dvc pull` it or run the experiment again")
    return path


def is_cached(md5: str) -> bool:
    """Whether a file is in DVC's cache."""
    try:
        return bool(cached_file(md5, "file"))
    except UserError:
        return False


def cached_in_folder(listing: Path, name: str, folder: str) -> Path:
    """One file of a folder that DVC keeps.

    Args:
        listing: The list of the folder's files, which the md5 of the folder finds in the cache.
        name: Path of the file below the folder.
        folder: The folder in words, for the error.

    Raises:
        UserError: the folder has no such file, or the cache has lost it.
    """
    return cached_file(_md5s_listed(listing).get(name, ""), f"{folder}/{name}")


@contextmanager
def linked_folder(listing: Path) -> Iterator[Path]:
    """A folder that DVC keeps, as links to its files in the cache, for as long as it is needed.

    Files that the cache has lost are left out.

    Args:
        listing: As above.
    """
    with TemporaryDirectory() as temporary:
        for name, md5 in _md5s_listed(listing).items():
            link = Path(temporary, name)
            link.parent.mkdir(parents=True, exist_ok=True)
            with suppress(UserError):
                link.symlink_to(cached_file(md5, name).resolve())
        yield Path(temporary)


def _md5s_listed(listing: Path) -> dict[str, str]:
    """By the path of each file below its folder."""
    return {entry["relpath"]: entry["md5"] for entry in json.loads(listing.read_text(encoding="utf-8"))}


def folders_not_cached() -> list[str]:
    """Folders that the main workspace's dvc.lock names and DVC's cache lacks; none without a whole dvc.lock.

    It was committed without `dvc repro`, or comes from another machine. An experiment in a copy of the
    workspace then breaks off behind a stage that DVC need not run and that reads a file of such a folder:
    it looks the file up in the folder of before.
    """
    path = main_workspace() / "dvc.lock"
    try:
        lock = parse_lock(path.read_text(encoding="utf-8") if path.is_file() else "", str(path))
    except (UserError, yaml.YAMLError):
        return []
    return [
        name for name, md5 in all_outs(lock).items() if md5.endswith(FOLDER_SUFFIX) and not is_cached(md5)
    ]


def _cache_folder() -> Path:
    """`cache.dir` of the main workspace, else DVC's default; relative paths count from .dvc, as in DVC."""
    folder = main_workspace() / ".dvc"
    config = ConfigParser(strict=False, interpolation=None)
    config.read([folder / "config", folder / "config.local"], encoding="utf-8")
    return folder / config.get("cache", "dir", fallback="cache").strip("\"'")
