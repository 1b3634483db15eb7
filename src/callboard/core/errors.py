"""The error that a user can fix, which is shown as a sentence without a traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Something outside the code is wrong: a parameter, a table, a recording.

    The message says which thing, what was found and what was expected. Stages and the command line print it
    and exit with status 1; any other exception is a bug in this project and keeps its traceback.
    """


def one_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if the message is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of an error about an unknown name, `; the nearest are …`; empty if none is similar."""
    names = list(known)
    near = get_close_matches(name, names, n=3) or [one for one in names if name in one][:3]
    return f"; the nearest are {', '.join(near)}" if near else ""
