"""The `callboard` command: everything around an experiment that `dvc` itself does not do."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from callboard.commands import (
    adversarial,
    audit,
    author,
    board,
    diff,
    doctor,
    gains,
    lb,
    noise,
    preset,
    report,
    run,
    show,
    suspects,
    sync,
    trust,
    ui,
    watch,
)
from callboard.core.console import run_guarded as run_guarded
from callboard.core.errors import UserError

DESCRIPTION = """\
The experiment board of a species-call detector.

Experiments are run with DVC:
  dvc repro                                 the pipeline, as far as something changed
  callboard run exp0058                     a row of the author's table, as an experiment of that name
  dvc exp run -S loss.neg_mask=seq          one experiment; its row appears on the board
  dvc exp run --queue -S ... ; dvc queue start
"""

GROUPS: dict[str, Sequence[ModuleType]] = {
    "run": (run, preset, watch),
    "look at results": (board, show, diff, report, ui),
    "labels to listen to again": (suspects,),
    "scores of the leaderboard": (lb,),
    "how far to trust a difference": (gains, noise, trust, adversarial, audit),
    "keep git, DVC and MLflow in step": (sync, doctor, author),
}
"""In the order of --help. These modules import the rest of the package only when their command runs."""


class Group:
    """Commands under a heading of their own, which argparse does not have."""

    def __init__(self, commands: Any, title: str) -> None:
        """Start an empty group.

        Args:
            commands: What `add_subparsers` returned.
            title: Heading.
        """
        self._commands = commands
        self._lines = [f"{title}:"]

    def add_parser(self, name: str, *, help: str, **settings: Any) -> argparse.ArgumentParser:
        """As that of `add_subparsers`; the command is listed here and not by argparse."""
        self._lines.append(f"  {name:<13}{help}")
        parser: argparse.ArgumentParser = self._commands.add_parser(name, **{"description": help} | settings)
        return parser

    def __str__(self) -> str:
        return "\n".join(self._lines)


def main() -> None:
    """Entry point; a user's mistake becomes one message and exit status 1."""
    run_guarded(lambda: dispatch(sys.argv[1:]))


def dispatch(argv: list[str]) -> None:
    """Parse the arguments and run the command that they name, from the root of the workspace."""
    parser = argparse.ArgumentParser(
        "callboard", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", help="one of those below")
    groups = []
    for title, modules in GROUPS.items():
        groups.append(Group(commands, title))
        for module in modules:
            module.add(groups[-1])
    parser.epilog = "\n\n".join([*map(str, groups), "callboard COMMAND --help tells the rest"])
    args = parser.parse_args(argv)
    os.chdir(workspace_root())
    args.command(args)


def workspace_root() -> Path:
    """The nearest folder upwards that holds dvc.yaml.

    Raises:
        UserError: there is none.
    """
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise UserError(f"no dvc.yaml in {Path.cwd()} or above; run callboard inside a workspace")
