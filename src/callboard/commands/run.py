"""`callboard run`: rows of experiments.yaml as DVC experiments."""

import argparse
import sys
from typing import Any

from callboard.commands.arguments import (
    LARGEST_SEED,
    MAX_SEEDS,
    add_command,
    add_run_options,
    job_options,
    whole_number,
)


def add(commands: Any) -> None:
    """Add the command to the parser."""
    rows = add_command(
        commands,
        "run",
        help="run rows of experiments.yaml as DVC experiments, after the rows that they need",
        details="Each runs in a copy of the workspace, which stays as it is. An experiment that the current "
        "commit already has is not run again.",
        examples={
            "callboard run exp0051 exp0058": "train two rows, to be compared by `callboard board`",
            "callboard run exp0058 --seeds 3": "a row with three seeds, as exp0058, exp0058-seed1 and -seed2",
            "callboard run --dry exp0025-mix -S train.epochs=5": "what would be run, with the overrides",
        },
    )
    rows.add_argument("names", nargs="+", metavar="NAME", help="row, such as exp0058 or exp0036-thr0.7")
    add_run_options(rows, runs="rows", overridden="every row, also in those that others need")
    seeds = rows.add_mutually_exclusive_group()
    seeds.add_argument(
        "--seeds",
        type=whole_number(1, MAX_SEEDS),
        metavar="N",
        help="run each row with N seeds: that of params.yaml, then 1, 2, … as NAME-seed1, NAME-seed2, …",
    )
    seeds.add_argument(
        "--seed",
        type=whole_number(0, LARGEST_SEED),
        metavar="N",
        help="use this seed and name the experiments NAME-seedN; default: the seed of the row or params.yaml",
    )
    rows.add_argument(
        "--force",
        action="store_true",
        help="run every stage again and replace the experiment, except of rows that only others need",
    )
    rows.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Run rows of the table, or print their overrides; exit with the status of the first that fails."""
    from callboard.experiments import launch

    options = launch.RunOptions(args.queue, args.force, job_options(args))
    seeds = launch.first_seeds(args.seeds) if args.seeds else [args.seed]
    if args.dry:
        for seed in seeds:
            launch.show_rows(args.names, options, args.extra, seed)
        return
    if status := launch.run_rows(args.names, options, args.extra, seeds):
        sys.exit(status)
