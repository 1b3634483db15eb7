"""How commands say things: counts with their plural, and warnings."""

import sys
from collections.abc import Sequence

MISSING = "–"
"""Stands in a table for what there is not."""

N_LISTED = 12
"""Names that are told of a longer list."""


def counted(count: int, what: str) -> str:
    """`1 result`, `2 results`."""
    return f"{count} {what}{'s' * (count != 1)}"


def warn(text: str) -> None:
    """Print a warning; the command goes on."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def listed(names: Sequence[str]) -> str:
    """Names, the first of many."""
    return ", ".join(names[:N_LISTED]) + " …" * (len(names) > N_LISTED)
