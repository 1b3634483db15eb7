"""`callboard init`: params.yaml for a folder of one's own recordings."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from callboard.commands.arguments import absolute_path, add_command
from callboard.core.errors import UserError


def add(commands: Any) -> None:
    """Add the command to the parser."""
    init = add_command(
        commands,
        "init",
        help="propose params.yaml for a folder of your own recordings and tables",
        details="Reads tables and recordings, times some training steps, reports what looks wrong, prints "
        "each setting with its reason, and writes params.yaml after asking. The settings are those of "
        "exp0051, the row of experiments.yaml that the committed params.yaml reproduces, scaled to your "
        "data; other rows then run on your data without changes.",
        examples={
            "callboard init data/recordings": "report and settings with reasons; then asks",
            "callboard init data/recordings --yes": "the same without asking",
        },
    )
    init.add_argument(
        "folder",
        type=absolute_path,
        metavar="FOLDER",
        help="folder with train/, train_tp.csv, train_fp.csv and, to score new recordings, test/",
    )
    init.add_argument("--yes", action="store_true", help="write params.yaml without asking")
    init.set_defaults(command=propose_settings)


def propose_settings(args: argparse.Namespace) -> None:
    """Print the report, and write params.yaml if the user agrees."""
    from callboard.analysis.proposal.machine import machine_recipe, training_time
    from callboard.analysis.proposal.settings import propose
    from callboard.analysis.proposal.survey import survey_folder
    from callboard.core.workspace import main_workspace
    from callboard.experiments.presets import keep_params, write_values
    from callboard.params.defaults import read_full_tree
    from callboard.reports.proposal import proposal_text

    folder, workspace = Path(os.path.normpath(args.folder)), main_workspace()
    root = str(folder.relative_to(workspace) if folder.is_relative_to(workspace) else folder)
    proposal = propose(survey_folder(folder, root), read_full_tree(), machine_recipe())
    print(proposal_text(proposal, training_time(proposal)))
    if not args.yes and not _agrees():
        print("init: params.yaml is unchanged")
        return
    undo = keep_params()
    write_values(proposal.values, "the proposed params.yaml", f"exp0051 for {root}, by `callboard init`.")
    print(f"init: params.yaml is written; {undo}; commit it, then run `dvc repro`")


def _agrees() -> bool:
    """Ask on the terminal.

    Raises:
        UserError: there is no terminal.
    """
    if not sys.stdin.isatty():
        raise UserError("params.yaml is unchanged: there is no terminal to ask on; --yes writes it")
    return input("Write these settings into params.yaml? [y/N] ").strip().lower() in ("y", "yes")
