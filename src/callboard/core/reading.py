"""The one way in which a failure to read a file becomes a sentence that names it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from callboard.core.errors import UnreadableFileError, UserError

MAX_REASON = 300
"""Number of characters of a library's words that a message quotes."""

FAULTS_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""Device full, quota used up, file too large, disk is read-only: nothing that the file is to blame for."""

OF_THE_CONTENT = errno.EINVAL
"""Error of a library that goes to a place which a damaged file names."""

MAX_NAME_BYTES = 255
"""Longest name of a file or folder that common file systems take."""


@contextmanager
def reading(
    place: Path | str, form: str = "readable", *, missing: str = "", damaged: str = ""
) -> Iterator[None]:
    """Turn any failure of a block that only reads a file into an UnreadableFileError that names it.

    Every exception counts, since a damaged file makes libraries raise more kinds than they document, and each
    list of them had gaps. So the block must contain nothing else: a fault elsewhere in it would be blamed on
    the file. A UserError passes, as does an error of writing.

    Args:
        place: The file; text for one without a path, such as one in a commit.
        form: What the file should be, as the end of a sentence: `valid YAML`, `a list of files`.
        missing: Advice if it does not exist.
        damaged: Advice if it is not what it should be.

    Raises:
        UnreadableFileError: the block failed.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        message = f"{place}: not found{missing and '; '}{missing}"
        raise UnreadableFileError(message, is_missing=True) from error
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise UnreadableFileError(
            f"{place}: not UTF-8, byte {error.start} is 0x{byte:02x}; save the file as UTF-8"
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FAULTS_OF_WRITING:
            raise
        if isinstance(error, OSError) and error.strerror and error.errno != OF_THE_CONTENT:
            raise UnreadableFileError(f"{place}: cannot be read: {error.strerror}") from error
        raise UnreadableFileError(
            f"{place}: not {form}: {_reason(error)}{damaged and '; '}{damaged}"
        ) from error


def _reason(error: Exception) -> str:
    """Return a library's words in one line, with the kind of error if they are not a sentence."""
    text = " ".join(str(error).split())
    short = text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]} …"
    return short if " " in short else f"{type(error).__name__}{short and ': '}{short}"


def refuse_no_path(text: str, where: str) -> None:
    """Refuse a text that no file system takes as a path, so that looking for the file would fail.

    Raises:
        UserError: it has a NUL or a character that is not Unicode, or the name of a file is too long.
    """
    try:
        names = text.encode("utf-8").split(b"/")
    except UnicodeEncodeError:
        names = [b"\0"]
    if any(b"\0" in name or len(name) > MAX_NAME_BYTES for name in names):
        shown = text if len(text) <= MAX_NAME_BYTES else f"{text[:40]}…"
        raise UserError(
            f"{where}: {shown!r} is not a path: it has a NUL, or a name above {MAX_NAME_BYTES} bytes"
        )
