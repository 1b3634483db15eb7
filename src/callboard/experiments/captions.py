"""Memo and step of each row of experiments.yaml, cached by the file's content.

Checking the rows takes long, so the board reads only these: this module must not import pydantic at the top.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from callboard.core.errors import UserError
from callboard.core.json_cache import JsonCache
from callboard.experiments.steps import TableStep

if TYPE_CHECKING:
    from callboard.experiments.table import ExperimentTable
    from callboard.results.mlflow.record import Origin
    from callboard.results.result import Result


@dataclass(frozen=True)
class Caption:
    """The part of a table row that results show."""

    memo: str
    step: TableStep | None
    """Step from the row that its result is compared with."""


def read_captions(path: Path = Path("experiments.yaml")) -> dict[str, Caption]:
    """Map names of rows to captions; empty if the file does not exist.

    Raises:
        UserError: the file is not a table of experiments, or a row is wrong.
    """
    if not path.exists():
        return {}
    memory = JsonCache("captions", __name__)
    place = hashlib.sha256(path.read_bytes()).hexdigest()
    if place not in memory:
        memory[place] = _captions(path)
        memory.save()
    return {
        name: Caption(memo, TableStep(base, frozenset(keys)) if base else None)
        for name, (memo, base, keys) in memory[place].items()
    }


def _captions(path: Path) -> dict[str, tuple[str, str | None, list[str]]]:
    from callboard.experiments.table import read_experiments

    table = read_experiments(path)
    steps = {name: table.step(name) for name in table.rows}
    return {
        name: (row.memo_en, *((step.base, sorted(step.keys)) if (step := steps[name]) else (None, [])))
        for name, row in table.rows.items()
    }


def memo_of(names: Sequence[str]) -> str:
    """Return the memo of the first of these experiments that is in experiments.yaml; empty if none is."""
    if not names:
        return ""
    try:
        captions = read_captions()
    except UserError:  # reported when rows are run; here it must not cost a result
        return ""
    return next((captions[name].memo for name in names if name in captions), "")


def captioned(result: "Result", origin: "Origin") -> "tuple[Origin, str]":
    """Return what a new run of a result says: its origin, with a row's name if it has none, and its memo."""
    from callboard.results.committed import params_of

    if not origin.names:
        origin = replace(origin, experiment=matching_row(result, params_of(origin.commit)))
    return origin, memo_of(origin.names)


def matching_row(result: "Result", base: Mapping[str, str]) -> str:
    """Return the name of the row that a result is, as if `callboard run` had made it; empty if there is none.

    Args:
        result: The result.
        base: Flat parameters, with defaults, of the commit that it started from. What a row leaves to the
            workspace, seed and epochs among it, must be as it was there.
    """
    from callboard.experiments.table import TABLE
    from callboard.params.experiment import Experiment

    if not TABLE.exists():
        return ""
    try:
        table = _table(TABLE.read_bytes())
        tree = result.sections(*Experiment.model_fields)
        rows = [name for name, row in table.rows.items() if not (row.command or table.overrides(name, tree))]
    except UserError:  # as in memo_of
        return ""
    params = result.params
    changed = [key for key in params.keys() | base.keys() if params.get(key) != base.get(key)]
    return next((row for row in rows if not any(table.leaves_alone(key, row) for key in changed)), "")


@cache
def _table(content: bytes) -> "ExperimentTable":
    """Read experiments.yaml once for each content of it."""
    from callboard.experiments.table import read_experiments

    return read_experiments()
