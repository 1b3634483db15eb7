"""What experiments.yaml says of each name, remembered by the file's content: checking its rows takes long."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from callboard.core.errors import UserError
from callboard.core.json_cache import JsonCache
from callboard.experiments.table import TableStep, read_experiments

CAPTIONS_VERSION = "1"
"""Of how captions follow from the file."""


@dataclass(frozen=True)
class Caption:
    """A row of the table as far as results show it."""

    memo: str
    step: TableStep | None
    """From the row that its result is compared with."""


def read_captions(path: Path = Path("experiments.yaml")) -> dict[str, Caption]:
    """By name; empty where there is no such file.

    Raises:
        UserError: the file is no table, or a row is wrong.
    """
    if not path.exists():
        return {}
    memory = JsonCache("captions", CAPTIONS_VERSION)
    place = hashlib.sha256(path.read_bytes()).hexdigest()
    if place not in memory:
        memory[place] = _captions(path)
        memory.save()
    return {
        name: Caption(memo, TableStep(base, frozenset(keys)) if base else None)
        for name, (memo, base, keys) in memory[place].items()
    }


def _captions(path: Path) -> dict[str, tuple[str, str | None, list[str]]]:
    table = read_experiments(path)
    steps = {name: table.step(name) for name in table.rows}
    return {
        name: (row.memo_en, *((step.base, sorted(step.keys)) if (step := steps[name]) else (None, [])))
        for name, row in table.rows.items()
    }


def memo_of(names: Sequence[str]) -> str:
    """The memo of the first of these experiments that experiments.yaml has; empty where there is none."""
    if not names:
        return ""
    try:
        captions = read_captions()
    except UserError:  # a wrong table is reported where its rows are run; it costs no result
        return ""
    return next((captions[name].memo for name in names if name in captions), "")
