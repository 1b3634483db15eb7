"""From one row of the table to another: what separates two experiments."""

from collections.abc import Set
from typing import NamedTuple


class TableStep(NamedTuple):
    """The step from one row of the table to another."""

    base: str
    keys: Set[str]
    """Dotted keys in which they differ."""


def is_below(key: str, keys: Set[str]) -> bool:
    """Whether a dotted key is one of `keys` or lies in a mapping that is."""
    parts = key.split(".")
    return any(".".join(parts[:n]) in keys for n in range(1, len(parts) + 1))
