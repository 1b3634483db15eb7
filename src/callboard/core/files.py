"""Files that are there whole or not at all, and locks between processes."""

import errno
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from callboard.core.errors import UserError

UNWRITABLE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EROFS,
    errno.EEXIST,
    errno.ENOTDIR,
}
"""Device full, quota used up, file larger than allowed; not permitted (2); a file where a folder goes (2)."""


@contextmanager
def written_whole(path: Path, writer: str = "") -> Iterator[Path]:
    """A temporary path beside `path` to write to, renamed to it at the end and removed on any failure.

    Args:
        path: Final place; its folder is made.
        writer: Part of the temporary name where several processes may write `path` at once. Without it the
            name is always the same, so that a later run overwrites what a killed one left.

    Raises:
        UserError: no space, no permission, or something other than a file is there.
    """
    _refuse_no_file(path)
    unfinished = path.with_name(f".{path.name}{writer and '.'}{writer}.unfinished")
    with _refusals_in_words(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


def _refuse_no_file(path: Path) -> None:
    """Renaming would put a file in the place of a device too."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # nothing is there, or it cannot be looked at: writing will tell
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: is there and no file; nothing was written")


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to write in, which takes the place of `folder` at the end and vanishes on any failure.

    Raises:
        UserError: no space, no permission.
    """
    draft = folder.with_name(f".{folder.name}.part")
    with _refusals_in_words(folder):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            yield draft
            _swap(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _swap(new: Path, folder: Path) -> None:
    if not folder.exists():
        new.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old)


@contextmanager
def _refusals_in_words(path: Path) -> Iterator[None]:
    """What the disk refuses becomes one sentence; any other error passes."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        place = next(folder for folder in path.absolute().parents if folder.is_dir())
        free_mb = shutil.disk_usage(place).free / 1e6
        raise UserError(f"{path}: cannot be written: {error.strerror}; {free_mb:.0f} MB free") from error


@contextmanager
def locked(place: Path, refusal: type[Exception]) -> Iterator[None]:
    """Wait until no other process is in a block of the same place; within such a block it is entered at once.

    Args:
        place: A file that is made for this; its folder too.
        refusal: What is raised where the file cannot be written.
    """
    from filelock import FileLock  # imports asyncio, and most commands lock nothing

    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(place, is_singleton=True).acquire()
    except OSError as error:
        raise refusal(f"{place}: {error.strerror}") from error
    with held:
        yield
