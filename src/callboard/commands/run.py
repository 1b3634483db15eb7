"""`callboard run`: rows of experiments.yaml as DVC experiments."""

import argparse
import sys
from typing import Any

from callboard.commands.arguments import LARGEST_SEED, add_command, add_run_options, whole_number


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
            "callboard run --dry exp0025-mix": "what would be run, with the overrides",
            "callboard run --queue exp0058 -S train.epochs=5": "a shorter training, for `dvc queue start`",
        },
    )
    rows.add_argument("names", nargs="+", metavar="NAME", help="row, such as exp0058 or exp0036-thr0.7")
    add_run_options(rows, runs="rows", overridden="every row, also in those that others need")
    rows.add_argument(
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

    options = launch.RunOptions(args.queue, args.force, launch.n_jobs_of(args.jobs))
    if args.dry:
        launch.show_rows(args.names, options, args.extra, args.seed)
        return
    if status := launch.run_rows(args.names, options, args.extra, args.seed):
        sys.exit(status)
