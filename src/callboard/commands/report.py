"""`callboard report`: one result as a page."""

import argparse
from pathlib import Path
from typing import Any

from callboard.commands.arguments import RESULT_NAME


def add(commands: Any) -> None:
    """Add the command to the parser."""
    report = commands.add_parser("report", help="one result as a self-contained HTML page to look at")
    report.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help=f"{RESULT_NAME}; default the result of HEAD",
    )
    report.add_argument(
        "--output", type=Path, metavar="FILE", help="default reports/NAME.html, relative to the root"
    )
    report.add_argument(
        "--worst", type=int, default=6, metavar="N", help="recordings drawn; default %(default)s"
    )
    report.add_argument(
        "--no-scores", action="store_true", help="do not run the networks over those recordings"
    )
    report.set_defaults(command=write)


def write(args: argparse.Namespace) -> None:
    """Write the page of one result."""
    from callboard.core.errors import UserError
    from callboard.reports.result_page.sections import write_report

    if args.worst < 0:
        raise UserError(f"--worst must be 0 or more, found {args.worst}")
    write_report(args.name, args.output, args.worst, with_scores=not args.no_scores)
