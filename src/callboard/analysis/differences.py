"""Differences between two results and their uncertainty, computed once from their tables in DVC's cache.

Nothing heavy is imported until a difference has to be computed: the board mostly reads remembered ones.
"""

from collections.abc import Iterable, Sequence
from dataclasses import astuple
from functools import cache
from statistics import fmean

from callboard.analysis.difference import Difference, MismatchError
from callboard.core.console import progress
from callboard.core.json_cache import JsonCache, shared_cache
from callboard.results.dvc_cache import NotCachedError, cached_file, is_cached
from callboard.results.result import CLIPS, OUT_OF_FOLD
from callboard.results.rows import BoardRow


def difference(row: BoardRow, base: BoardRow) -> Difference | None:
    """Return out-of-fold LWLRAP of `row` minus that of `base`; None if one of them has no CV.

    It has no interval if a table is not in DVC's cache, or the tables have different species.

    Raises:
        UserError: a table cannot be read, or contains a score that is not a finite number.
    """
    return mean_difference([(row, base)])


def mean_difference(pairs: Sequence[tuple[BoardRow, BoardRow]]) -> Difference | None:
    """Return the mean difference over pairs of result and base, with its interval over recordings.

    Args:
        pairs: One or more, all on the same annotations; without an interval if they are not, or as in
            `difference`.

    Raises:
        UserError: as in `difference`.
    """
    scores = [(row.metrics.get("cv.lwlrap"), base.metrics.get("cv.lwlrap")) for row, base in pairs]
    changes = [ours - theirs for ours, theirs in scores if ours is not None and theirs is not None]
    if len(changes) < len(pairs):
        return None
    memory = _remembered()
    key = "; ".join(_key(*pair) for pair in pairs)
    if key not in memory:
        measured = _measured(pairs)
        if measured is None:
            return Difference(fmean(changes))
        memory[key] = astuple(measured)
    return Difference(*memory[key])


def work_out(pairs: Iterable[tuple[BoardRow, BoardRow]]) -> None:
    """Compute the differences of these pairs that are not remembered, with progress on stderr."""
    memory = _remembered()
    new = {key: (row, base) for row, base in pairs if (key := _key(row, base)) not in memory}
    is_there = cache(is_cached)
    measurable = [
        (row, base)
        for row, base in new.values()
        if all(map(is_there, (row.clips_md5, row.oof_md5, base.oof_md5)))
    ]
    if not measurable:
        return
    for row, base in progress(measurable, total=len(measurable), label="differences", unit="pairs"):
        difference(row, base)


def _key(row: BoardRow, base: BoardRow) -> str:
    return f"{row.oof_md5} {base.oof_md5} {row.clips_md5}"


def _remembered() -> JsonCache:
    """Return differences by the md5 of the tables they were computed from."""
    return shared_cache("differences", "callboard.analysis.bootstrap")


def _measured(pairs: Sequence[tuple[BoardRow, BoardRow]]) -> Difference | None:
    """Compute a mean difference; None if a table is gone or the tables have different species."""
    try:
        files = [
            (
                cached_file(row.clips_md5, CLIPS),
                *(cached_file(one.oof_md5, OUT_OF_FOLD) for one in (row, base)),
            )
            for row, base in pairs
        ]
    except NotCachedError:
        return None
    from callboard.analysis.bootstrap import difference_of, mean_of, precisions_in

    try:
        ours, theirs = (
            mean_of([precisions_in(tables[side], clips) for clips, *tables in files]) for side in (0, 1)
        )
        return difference_of(ours, theirs)
    except MismatchError:
        return None
