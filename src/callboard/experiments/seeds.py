"""Runs that differ in nothing but the seed: which there are, which are missing, and running those."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callboard.core.errors import UserError
from callboard.experiments.launch import (
    Plan,
    RunOptions,
    experiment_of,
    experiment_row,
    run_experiment,
    run_rows,
    with_overrides,
)
from callboard.experiments.overrides import hydra_overrides, with_signs
from callboard.experiments.table import TABLE, parameter, read_experiments
from callboard.params.base import read_tree
from callboard.params.defaults import flatten, with_defaults
from callboard.params.references import BLEND, all_but_seed
from callboard.results.committed import params_of
from callboard.results.result import changes
from callboard.results.rows import CV, BoardRow, newest_by_seed, read_rows, rows_named
from callboard.results.stored_runs import NoResultsError


@dataclass(frozen=True)
class SeedRun:
    """A run that is still to be made."""

    name: str
    overrides: list[str]
    """Of the workspace's parameters, as `dvc exp run -S` takes them; the seed is the last."""
    seed: int


def rows_so_far() -> list[BoardRow]:
    """All results, oldest first; none before the first one."""
    try:
        return read_rows()
    except NoResultsError:
        return []


def overrides_of(name: str, extra: Sequence[str], rows: Sequence[BoardRow]) -> list[str]:
    """What turns the workspace's parameters into those of a result, else of a row of the table.

    Results that a row takes are named without their keys: each seed takes its own.

    Args:
        name: Of a finished experiment or run, of which the newest counts, or of a row.
        extra: Overrides of the user's.
        rows: All results, oldest first.

    Raises:
        UserError: nothing has that name, or what has it is no experiment.
    """
    tree = read_tree(Path("params.yaml"))
    table = read_experiments() if TABLE.exists() else None
    try:
        wanted = rows_named(name, rows, table.rows if table else ())[-1].params
    except UserError:
        if not table or name not in table.rows:
            raise
        return Plan(table, tree, extra).preview(experiment_row(table, name).name)
    return with_signs([*_towards(wanted, flatten(with_defaults(tree))), *extra], tree)


def _towards(wanted: dict[str, str], here: dict[str, str]) -> list[str]:
    """Overrides from one set of flat parameters to another, but for the seed.

    What is inside a free mapping, such as the arguments of another backbone, goes.

    Args:
        wanted: With defaults, as `here`.
        here: Of the workspace.
    """
    removed = [f"~{key}" for key in here if key not in wanted and parameter(key) is None]
    changed = [key for key in wanted if key != "seed" and here.get(key) != wanted[key]]
    return removed + [text for key in changed for text in hydra_overrides(key, _value(wanted[key]))]


def _value(text: str) -> Any:
    """A flat parameter as what it was; text that reads as JSON was no text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def runs_of(overrides: Sequence[str], rows: Sequence[BoardRow]) -> list[BoardRow]:
    """Results of these parameters and any seed, by seed; of one seed the newest, all of the newest's data."""
    params = with_overrides(overrides)
    setting = all_but_seed(params)
    found = [row for row in rows if CV in row.metrics and all_but_seed(row.params) == setting]
    by_seed = newest_by_seed(row for row in found if row.measured_on == found[-1].measured_on)
    return [by_seed[seed] for seed in sorted(by_seed, key=int)]


def is_chained(name: str) -> bool:
    """Whether a name is a row that takes results of other rows, which another seed has to run too."""
    table = read_experiments() if TABLE.exists() else None
    return table is not None and name in table.rows and bool(table.needs(name))


def run_chains(name: str, runs: Sequence[SeedRun], options: RunOptions, extra: Sequence[str]) -> int:
    """Run a chained row with other seeds, each behind the rows that it needs; the first bad exit status."""
    return _run_each(runs, lambda run: run_rows([name], options, extra, run.seed))


def missing_runs(
    name: str, overrides: Sequence[str], found: Sequence[BoardRow], n_seeds: int
) -> list[SeedRun]:
    """As many runs as `found` lacks of `n_seeds`, with the smallest seeds from 1 that it does not have.

    Raises:
        UserError: the name of one is taken by an experiment of this commit, or all blend the same parts.
    """
    is_alone = not is_chained(name)
    if is_alone and any(override.startswith(f"{BLEND}=[") for override in overrides):
        raise UserError("a blend has no noise of its own: its seed does nothing; name one of its parts")
    taken = {row.params["seed"] for row in found}
    free = (seed for seed in range(1, n_seeds + len(taken) + 1) if str(seed) not in taken)
    runs = [
        SeedRun(f"{name}-seed{seed}", [*overrides, f"seed={seed}"], seed)
        for seed, _ in zip(free, range(n_seeds - len(found)), strict=False)
    ]
    if is_alone:
        for run in runs:
            _refuse_taken(run)
    return runs


def _refuse_taken(run: SeedRun) -> None:
    experiment = experiment_of(run.name)
    if not experiment:
        return
    if differences := changes(params_of(experiment), with_overrides(run.overrides)):
        raise UserError(
            f"{run.name} is an experiment of this commit with other parameters ({', '.join(differences)}); "
            f"give them with -S if they are meant, else `dvc exp remove {run.name}`"
        )
    raise UserError(f"{run.name} is finished, but not among the results; `callboard sync` records it")


def run_all(runs: Sequence[SeedRun], options: RunOptions) -> int:
    """Run or queue them one after the other, up to the first that fails; its exit status, else 0."""
    return _run_each(runs, lambda run: run_experiment(run.name, run.overrides, options))


def _run_each(runs: Sequence[SeedRun], start: Callable[[SeedRun], int]) -> int:
    for number, run in enumerate(runs, start=1):
        print(f"noise: {run.name}, {number} of {len(runs)}", flush=True)
        if status := start(run):
            print(f"error: {run.name} failed; what is finished counts", file=sys.stderr, flush=True)
            return status
    return 0
