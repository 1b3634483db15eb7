"""`callboard repro`: `dvc repro`, with folds trained side by side."""

import argparse
import sys
from typing import Any

from callboard.commands.arguments import add_command, add_jobs_options, job_options


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "repro",
        help="run what is out of date in the workspace, like `dvc repro`, but folds side by side",
        details="Folds are trained in copies of the workspace, including uncommitted changes; then `dvc "
        "repro` takes them from DVC's cache and runs the rest.",
        examples={
            "callboard repro": "as many folds at a time as there are processors",
            "callboard repro --jobs 1": "the same as `dvc repro`",
        },
    )
    add_jobs_options(parser)
    parser.set_defaults(command=repro)


def repro(args: argparse.Namespace) -> None:
    """Run the pipeline; exit with DVC's status."""
    from callboard.experiments.launch import reproduce

    if status := reproduce(job_options(args)):
        sys.exit(status)
