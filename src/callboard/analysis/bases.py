"""Search of the result that another one is compared with: its base."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TypeVar

from callboard.experiments.steps import TableStep, is_below
from callboard.params.references import differing_keys
from callboard.results.committed import key_of
from callboard.results.rows import BoardRow, same_truth

Key = TypeVar("Key", bound=Hashable)


class Bases:
    """Results among which bases are searched, grouped by what they are found by."""

    def __init__(self, rows: Sequence[BoardRow]) -> None:
        """Take all results, oldest first."""
        self._rows = rows

    def in_table(self, row: BoardRow, step: TableStep | None) -> BoardRow | None:
        """Return the newest result, on the same data, of the row of the table that `row` is a step from.

        It differs only in what the step changes: not in its seed, nor in its epochs.

        Args:
            row: A result.
            step: The step to its row of the table from the base's row, if it has one.

        Returns:
            `row` itself if both rows have the same content; None if there is no such result.
        """
        if step is None:
            return None
        if step.base in row.table_names:
            return row
        return next(
            (
                other
                for other in reversed(self._of_table_row.get(step.base, []))
                if _is_other(other, row) and differs_by(other, row, step)
            ),
            None,
        )

    def start_of(self, row: BoardRow) -> BoardRow | None:
        """Return the result in the commit that `row` started from, else the newest with its parameters."""
        committed = key_of(row.commit)
        in_commit = self._of_key.get(committed, []) if committed else []
        held = [other for other in in_commit if _is_other(other, row)]
        if held or committed == row.key:
            return held[-1] if held else None
        alike = self._of_params.get(_items(row.base), [])
        return next((other for other in reversed(alike) if _is_other(other, row)), None)

    @cached_property
    def _of_key(self) -> dict[str, list[BoardRow]]:
        return _grouped((row.key, row) for row in self._rows)

    @cached_property
    def _of_table_row(self) -> dict[str, list[BoardRow]]:
        return _grouped((name, row) for row in self._rows for name in row.table_names)

    @cached_property
    def _of_params(self) -> dict[frozenset[tuple[str, str]], list[BoardRow]]:
        return _grouped((_items(row.params), row) for row in self._rows)


def differs_by(base: BoardRow, row: BoardRow, step: TableStep) -> bool:
    """Return whether two results differ in nothing but the keys of a step."""
    return all(is_below(key, step.keys) for key in differing_keys(base.params, row.params))


def _is_other(other: BoardRow, row: BoardRow) -> bool:
    """Return whether `row` can be compared with it."""
    return other.key != row.key and same_truth(row, other)


def _items(params: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset(params.items())


def _grouped(pairs: Iterable[tuple[Key, BoardRow]]) -> dict[Key, list[BoardRow]]:
    groups: dict[Key, list[BoardRow]] = {}
    for key, row in pairs:
        groups.setdefault(key, []).append(row)
    return groups
