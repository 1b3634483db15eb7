"""Files that are written completely or not at all, and locks between processes."""

import errno
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from callboard.core.errors import UserError
from callboard.core.reading import refuse_no_path

REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS}
"""Device full, quota used up, file too large; not permitted (2), disk is read-only."""

UNWRITABLE = {*REFUSED, errno.EEXIST, errno.ENOTDIR}
"""Those, and a file where a folder is needed (2)."""


def path_inside(folder: Path, name: str, where: str) -> Path:
    """Return the path of a file below a folder that a table or list names.

    Args:
        folder: The folder.
        name: Relative path.
        where: Place of the name, for the error.

    Raises:
        UserError: the path is absolute or leaves the folder, or no file system takes it.
    """
    refuse_no_path(name, where)
    forms = (PurePosixPath(name), PureWindowsPath(name))
    if any(form.is_absolute() or form.drive or ".." in form.parts for form in forms):
        raise UserError(f"{where}: path {name!r} leaves its folder; must be a relative path without '..'")
    return folder / name


def refuse_full_folder(folder: Path) -> None:
    """Refuse an output folder that is not new or empty.

    Raises:
        UserError: it is a file, or has files.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--output {folder}: exists and is not an empty folder; name a new one")


@contextmanager
def written_whole(path: Path, writer: str = "") -> Iterator[Path]:
    """Yield a temporary path next to `path`, renamed to it at the end and removed on any failure.

    Args:
        path: Final path; its folder is created.
        writer: Part of the temporary name, for use when several processes can write `path` at once. Without
            it the name is always the same, so that a later run overwrites what a killed one left.

    Raises:
        UserError: no space, no permission, or `path` exists but is not a regular file.
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
    """Refuse an existing path that is not a regular file: renaming would replace even a device."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # absent, or not accessible: then writing fails
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: exists but is not a regular file; nothing was written")


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder, which replaces `folder` at the end and is removed on any failure.

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
    """Turn the errors in `UNWRITABLE` into a UserError of one sentence; any other error passes."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        place = next(folder for folder in path.absolute().parents if folder.is_dir())
        free_mb = shutil.disk_usage(place).free / 1e6
        raise UserError(f"{path}: cannot be written: {error.strerror}; {free_mb:.0f} MB free") from error


@contextmanager
def locked(place: Path, refusal: type[Exception], busy: str = "") -> Iterator[None]:
    """Hold a lock between processes, waiting while another one holds it; a nested block is entered at once.

    Args:
        place: The lock file, which is created with its folder.
        refusal: Exception raised if the file cannot be written.
        busy: Message of the exception raised if another process holds the lock; without it, wait.
    """
    from filelock import FileLock, Timeout  # imports asyncio, and most commands lock nothing

    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(place, is_singleton=True).acquire(timeout=0 if busy else -1)
    except Timeout as error:
        raise refusal(busy) from error
    except OSError as error:
        raise refusal(f"{place}: {error.strerror}") from error
    with held:
        yield
