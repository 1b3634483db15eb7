"""What each result is compared with, and by how much it differs."""

from collections import Counter
from collections.abc import Sequence

from callboard.experiments.table import ExperimentTable, TableStep, is_below
from callboard.results.committed import key_of
from callboard.results.rows import BoardRow, same_truth


def table_base(row: BoardRow, step: TableStep | None, rows: Sequence[BoardRow]) -> BoardRow | None:
    """The newest result of the row of the table that `row` is a step from, on the same data.

    It differs in nothing but what the step changes: not in its seed, nor in its epochs.

    Args:
        row: A result.
        step: To its row of the table, if it has one, from the row that this is compared with.
        rows: All results, oldest first.

    Returns:
        `row` itself where both rows have the same content; None where there is no such result.
    """
    if step is None:
        return None
    if step.base in row.table_names:
        return row
    found = [
        other
        for other in _others(row, rows)
        if step.base in other.table_names and differs_by(other, row, step)
    ]
    return found[-1] if found else None


def started_from(row: BoardRow, rows: Sequence[BoardRow]) -> BoardRow | None:
    """The result of the commit that `row` started from, by its dvc.lock, else the newest of its parameters.

    Args:
        row: A result.
        rows: All results, oldest first.
    """
    others = _others(row, rows)
    committed = key_of(row.commit)
    found = [other for other in others if other.key == committed] or [
        other for other in others if other.params == row.base and committed != row.key
    ]
    return found[-1] if found else None


def _others(row: BoardRow, rows: Sequence[BoardRow]) -> list[BoardRow]:
    return [other for other in rows if other.key != row.key and same_truth(row, other)]


def differs_by(base: BoardRow, row: BoardRow, step: TableStep) -> bool:
    """Whether two results differ in nothing but the keys of a step."""
    keys = base.params.keys() | row.params.keys()
    return all(is_below(key, step.keys) for key in keys if base.params.get(key) != row.params.get(key))


def of_one_setting(rows: Sequence[BoardRow], table: ExperimentTable) -> dict[str, BoardRow]:
    """By name of a row of the table its newest result, all of one setting: that which most results have.

    A setting is what the table leaves to the workspace: data, annotations, seed, epochs, folds.

    Args:
        rows: All results, oldest first.
        table: The author's.
    """
    named = [(name, row) for row in rows for name in row.names if name in table.rows]
    settings = [(name, row, _setting(name, row, table)) for name, row in named]
    counted = Counter(setting for name, _, setting in reversed(settings) if not table.rows[name].alone)
    if not counted:
        return {}
    (common, _), *_ = counted.most_common()  # the newest of equally common ones
    return {name: row for name, row, setting in settings if setting <= common}


def _setting(name: str, row: BoardRow, table: ExperimentTable) -> frozenset[tuple[str, str]]:
    own = {(key, text) for key, text in row.params.items() if table.leaves_alone(key, name)}
    return frozenset(own | {("data", row.data_md5), ("clips", row.clips_md5)})
