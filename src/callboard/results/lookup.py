"""A result of the board by what people call it."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from callboard.core.errors import UserError
from callboard.results.naming import Name, names_in_git, results_named
from callboard.results.rows import BoardRow

if TYPE_CHECKING:
    from callboard.results.files import Source


def reference(row: BoardRow) -> str:
    """`name@key`, which means this result and no later one of the same name."""
    return f"{row.name}@{row.key}"


def names_on_board(rows: Iterable[BoardRow]) -> list[Name]:
    """Of every run, and of every experiment that reached its result."""
    return [
        Name(name, row.key, round(row.start.timestamp() * 1000))
        for row in rows
        for name in dict.fromkeys((row.name, *row.names))
    ]


def rows_named(text: str, rows: Sequence[BoardRow], others: Iterable[str] = ()) -> list[BoardRow]:
    """Every result of that name, see `naming.results_named`.

    Args:
        text: As typed.
        rows: The board, oldest first.
        others: More that could be typed here, for the hint.

    Returns:
        One or more, the newest last.

    Raises:
        UserError: nothing has that name, or the newest that has it is not on the board.
    """
    found = results_named(text, [*names_on_board(rows), *names_in_git()], others)
    by_key = {row.key: row for row in rows}
    if found[-1].key not in by_key:
        raise UserError(f"{found[-1].reference} is in git, but not on the board; `callboard sync` records it")
    return [by_key[one.key] for one in found if one.key in by_key]


def source_of(row: BoardRow, rows: Sequence[BoardRow]) -> "Source | None":
    """The files of a result; None where neither a commit nor the work tree holds them any more."""
    from callboard.results.files import find_source

    try:
        return find_source(reference(row), rows)
    except UserError:
        return None
