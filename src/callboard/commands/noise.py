"""`callboard noise`: measure how far another seed alone moves the scores."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from callboard.core.errors import UserError

if TYPE_CHECKING:
    from callboard.experiments.seeds import SeedRun


def add(commands: Any) -> None:
    """Add the command to the parser."""
    noise = commands.add_parser(
        "noise", help="run a row or a result with other seeds, and print how far seeds alone move its scores"
    )
    noise.add_argument("name", metavar="NAME", help="row of experiments.yaml, experiment or run, as exp0051")
    noise.add_argument(
        "--seeds", type=int, default=5, help="runs in all, those that are there included; default %(default)s"
    )
    noise.add_argument(
        "-S", dest="extra", action="append", default=[], metavar="KEY=VALUE", help="for every run"
    )
    noise.add_argument("--queue", action="store_true", help="leave them to `dvc queue start`")
    noise.add_argument("--dry", "--dry-run", action="store_true", help="only print what would be run")
    noise.set_defaults(command=measure)


MAX_SEEDS = 100
"""Limit against typing errors: so many already give the spread to 7 %, and more would train for weeks."""


def measure(args: argparse.Namespace) -> None:
    """Run the seeds that are missing, then print the noise of all that are there."""
    if args.seeds < 2:
        raise UserError(f"--seeds {args.seeds}: noise needs at least 2 runs")
    if args.seeds > MAX_SEEDS:
        raise UserError(f"--seeds {args.seeds}: should be at most {MAX_SEEDS}; 5 to 10 tell enough")
    from callboard.experiments import seeds as seed_runs
    from callboard.reports.seeds import noise_lines

    rows = seed_runs.rows_so_far()
    overrides = seed_runs.overrides_of(args.name, args.extra, rows)
    found = seed_runs.runs_of(overrides, rows)
    missing = seed_runs.missing_runs(args.name, overrides, found, args.seeds)
    status = _show(args, missing) if args.dry else _run(args, missing)
    if missing and args.queue and not args.dry and not status:
        print(f"{len(missing)} queued; `dvc queue start`, and once they are finished this command again")
    if missing and not args.dry and not args.queue:
        found = seed_runs.runs_of(overrides, seed_runs.rows_so_far())
    print("\n".join(noise_lines(args.name, found)))
    if status:
        sys.exit(status)


def _show(args: argparse.Namespace, missing: list["SeedRun"]) -> int:
    """Print what `_run` would do.

    Raises:
        UserError: a queue cannot run a chain.
    """
    from callboard.experiments import launch
    from callboard.experiments import seeds as seed_runs

    is_chained = seed_runs.is_chained(args.name)
    for run in missing:
        if is_chained:
            launch.show_rows([args.name], launch.RunOptions(args.queue), args.extra, run.seed)
        else:
            print(f"{run.name}:", *run.overrides)
    return 0


def _run(args: argparse.Namespace, missing: list["SeedRun"]) -> int:
    from callboard.experiments import launch
    from callboard.experiments import seeds as seed_runs

    options = launch.RunOptions(args.queue)
    if seed_runs.is_chained(args.name):
        return seed_runs.run_chains(args.name, missing, options, args.extra)
    return seed_runs.run_all(missing, options)
