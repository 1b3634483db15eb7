"""Output for people: progress, one summary line, counts with their plural, warnings, errors as sentences."""

import errno
import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NoReturn, TextIO, TypeVar

from callboard.core.errors import UserError
from callboard.core.files import REFUSED
from callboard.core.redaction import redacted
from callboard.core.tracebacks import unexpected

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
            say(f"{label}: {done} of {total} {unit}{more}, {left} left", sys.stderr)


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
    say(f"{stage}: {', '.join(facts)}, peak memory {peak_memory_mb():.0f} MB", sys.stdout)


def peak_memory_mb() -> float:
    """Return the most memory that this process has used so far, MB."""
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / 1e6
    import resource  # not on Windows, and only there does psutil have the peak

    in_mb = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / in_mb


def run_guarded(main: Callable[[], None]) -> None:
    """Call a command's or stage's main; an error becomes one message and exit status 1.

    A user can mend a UserError, and a file that cannot be written or opened for lack of permission or space.
    Any other error is a fault of ours, whose traceback is kept in a file. If nobody reads the output any
    more, as after `| head`, the command ends quietly. Characters that the output's encoding lacks are
    replaced.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        try:
            main()
        finally:
            if sys.stdout:
                sys.stdout.flush()
    except UserError as error:
        _fail(str(error))
    except BrokenPipeError:
        _drop_output()
        sys.exit(READER_LEFT)
    except Exception as error:
        if not isinstance(error, OSError) or error.errno not in {*REFUSED, errno.ENAMETOOLONG}:
            _fail(unexpected(error))
        if not error.filename:
            _drop_output()  # it may be the output that has no space, and would fail again at exit
        _fail(": ".join(str(part) for part in (error.filename, error.strerror) if part))


READER_LEFT = 128 + 13
"""Exit status of a program whose output nobody reads, as of one that SIGPIPE ends."""


def _fail(text: str) -> NoReturn:
    say(f"error: {redacted(text)}", sys.stderr)
    sys.exit(1)


def say(text: str, stream: TextIO) -> None:
    """Print a line; if nobody reads it, the work goes on."""
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        _drop_output()


def _drop_output() -> None:
    """Send what nobody reads to the null device, or Python would complain about it at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


MISSING = "–"
"""Table cell for an absent value."""

N_LISTED = 12
"""Number of names that `listed` shows of a longer list."""


def counted(count: int, what: str) -> str:
    """Return a count with its noun: `1 result`, `2 results`."""
    return f"{count} {what}{'s' * (count != 1)}"


def warn(text: str) -> None:
    """Print a warning; the command goes on."""
    say(f"warning: {redacted(text)}", sys.stderr)


def first_few(names: Sequence[str], most: int = 5) -> str:
    """Join names with commas; after the first `most`, only say how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def listed(names: Sequence[str]) -> str:
    """Join the first `N_LISTED` names with commas, with an ellipsis if there are more."""
    return ", ".join(names[:N_LISTED]) + " …" * (len(names) > N_LISTED)
