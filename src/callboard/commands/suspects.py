"""`callboard suspects`: labels that the networks doubt, for a person to review."""

import argparse
from pathlib import Path
from typing import Any

from callboard.commands.arguments import HEAD_RESULT, absolute_path, add_command, whole_number


def add(commands: Any) -> None:
    """Add the command to the parser."""
    suspects = add_command(
        commands,
        "suspects",
        help="rank the labels that the networks doubt, for review; --apply takes the review into the data",
        details="Fill in the column `verdict` of the table while listening. Experiments use the reviewed "
        "labels with `-S data.corrections=true`.",
        examples={
            "callboard suspects": "suspects.csv, the 100 most doubtful labels of each kind",
            "callboard suspects exp0058 --kind fp --top 30": "30 rejected boxes that exp0058 scores high",
            "callboard suspects --apply suspects.csv": "append the reviewed rows to corrections.csv",
        },
    )
    suspects.add_argument("name", nargs="?", metavar="NAME", help=HEAD_RESULT)
    suspects.add_argument(
        "--kind",
        action="append",
        choices=("tp", "fp", "missing"),
        help="confirmed boxes, rejected boxes, or species without any label; repeatable; default: all",
    )
    suspects.add_argument(
        "--top",
        type=whole_number(1),
        default=100,
        metavar="N",
        help="labels of each kind; default %(default)s",
    )
    suspects.add_argument(
        "--output",
        type=Path,
        default=Path("suspects.csv"),
        metavar="FILE",
        help="the table to write, relative to the workspace; default %(default)s",
    )
    suspects.add_argument(
        "--apply",
        type=absolute_path,
        metavar="FILE",
        help="instead of ranking, append the rows of a reviewed table that have a verdict to corrections.csv",
    )
    suspects.set_defaults(command=rank_or_apply)


def rank_or_apply(args: argparse.Namespace) -> None:
    """Write a table to review, or append a reviewed one to corrections.csv."""
    from callboard.core.errors import UserError
    from callboard.data.corrections import CORRECTION_KINDS

    if args.apply:
        if args.name or args.kind:
            raise UserError("--apply: takes a reviewed table, and neither NAME nor --kind")
        from callboard.analysis.suspects.review import apply_review

        apply_review(args.apply)
        return
    from callboard.analysis.suspects.review import write_suspects

    write_suspects(args.name, args.kind or CORRECTION_KINDS, args.top, args.output)
