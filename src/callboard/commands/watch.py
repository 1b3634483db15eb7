"""`callboard watch`: learning curves of what trains now."""

import argparse
from typing import Any


def add(commands: Any) -> None:
    """Add the command to the parser."""
    watch = commands.add_parser("watch", help="learning curves of the folds that train now")
    watch.add_argument("--once", action="store_true", help="look once and end")
    watch.set_defaults(command=watch)


def watch(args: argparse.Namespace) -> None:
    """Show every running training until Ctrl-C; plain lines when the output is a pipe or a file."""
    from callboard.reports.watch import follow as follow_trainings

    try:
        follow_trainings(once=args.once)
    except KeyboardInterrupt:
        print("\nwatch: stopped; training goes on")
