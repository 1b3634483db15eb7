"""Runs that differ only in the seed: finding them, and running those that are missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from callboard.core.errors import UserError
from callboard.experiments.jobs.copies import Snapshot
from callboard.experiments.jobs.local import Workers
from callboard.experiments.launch import (
    Plan,
    RunOptions,
    experiment_of,
    experiment_row,
    run_experiment,
    run_planned,
    run_rows,
    with_overrides,
)
from callboard.experiments.overrides import hydra_overrides, refuse_bad_params, with_signs
from callboard.experiments.side_by_side import Planned
from callboard.experiments.table import TABLE, parameter, read_experiments
from callboard.params.base import read_tree
from callboard.params.defaults import result_params, text_value, with_defaults
from callboard.params.references import BLEND, all_but_seed
from callboard.results.committed import params_of
from callboard.results.result import changes
from callboard.results.rows import CV, BoardRow, newest_by_seed, rows_named


@dataclass(frozen=True)
class SeedRun:
    """A run still to be made."""

    name: str
    overrides: list[str]
    """Overrides of the workspace's parameters, as `dvc exp run -S` takes them; the seed comes last."""
    seed: int


def overrides_of(name: str, extra: Sequence[str], rows: Sequence[BoardRow]) -> list[str]:
    """Return the overrides that lead from the workspace's parameters to those of a result, or else of a row.

    Results that a row needs are named without their keys: each seed uses its own.

    Args:
        name: Name of a finished experiment or run, of which the newest counts, or of a row.
        extra: The user's overrides.
        rows: All results, oldest first.

    Raises:
        UserError: nothing has that name, the row is not an experiment, or a parameter is wrong.
    """
    tree = read_tree(Path("params.yaml"))
    table = read_experiments() if TABLE.exists() else None
    try:
        wanted = rows_named(name, rows, table.rows if table else ())[-1].params
    except UserError:
        if not table or name not in table.rows:
            raise
        plan = Plan(table, tree, extra)
        plan.refuse_bad_params(experiment_row(table, name).name)
        return plan.preview(name)
    overrides = with_signs([*_towards(wanted, result_params(with_defaults(tree))), *extra], tree)
    refuse_bad_params(overrides)
    return overrides


def _towards(wanted: dict[str, str], here: dict[str, str]) -> list[str]:
    """Return the overrides that lead from one set of flat parameters to another, except for the seed.

    Keys inside a free mapping, such as the arguments of a different backbone, are deleted.

    Args:
        wanted: Target parameters, with defaults.
        here: Parameters of the workspace, with defaults.
    """
    removed = [f"~{key}" for key in here if key not in wanted and parameter(key) is None]
    changed = [key for key in wanted if key != "seed" and here.get(key) != wanted[key]]
    return removed + [text for key in changed for text in hydra_overrides(key, text_value(wanted[key]))]


def runs_of(overrides: Sequence[str], rows: Sequence[BoardRow]) -> list[BoardRow]:
    """Return the newest result of each seed with these parameters, by seed, all on the newest one's data."""
    params = with_overrides(overrides)
    setting = all_but_seed(params)
    found = [row for row in rows if CV in row.metrics and all_but_seed(row.params) == setting]
    by_seed = newest_by_seed(row for row in found if row.measured_on == found[-1].measured_on)
    return [by_seed[seed] for seed in sorted(by_seed, key=int)]


def is_chained(name: str) -> bool:
    """Return whether a name is a row that needs results of other rows, which a new seed has to run too."""
    table = read_experiments() if TABLE.exists() else None
    return table is not None and name in table.rows and bool(table.needs(name))


def run_chains(name: str, runs: Sequence[SeedRun], options: RunOptions, extra: Sequence[str]) -> int:
    """Run a chained row with other seeds, each after the rows that it needs; stop as `run_all` does."""
    return run_rows([name], options, extra, [run.seed for run in runs])


def missing_runs(
    name: str, overrides: Sequence[str], found: Sequence[BoardRow], n_seeds: int
) -> list[SeedRun]:
    """Return the runs that `found` lacks of `n_seeds`, with the smallest unused seeds from 1.

    Raises:
        UserError: an experiment on this commit already has the name of one, or all blend the same parts.
    """
    is_alone = not is_chained(name)
    if is_alone and any(override.startswith(f"{BLEND}=[") for override in overrides):
        raise UserError("a blend has no noise of its own: its seed has no effect; name one of its parts")
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
            f"{run.name} exists on this commit with different parameters ({', '.join(differences)}); "
            f"give them with -S if they are intended, else `dvc exp remove {run.name}`"
        )
    raise UserError(f"{run.name} is finished but not among the results; `callboard sync` records it")


def run_all(runs: Sequence[SeedRun], options: RunOptions) -> int:
    """Run or queue runs, as `run_planned` does; return the exit status."""
    return run_planned([_planned(run, options) for run in runs], options)


def _planned(run: SeedRun, options: RunOptions) -> Planned:
    def finish(overrides: list[str], source: Snapshot, here: Workers) -> int:
        return run_experiment(run.name, overrides, options, source, here)

    return Planned(run.name, (), lambda: run.overrides, finish)
