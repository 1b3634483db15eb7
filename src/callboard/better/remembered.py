"""How two results differ, worked out once."""

import atexit
import os
from dataclasses import astuple
from functools import cache

from callboard.better.difference import Difference
from callboard.finished import cached_file
from callboard.memory import Memory
from callboard.results import CLIPS, OUT_OF_FOLD
from callboard.runs.rows import Row

DIFFERENCES_VERSION = "1: 2000 resamples, seed 0"
"""Part of the key of every remembered difference; another one forgets them all."""


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
