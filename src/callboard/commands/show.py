"""`callboard show`: one result."""

import argparse
from typing import Any

from callboard.commands import RESULT_NAME


def add(commands: Any) -> None:
    """Add the command to the parser."""
    show = commands.add_parser("show", help="one result: scores, verdict, what it changed, species, files")
    show.add_argument("name", metavar="NAME", help=RESULT_NAME)
    show.set_defaults(command=show_result)


def show_result(args: argparse.Namespace) -> None:
    """Print what is known of the newest result of that name."""
    from callboard.board.details import details
    from callboard.board.lines import judged_line
    from callboard.ledger.entries import entries_of
    from callboard.runs.captions import read_captions
    from callboard.runs.named_row import rows_named, source_of
    from callboard.runs.rows import read_rows
    from callboard.workspace import main_workspace

    rows = read_rows()
    *namesakes, row = rows_named(args.name, rows)
    line = judged_line(row, rows, read_captions())
    print(details(line, namesakes, source_of(row, rows), entries_of(main_workspace())), end="")
