"""`callboard suspects`: labels that the models doubt, for a person to review."""

import argparse
from pathlib import Path
from typing import Any

from callboard.commands.arguments import RESULT_NAME


def add(commands: Any) -> None:
    """Add the command to the parser."""
    suspects = commands.add_parser(
        "suspects", help="labels that the models doubt, ranked for review; and the review back into the data"
    )
    suspects.add_argument(
        "name", nargs="?", metavar="EXPERIMENT", help=f"{RESULT_NAME}; default the result of HEAD"
    )
    suspects.add_argument(
        "--kind",
        action="append",
        choices=("tp", "fp", "missing"),
        help="confirmed boxes, rejected boxes, or species without any label; repeatable, default all",
    )
    suspects.add_argument(
        "--top", type=int, default=100, metavar="N", help="of each kind; default %(default)s"
    )
    suspects.add_argument(
        "--output", type=Path, default=Path("suspects.csv"), metavar="FILE", help="default %(default)s"
    )
    suspects.add_argument(
        "--apply",
        type=lambda text: Path(text).absolute(),
        metavar="FILE",
        help="append the rows of a reviewed table that have a verdict to corrections.csv",
    )
    suspects.set_defaults(command=rank_or_apply)


def rank_or_apply(args: argparse.Namespace) -> None:
    """Write a table to review, or take a reviewed one."""
    from callboard.core.errors import UserError
    from callboard.data.corrections import CORRECTION_KINDS

    if args.apply:
        if args.name or args.kind:
            raise UserError("--apply: takes a reviewed table and nothing else")
        from callboard.analysis.suspects.review import apply_review

        apply_review(args.apply)
        return
    if args.top < 1:
        raise UserError(f"--top must be 1 or more, found {args.top}")
    from callboard.analysis.suspects.review import write_suspects

    write_suspects(args.name, args.kind or CORRECTION_KINDS, args.top, args.output)
