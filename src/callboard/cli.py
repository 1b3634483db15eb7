"""The `callboard` command: rows of the table, the board, adversarial validation, MLflow's pages."""

import argparse
import os
import sys
from pathlib import Path

from callboard.commands import (
    adversarial,
    author,
    board,
    diff,
    doctor,
    lb,
    noise,
    report,
    run,
    show,
    sync,
    trust,
    ui,
    watch,
)
from callboard.errors import UserError
from callboard.terminal import run as run_guarded

DESCRIPTION = """\
The experiment board of a species-call detector.

Experiments are run with DVC:
  dvc repro                                 the pipeline, as far as something changed
  callboard run exp0058                     a row of the author's table, as an experiment of that name
  dvc exp run -S loss.neg_mask=seq          one experiment; its row appears on the board
  dvc exp run --queue -S ... ; dvc queue start
"""


COMMANDS = (board, show, diff, report, run, lb, noise, author, adversarial, trust, sync, doctor, ui, watch)
"""In the order of --help. These modules import the rest of the package only when their command runs."""


def main() -> None:
    """Entry point; a user's mistake becomes one message and exit status 1."""
    run_guarded(lambda: dispatch(sys.argv[1:]))


def dispatch(argv: list[str]) -> None:
    """Parse the arguments and run the command that they name, from the root of the workspace."""
    parser = argparse.ArgumentParser(
        "callboard", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    for command in COMMANDS:
        command.add(commands)
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
