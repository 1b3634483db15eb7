"""`callboard noise`: how much a different seed alone changes the scores."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from callboard.commands.arguments import MAX_SEEDS, add_command, add_run_options, job_options, whole_number

if TYPE_CHECKING:
    from callboard.experiments.seeds import SeedRun


def add(commands: Any) -> None:
    """Add the command to the parser."""
    noise = add_command(
        commands,
        "noise",
        help="run a row or result with further seeds, and show how much seeds alone change its scores",
        examples={
            "callboard noise exp0051": "the scores of five seeds, running those that are missing",
            "callboard noise exp0051 --seeds 8 --dry": "the runs that eight seeds still need",
        },
    )
    noise.add_argument(
        "name", metavar="NAME", help="row of experiments.yaml, experiment or run, such as exp0051"
    )
    noise.add_argument(
        "--seeds",
        type=whole_number(2, MAX_SEEDS),
        default=5,
        metavar="N",
        help="number of runs wanted, existing ones included; default %(default)s",
    )
    add_run_options(noise, runs="runs", overridden="every run")
    noise.set_defaults(command=measure)


def measure(args: argparse.Namespace) -> None:
    """Run the missing seeds, then print the noise of all runs."""
    from callboard.experiments import seeds as seed_runs
    from callboard.reports.seeds import noise_lines
    from callboard.results.rows import rows_so_far

    rows = rows_so_far()
    overrides = seed_runs.overrides_of(args.name, args.extra, rows)
    found = seed_runs.runs_of(overrides, rows)
    missing = seed_runs.missing_runs(args.name, overrides, found, args.seeds)
    status = _show(args, missing) if args.dry else _run(args, missing)
    if missing and args.queue and not args.dry and not status:
        print(f"{len(missing)} queued: run `dvc queue start` and, once they are finished, this command again")
    if missing and not args.dry and not args.queue:
        found = seed_runs.runs_of(overrides, rows_so_far())
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

    options = launch.RunOptions(args.queue, jobs=job_options(args))
    if seed_runs.is_chained(args.name):
        return seed_runs.run_chains(args.name, missing, options, args.extra)
    return seed_runs.run_all(missing, options)
