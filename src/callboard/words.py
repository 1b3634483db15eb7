"""How commands say things: counts with their plural, and warnings."""

import sys

MISSING = "–"
"""Stands in a table for what there is not."""


def counted(count: int, what: str) -> str:
    """`1 result`, `2 results`."""
    return f"{count} {what}{'s' * (count != 1)}"


def warn(text: str) -> None:
    """Print a warning; the command goes on."""
    print(f"warning: {text}", file=sys.stderr, flush=True)
