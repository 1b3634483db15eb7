"""The one error that is the user's to mend: shown as a sentence, without a traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Something outside the code is wrong: a parameter, a table, a recording.

    The message says which thing, what it was and what it should be. Stages and the command line print it
    and exit with status 1; any other exception is a fault of ours and keeps its traceback.
    """


def one_line(error: BaseException) -> str:
    """The first line of what an error says; its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def nearest(name: str, known: Iterable[str]) -> str:
    """End an error about an unknown name with `; the nearest are …`; empty where no known name is similar."""
    names = list(known)
    near = get_close_matches(name, names, n=3) or [one for one in names if name in one][:3]
    return f"; the nearest are {', '.join(near)}" if near else ""
