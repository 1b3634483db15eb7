"""The error that a user can fix, which is shown as a sentence without a traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Something outside the code is wrong: a parameter, a table, a recording.

    The message says which thing, what was found and what was expected. Stages and the command line print it
    and exit with status 1; any other exception is a bug in this project, whose traceback they keep in a file.
    """


class UnreadableFileError(UserError):
    """A file is missing, cannot be read, or is not what it should be; see `reading`."""

    def __init__(self, message: str, *, is_missing: bool = False) -> None:
        super().__init__(message)
        self.is_missing = is_missing


class UnknownResultError(UserError):
    """No result has a name that the user typed."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def one_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if the message is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


MAX_VARIANTS = 8
"""Number of variants that `nearest` lists."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of an error about an unknown name, `; the nearest are …`; empty if none is similar.

    If there are variants of the name, such as exp0063-not_0.5 of exp0063, these are the nearest.
    """
    names = list(known)
    variants = [one for one in names if one.startswith(f"{name}-")][:MAX_VARIANTS]
    near = variants or get_close_matches(name, names, n=3) or [one for one in names if name in one][:3]
    return f"; the nearest are {', '.join(near)}" if near else ""
