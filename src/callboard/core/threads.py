"""Many small jobs on a few threads; results do not depend on the number of threads."""

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
"""Environment variable with the number of threads, which is a property of the machine, not the experiment."""

JOBS_AHEAD = 8
"""Jobs in flight per thread: enough that no thread waits while an early job takes long."""


def n_workers() -> int:
    """Return the number of threads to use: CALLBOARD_WORKERS, or the processors available to this process.

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
    """Yield results in the order of `items`; at most `n_ahead` jobs are submitted and not yet consumed.

    The first failure, or a consumer that stops, cancels jobs that have not started.
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
    """Yield results in the order of `items`, with a progress bar; they wait in memory, so must be small."""
    n_threads = n_workers()
    results = ahead(job, items, n_threads, n_ahead=JOBS_AHEAD * n_threads)
    yield from progress(results, total=len(items), label=label, unit=unit)
