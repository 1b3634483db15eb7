"""How two results differ, worked out once."""

import atexit
import os
from collections.abc import Iterable
from dataclasses import astuple
from functools import cache

from callboard.better.difference import Difference, MismatchError
from callboard.errors import UserError
from callboard.finished import cached_file, is_cached
from callboard.memory import Memory
from callboard.results import CLIPS, OUT_OF_FOLD
from callboard.runs.rows import Row

VERSION = "1: 2000 resamples, seed 0"
"""Of how a difference follows from the tables."""


def difference(row: Row, base: Row) -> Difference | None:
    """Out-of-fold LWLRAP of `row` minus that of `base`; without interval where a table is not in DVC's cache.

    Nor has it one where the tables are of other species. What was worked out once is read from disk. None
    where one of the two has no CV.

    Raises:
        UserError: a table cannot be read, or holds a score that is no finite number.
    """
    ours, theirs = row.metrics.get("cv.lwlrap"), base.metrics.get("cv.lwlrap")
    if ours is None or theirs is None:
        return None
    memory, key = _remembered(os.environ.get("DVC_ROOT"), os.getcwd()), _key(row, base)
    if key not in memory:
        measured = _measured(row, base)
        if measured is None:
            return Difference(ours - theirs)
        memory[key] = astuple(measured)
    return Difference(*memory[key])


def work_out(pairs: Iterable[tuple[Row, Row]]) -> None:
    """Work out those differences of these pairs that are not remembered, with progress on stderr."""
    memory = _remembered(os.environ.get("DVC_ROOT"), os.getcwd())
    new = {key: (row, base) for row, base in pairs if (key := _key(row, base)) not in memory}
    is_there = cache(is_cached)
    measurable = [
        (row, base)
        for row, base in new.values()
        if all(map(is_there, (row.clips_md5, row.oof_md5, base.oof_md5)))
    ]
    if not measurable:
        return
    from callboard.terminal import progress

    for row, base in progress(measurable, total=len(measurable), label="differences", unit="pairs"):
        difference(row, base)


def _key(row: Row, base: Row) -> str:
    return f"{row.oof_md5} {base.oof_md5} {row.clips_md5}"


@cache
def _remembered(_dvc_root: str | None, _folder: str) -> Memory:
    """Differences by the md5 of what they were worked out from; written when the process ends."""
    memory = Memory("differences", VERSION)
    atexit.register(memory.save)
    return memory


def _measured(row: Row, base: Row) -> Difference | None:
    """None where a table is gone, or they are of other species; without files nothing heavy is imported."""
    try:
        clips = cached_file(row.clips_md5, CLIPS)
        ours, theirs = (cached_file(result.oof_md5, OUT_OF_FOLD) for result in (row, base))
    except UserError:
        return None
    from callboard.better.comparison import difference_of
    from callboard.better.out_of_fold import precisions_in

    try:
        return difference_of(precisions_in(ours, clips), precisions_in(theirs, clips))
    except MismatchError:
        return None
