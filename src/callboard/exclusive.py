"""One process at a time, by a lock on a file."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(place: Path, refusal: type[Exception]) -> Iterator[None]:
    """Wait until no other process is in a block of the same place.

    Args:
        place: A file that is made for this; its folder too.
        refusal: What is raised where the file cannot be written.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        file = place.open("w")
    except OSError as error:
        raise refusal(f"{place}: {error.strerror}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
