"""Output for people: progress, one summary line, counts with their plural, warnings, errors as sentences."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from callboard.core.errors import UserError

T = TypeVar("T")

PLAIN_LINE_EVERY_S = 5.0
"""Pause between plain progress lines when the output is a file or a pipe."""


def progress(
    items: Iterable[T], *, total: int, label: str, unit: str, note: Callable[[], str] = str
) -> Iterator[T]:
    """Yield the items unchanged, with a bar on a terminal and a plain line every few seconds elsewhere.

    Both estimate the time left from the pace so far.

    Args:
        items: Items that the caller works on between one and the next.
        total: Number of items.
        label: Name of the activity.
        unit: Noun for the items, in the plural.
        note: Called after each item for more text to show, such as the loss.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm  # its import is a quarter of a fast command's start-up time

        with tqdm(items, total=total, desc=label, unit=f" {unit}", leave=False) as bar:
            for item in bar:
                yield item
                bar.set_postfix_str(note())
        return
    start = last_line = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last_line >= PLAIN_LINE_EVERY_S and done < total:
            last_line = now
            more = f", {text}" if (text := note()) else ""
            left = duration((now - start) / done * (total - done))
            print(f"{label}: {done} of {total} {unit}{more}, {left} left", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Format seconds as 42 s, 3 min or 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


class Stopwatch:
    """A clock that starts when it is constructed, for summary lines."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since construction."""
        return time.monotonic() - self._start


def summarize(stage: str, *facts: str) -> None:
    """Print a stage's summary in one line: the facts, such as counts, duration and score, and peak memory."""
    print(f"{stage}: {', '.join(facts)}, peak memory {peak_memory_mb():.0f} MB", flush=True)


def peak_memory_mb() -> float:
    """Return the most memory that this process has used so far, MB."""
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / 1e6
    import resource  # not on Windows, and only there does psutil have the peak

    in_mb = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / in_mb


def run_guarded(main: Callable[[], None]) -> None:
    """Call a stage's main; a UserError becomes one message on stderr and exit status 1."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(1)


MISSING = "–"
"""Table cell for an absent value."""

N_LISTED = 12
"""Number of names that `listed` shows of a longer list."""


def counted(count: int, what: str) -> str:
    """Return a count with its noun: `1 result`, `2 results`."""
    return f"{count} {what}{'s' * (count != 1)}"


def warn(text: str) -> None:
    """Print a warning; the command goes on."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def first_few(names: Sequence[str], most: int = 5) -> str:
    """Join names with commas; after the first `most`, only say how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def listed(names: Sequence[str]) -> str:
    """Join the first `N_LISTED` names with commas, with an ellipsis if there are more."""
    return ", ".join(names[:N_LISTED]) + " …" * (len(names) > N_LISTED)
