"""`callboard show`: one result."""

import argparse
from typing import Any


def add(commands: Any) -> None:
    """Add the command to the parser."""
    show = commands.add_parser("show", help="one result: scores, verdict, what it changed, species, files")
    show.add_argument("name", metavar="NAME", help="an experiment or run, NAME@KEY, or the start of a key")
    show.set_defaults(command=show_result)


def show_result(args: argparse.Namespace) -> None:
    """Print what is known of the newest result of that name."""
    from callboard.board.captions import read_captions
    from callboard.board.details import details
    from callboard.board.lines import judged, result_line
    from callboard.ledger.entries import entries_of
    from callboard.runs.named_row import rows_named, source_of
    from callboard.runs.rows import read_rows
    from callboard.tracker.tracking import tracking_uri
    from callboard.workspace import main_workspace

    rows = read_rows(tracking_uri())
    *namesakes, row = rows_named(args.name, rows)
    ((line,),) = judged([[result_line(row, rows, read_captions())]], rows)
    print(details(line, namesakes, source_of(row, rows), entries_of(main_workspace())), end="")
