"""`callboard doctor`: what is missing or inconsistent."""

import argparse
import sys
from typing import Any

from callboard.commands.arguments import add_command


def add(commands: Any) -> None:
    """Add the command to the parser."""
    doctor = add_command(
        commands,
        "doctor",
        help="list what is missing, inconsistent or about to be lost, and what to do about it",
        details="Changes nothing. Exits with status 1 if results are lost.",
        examples={"callboard doctor": "one line per finding in git, DVC's cache and MLflow"},
    )
    doctor.set_defaults(command=diagnose)


def diagnose(args: argparse.Namespace) -> None:
    """Print a line per finding; exit with status 1 if one of them loses results."""
    from callboard.analysis.doctor.checks import CHECKS, examine
    from callboard.core.console import counted

    del args
    diagnosis = examine()
    print("\n".join(map(str, [*diagnosis.findings, *diagnosis.facts])))
    if any(finding.loses_results for finding in diagnosis.findings):
        sys.exit(1)
    n_notes = len(diagnosis.findings)
    outcome = f"nothing is lost, {counted(n_notes, 'note')}" if n_notes else "all well"
    print(f"{outcome}: {len(CHECKS)} checks")
