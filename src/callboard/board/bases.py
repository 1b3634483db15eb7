"""What each result is compared with, and by how much it differs."""

import atexit
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple
from functools import cache
from typing import TYPE_CHECKING

from callboard.better.difference import Difference
from callboard.board.committed import key_of
from callboard.board.rows import Row
from callboard.finished import cached_file
from callboard.memory import Memory
from callboard.results import CLIPS, OUT_OF_FOLD
from callboard.steps import Step, is_below

DIFFERENCES_VERSION = "1: 2000 resamples, seed 0"
"""Part of the key of every remembered difference; another one forgets them all."""

if TYPE_CHECKING:
    from callboard.table import Table


def table_base(row: Row, step: Step | None, rows: Sequence[Row]) -> Row | None:
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
    if step.base in row.names:
        return row
    found = [
        other for other in _others(row, rows) if step.base in other.names and differs_by(other, row, step)
    ]
    return found[-1] if found else None


def started_from(row: Row, rows: Sequence[Row]) -> Row | None:
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


def _others(row: Row, rows: Sequence[Row]) -> list[Row]:
    return [other for other in rows if other.key != row.key and other.data_md5 == row.data_md5]


def differs_by(base: Row, row: Row, step: Step) -> bool:
    """Whether two results differ in nothing but the keys of a step."""
    keys = base.params.keys() | row.params.keys()
    return all(is_below(key, step.keys) for key in keys if base.params.get(key) != row.params.get(key))


def of_one_setting(rows: Sequence[Row], table: "Table") -> dict[str, Row]:
    """By name of a row of the table its newest result, all of one setting: that which most results have.

    A setting is what the table leaves to the workspace: data, seed, epochs, folds.

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


def _setting(name: str, row: Row, table: "Table") -> frozenset[tuple[str, str]]:
    own = {(key, text) for key, text in row.params.items() if table.leaves_alone(key, name)}
    return frozenset(own | {("data", row.data_md5)})


def difference(row: Row, base: Row) -> Difference | None:
    """Out-of-fold LWLRAP of `row` minus that of `base`; without interval where a table is not in DVC's cache.

    What was worked out once is read from disk. None where one of the two has no CV.
    """
    ours, theirs = row.metrics.get("cv.lwlrap"), base.metrics.get("cv.lwlrap")
    if ours is None or theirs is None:
        return None
    memory = _remembered(os.environ.get("DVC_ROOT"), os.getcwd())
    key = " ".join((row.oof_md5, base.oof_md5, row.clips_md5, DIFFERENCES_VERSION))
    if key not in memory:
        try:
            memory[key] = astuple(_measured(row, base))
        except ValueError:  # gone from the cache, or of other species
            return Difference(ours - theirs)
    return Difference(*memory[key])


@cache
def _remembered(_dvc_root: str | None, _folder: str) -> Memory:
    """Differences by the md5 of what they were worked out from; written when the process ends."""
    memory = Memory("differences")
    atexit.register(memory.save)
    return memory


def _measured(row: Row, base: Row) -> Difference:
    """Looks for the files first: without them nothing heavy needs to be imported."""
    clips = cached_file(row.clips_md5, CLIPS)
    ours, theirs = (cached_file(result.oof_md5, OUT_OF_FOLD) for result in (row, base))
    from callboard.better.comparison import difference_of
    from callboard.better.out_of_fold import precisions_in

    return difference_of(precisions_in(ours, clips), precisions_in(theirs, clips))
