"""`callboard sync`: update MLflow from git."""

import argparse
from typing import Any

from callboard.commands.arguments import add_command


def add(commands: Any) -> None:
    """Add the command to the parser."""
    sync = add_command(
        commands,
        "sync",
        help="record in MLflow every result that git has, also after the database was lost",
        details="Adds missing runs, and updates names and leaderboard scores.",
        examples={"callboard sync": "how many runs were added, renamed or rescored"},
    )
    sync.set_defaults(command=synchronise)


def synchronise(args: argparse.Namespace) -> None:
    """Bring MLflow up to date and print what changed."""
    from callboard.core.console import summarize
    from callboard.experiments.captions import captioned
    from callboard.results.mlflow.sync import sync

    del args
    summarize("sync", *sync(captioned).facts())
