"""`callboard run`: rows of experiments.yaml as DVC experiments."""

import argparse
import sys
from typing import Any


def add(commands: Any) -> None:
    """Add the command to the parser."""
    rows = commands.add_parser(
        "run",
        help="rows of experiments.yaml, each as a DVC experiment of its name, behind the rows that it needs",
    )
    rows.add_argument("names", nargs="+", metavar="NAME", help="as exp0058 or exp0036-thr0.7")
    rows.add_argument(
        "-S",
        dest="extra",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="for every row, also those that come first",
    )
    rows.add_argument(
        "--seed", type=int, metavar="N", help="run NAME-seedN with this seed, and what it needs likewise"
    )
    rows.add_argument("--queue", action="store_true", help="leave them to `dvc queue start`")
    rows.add_argument(
        "--force",
        action="store_true",
        help="run every stage again, replace the experiment; not of rows that another needs",
    )
    rows.add_argument("--dry", "--dry-run", action="store_true", help="only print what would be run")
    rows.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Run rows of the table, or print their overrides; the exit status of the first that fails is ours."""
    from callboard.core.errors import UserError
    from callboard.experiments import launch

    if args.seed is not None and not 0 <= args.seed < 2**32:
        raise UserError(f"--seed {args.seed}: must be at least 0 and below 2^32")
    options = launch.RunOptions(args.queue, args.force)
    if args.dry:
        launch.show_rows(args.names, options, args.extra, args.seed)
        return
    if status := launch.run_rows(args.names, options, args.extra, args.seed):
        sys.exit(status)
