"""`callboard doctor`: what is missing or inconsistent."""

import argparse
import sys
from typing import Any

from callboard.commands.arguments import add_command, add_jobs_options, job_options


def add(commands: Any) -> None:
    """Add the command to the parser."""
    doctor = add_command(
        commands,
        "doctor",
        help="list what is missing, inconsistent or about to be lost, and what to do about it",
        details="With --on, also checks the machines that would train folds, and the remote through which "
        "data reach them. Changes nothing. Exits with status 1 if results are lost.",
        examples={
            "callboard doctor": "one line per finding in git, DVC's cache and MLflow",
            "callboard doctor --on ray:node1:6379": "also whether a cluster can train this workspace's folds",
        },
    )
    add_jobs_options(doctor)
    doctor.set_defaults(command=diagnose)


def diagnose(args: argparse.Namespace) -> None:
    """Print a line per finding, and per machine elsewhere; exit with status 1 if a finding loses results."""
    from callboard.analysis.doctor.checks import CHECKS, examine
    from callboard.core.console import counted
    from callboard.experiments.jobs.options import LOCAL

    options = job_options(args)
    diagnosis = examine()
    print("\n".join(map(str, [*diagnosis.findings, *diagnosis.facts])))
    if options.place != LOCAL:
        from callboard.experiments.side_by_side import describe_machines

        print("\n".join(describe_machines(options)))
    if any(finding.loses_results for finding in diagnosis.findings):
        sys.exit(1)
    n_notes = len(diagnosis.findings)
    outcome = f"nothing is lost, {counted(n_notes, 'note')}" if n_notes else "all well"
    print(f"{outcome}: {len(CHECKS)} checks")
