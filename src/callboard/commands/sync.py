"""`callboard sync`: MLflow brought in line with git."""

import argparse
from typing import Any


def add(commands: Any) -> None:
    """Add the command to the parser."""
    sync = commands.add_parser(
        "sync", help="record every result that git has in MLflow; also after its database was lost"
    )
    sync.set_defaults(command=synchronise)


def synchronise(args: argparse.Namespace) -> None:
    """Bring MLflow up to date and say what was done."""
    from callboard.core.console import summarize
    from callboard.experiments.captions import memo_of
    from callboard.results.mlflow.sync import sync

    del args
    summarize("sync", *sync(memo_of).facts())
