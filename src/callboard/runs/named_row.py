"""A result by what people call it."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from callboard.errors import UserError
from callboard.runs.rows import Row

if TYPE_CHECKING:
    from callboard.runs.files import Source

KEY_START = re.compile(r"[0-9a-f]{4,16}")


def reference(row: Row) -> str:
    """`name@key`, which means this result and no later one of the same name."""
    return f"{row.name}@{row.key}"


def rows_named(name: str, rows: Sequence[Row]) -> list[Row]:
    """Every result of that name: a run's, an experiment's, `name@key`, or the start of a key.

    Args:
        name: As typed.
        rows: The board, oldest first.

    Returns:
        One or more, the newest last.

    Raises:
        UserError: there is none; the nearest names are told. Or digits with which several keys start.
    """
    base, at, key = name.rpartition("@")
    wanted = base if at else name
    named = [
        row for row in rows if wanted in (row.name, *row.names) and row.key.startswith(key if at else "")
    ]
    if named:
        return named
    by_key = [row for row in rows if KEY_START.fullmatch(name) and row.key.startswith(name)]
    if len(by_key) > 1:
        told = ", ".join(reference(row) for row in by_key)
        raise UserError(f"{name}: {len(by_key)} keys start so: {told}")
    return by_key or _refuse(name, wanted, rows)


def _refuse(name: str, wanted: str, rows: Sequence[Row]) -> list[Row]:
    same = [reference(row) for row in rows if wanted in (row.name, *row.names)]
    known = list(dict.fromkeys(other for row in rows for other in (row.name, *row.names)))
    near = same or get_close_matches(wanted, known, n=3) or known[-3:]
    hint = f"; the nearest are {', '.join(near)}" if near else "; there are no results yet"
    raise UserError(f"no result is called {name!r}{hint}")


def source_of(row: Row, rows: Sequence[Row]) -> "Source | None":
    """The files of a result; None where neither a commit nor the work tree holds them any more."""
    from callboard.runs.files import find_source

    for name in dict.fromkeys((*row.names, row.name)):
        try:
            source = find_source(f"{name}@{row.key}", rows)
        except UserError:
            continue
        if source.result.key == row.key:
            return source
    return None
