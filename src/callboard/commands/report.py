"""`callboard report`: one result as an HTML page."""

import argparse
from pathlib import Path
from typing import Any

from callboard.commands.arguments import HEAD_RESULT, add_command, whole_number


def add(commands: Any) -> None:
    """Add the command to the parser."""
    report = add_command(
        commands,
        "report",
        help="write one result as a self-contained HTML page",
        details="It has learning curves, species, the costliest recordings, calibration and a leak audit.",
        examples={
            "callboard report exp0058": "reports/exp0058.html",
            "callboard report --worst 20": "the result of HEAD, with its 20 worst recordings",
            "callboard report exp0058 --no-scores": "the same without running networks, faster",
        },
    )
    report.add_argument("name", nargs="?", metavar="NAME", help=HEAD_RESULT)
    report.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the file, relative to the workspace; default: reports/NAME.html",
    )
    report.add_argument(
        "--worst",
        type=whole_number(1),
        default=6,
        metavar="N",
        help="number of recordings to draw, the costliest first; default %(default)s",
    )
    report.add_argument(
        "--no-scores",
        action="store_true",
        help="do not load the networks: no scores below the spectrograms, and a shorter leak audit",
    )
    report.set_defaults(command=write)


def write(args: argparse.Namespace) -> None:
    """Write the page of one result."""
    from callboard.reports.result_page.sections import write_report

    write_report(args.name, args.output, args.worst, with_scores=not args.no_scores)
