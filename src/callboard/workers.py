"""Many small jobs on a few threads; results do not depend on how many."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from callboard.errors import UserError
from callboard.terminal import progress

Item = TypeVar("Item")
Result = TypeVar("Result")

VARIABLE = "CALLBOARD_WORKERS"
"""Environment variable: a fact of the machine, never of the experiment."""


def n_workers() -> int:
    """Threads to use: CALLBOARD_WORKERS, or the number of processors this process may use.

    Raises:
        UserError: CALLBOARD_WORKERS is not a whole number above 0.
    """
    text = os.environ.get(VARIABLE)
    if text is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not text.isdigit() or int(text) == 0:
        raise UserError(f"{VARIABLE} is {text!r}, expected a whole number above 0")
    return int(text)


def map_threaded(
    job: Callable[[Item], Result], items: Sequence[Item], *, label: str, unit: str
) -> Iterator[Result]:
    """Results in the order of `items`, with a progress bar; the first failure cancels what has not begun."""
    with ThreadPoolExecutor(max_workers=n_workers()) as pool:
        try:
            yield from progress(pool.map(job, items), total=len(items), label=label, unit=unit)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
