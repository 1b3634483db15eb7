"""`callboard watch`: learning curves of running trainings."""

import argparse
from typing import Any

from callboard.commands.arguments import add_command


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "watch",
        help="show the learning curves of the folds that are training now",
        details="Includes `dvc exp run --temp` and queued experiments. Ctrl-C stops watching, not training.",
        examples={
            "callboard watch": "epoch, loss, LWLRAP and time left of each fold, redrawn every second",
            "callboard watch --once": "the same once",
        },
    )
    parser.add_argument("--once", action="store_true", help="print once and end; default: until Ctrl-C")
    parser.set_defaults(command=watch)


def watch(args: argparse.Namespace) -> None:
    """Show every running training until Ctrl-C, as plain lines where output is a pipe or file."""
    from callboard.reports.watch import follow as follow_trainings

    try:
        follow_trainings(once=args.once)
    except KeyboardInterrupt:
        print("\nwatch: stopped; training continues")
