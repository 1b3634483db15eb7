"""`callboard board`: the table of results."""

import argparse
from pathlib import Path
from typing import Any

from callboard.errors import UserError


def add(commands: Any) -> None:
    """Add the command to the parser."""
    board = commands.add_parser("board", help="the table of results: CV, LB and what was changed")
    board.add_argument(
        "--markdown", action="store_true", help="Markdown, as when the output is not a terminal"
    )
    board.add_argument(
        "--author", action="store_true", help="the rows of experiments.yaml, the author's scores beside ours"
    )
    board.add_argument(
        "--output", type=Path, metavar="FILE", help="write Markdown there, relative to the root"
    )
    board.set_defaults(command=show)


def show(args: argparse.Namespace) -> None:
    """Print the table, or write it; plain Markdown when the output is a pipe or a file."""
    from rich.console import Console

    from callboard.agreement import agreement
    from callboard.board import read_rows
    from callboard.board_table import (
        AUTHOR_COLUMNS,
        COLUMNS,
        as_markdown,
        lines_of_results,
        lines_of_table,
        print_table,
    )
    from callboard.outputs import written_whole
    from callboard.params.base import read_tree
    from callboard.results import flatten
    from callboard.table import TABLE, read_table
    from callboard.tracking import tracking_uri

    uri = tracking_uri()
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise UserError(
            f"no results yet: {uri.removeprefix('sqlite:///')} is not there; `dvc repro` makes the first"
        )
    rows = read_rows(uri)
    table = read_table() if args.author or TABLE.exists() else None
    columns = AUTHOR_COLUMNS if args.author else COLUMNS
    blocks = lines_of_table(rows, table) if args.author and table else lines_of_results(rows, table)
    console = Console()
    if args.output is None and not args.markdown and console.is_terminal:
        print_table(blocks, console, columns)
        return
    text = as_markdown(blocks, columns)
    if args.output is None:
        print(text, end="")
        return
    if args.author and table:
        text += "\n" + agreement(blocks, table, flatten(read_tree(Path("params.yaml"))))
    with written_whole(args.output) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    print(f"board: {len(rows)} results in {args.output}")
