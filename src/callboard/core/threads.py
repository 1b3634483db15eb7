"""Many small jobs on a few threads; results do not depend on how many."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from callboard.core.console import progress
from callboard.core.errors import UserError

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

VARIABLE = "CALLBOARD_WORKERS"
"""Environment variable: a fact of the machine, never of the experiment."""

JOBS_AHEAD = 8
"""Per thread: enough that no thread waits while an early job takes long."""


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


def ahead(
    job: Callable[[Item], Outcome], items: Iterable[Item], n_threads: int, n_ahead: int
) -> Iterator[Outcome]:
    """Results in the order of `items`; at most `n_ahead` are begun and not yet taken.

    The first failure, or a reader that stops, cancels what has not begun.
    """
    begun: deque[Future[Outcome]] = deque()
    pool = ThreadPoolExecutor(n_threads)
    try:
        for item in items:
            if len(begun) == n_ahead:
                yield begun.popleft().result()
            begun.append(pool.submit(job, item))
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def map_threaded(
    job: Callable[[Item], Outcome], items: Sequence[Item], *, label: str, unit: str
) -> Iterator[Outcome]:
    """Results in the order of `items`, with a progress bar; results wait in memory, so they must be small."""
    n_threads = n_workers()
    results = ahead(job, items, n_threads, n_ahead=JOBS_AHEAD * n_threads)
    yield from progress(results, total=len(items), label=label, unit=unit)
