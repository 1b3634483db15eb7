"""The step from one row of the table to another."""

from collections.abc import Set
from typing import NamedTuple


class TableStep(NamedTuple):
    """A base row and the keys in which a row differs from it."""

    base: str
    keys: Set[str]
    """Dotted keys."""


def is_below(key: str, keys: Set[str]) -> bool:
    """Return whether a dotted key is one of `keys` or inside a mapping that is."""
    parts = key.split(".")
    return any(".".join(parts[:n]) in keys for n in range(1, len(parts) + 1))
