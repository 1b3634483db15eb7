"""What a name means: the one rule by which every command that takes a result finds it.

NAME is an experiment, a branch, a tag or a run; NAME@KEY is the one of them whose content key starts so; a
key alone, or its first digits, is a name too. Of namesakes the newest counts.
"""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from callboard.core.errors import UserError
from callboard.core.workspace import main_workspace
from callboard.results.commits import committed_files, named_commits
from callboard.results.committed import Locks

MIN_DIGITS = 4
"""Of a key that stands for the whole of it."""

KEY_START = re.compile(rf"[0-9a-f]{{{MIN_DIGITS},16}}")


class Name(NamedTuple):
    """A name and the result that has it."""

    name: str
    key: str
    """Content key; empty where what has the name is not finished."""
    time_ms: int
    commit: str = ""
    """That holds the result; empty where MLflow alone tells of it."""

    @property
    def reference(self) -> str:
        """`name@key`, which means this result and no later one of the same name."""
        return f"{self.name}@{self.key}"


def names_in_git(folder: Path | None = None) -> list[Name]:
    """Every experiment, branch and tag, and HEAD, of a workspace or of the main one."""
    folder = folder or main_workspace()
    with committed_files(folder) as files:
        locks = Locks(files)
        found = [
            Name(named.name, locks.at(named.commit).key, named.time_ms, named.commit)
            for named in named_commits(folder)
        ]
        locks.save()
    return found


def results_named(text: str, names: Sequence[Name], others: Iterable[str] = ()) -> list[Name]:
    """Results that a text means.

    Args:
        text: As typed.
        names: Of all results; of several for one result the first is told.
        others: More that could be typed here, for the hint.

    Returns:
        One or more of that name, each result once, the newest last.

    Raises:
        UserError: nothing has that name, what has it is not finished, or several keys start with its digits.
    """
    if own := [one for one in names if one.name == text]:
        if found := _each_once(own):
            return found
        raise UserError(f"{text} is in git, but its commit holds no finished result; is it still running?")
    name, at, digits = text.rpartition("@")
    found = _each_once(one for one in names if (one.name == name or not at) and _starts(one.key, digits))
    if len(found) > 1:
        told = ", ".join(one.reference for one in found)
        raise UserError(f"{text}: {len(found)} keys start so: {told}; give more digits")
    return found or _refuse(text, name or text, names, others)


def _starts(key: str, digits: str) -> bool:
    return bool(KEY_START.fullmatch(digits)) and key.startswith(digits)


def _each_once(names: Iterable[Name]) -> list[Name]:
    """By content key, in order of time; of a result with several times the latest counts."""
    found: dict[str, Name] = {}
    latest: dict[str, int] = {}
    for one in names:
        if one.key:
            found.setdefault(one.key, one)
            latest[one.key] = max(one.time_ms, latest.get(one.key, 0))
    return sorted(found.values(), key=lambda one: latest[one.key])


def _refuse(text: str, name: str, names: Sequence[Name], others: Iterable[str]) -> list[Name]:
    finished = [one for one in names if one.key]
    same = list(dict.fromkeys(one.reference for one in finished if one.name == name))
    known = list(dict.fromkeys([*others, *(one.name for one in finished)]))
    if not known:
        raise UserError(f"no result is called {text!r}; there are no results yet")
    near = same or get_close_matches(name, known, n=3)
    hint = f"the nearest are {', '.join(near)}" if near else "`callboard board` lists all"
    raise UserError(f"no result is called {text!r}; {hint}")
