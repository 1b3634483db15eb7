"""`callboard board`: the table of results."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from callboard.core.console import counted
from callboard.core.errors import UserError

if TYPE_CHECKING:
    from callboard.analysis.lines import Blocks
    from callboard.reports.board.columns import Column
    from callboard.results.rows import BoardRow

SUFFIXES = {".md": "markdown", ".csv": "csv", ".html": "html"}
"""Suffix of the output file to format."""

BOARD_EXAMPLES = """\
examples:
  callboard board --best 10
  callboard board --where loss.neg_mask=seq --since 2026-11-20
  callboard board --sort lb.public --output board.html
"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    board = commands.add_parser(
        "board",
        help="the table of results: CV, LB and whether each is better than its base",
        epilog=BOARD_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_filters(board)
    board.add_argument(
        "--cv",
        metavar="NAME",
        default="lwlrap",
        help="CV estimate of the CV column, as fold_mean or macro_ap",
    )
    board.add_argument(
        "--author", action="store_true", help="the rows of experiments.yaml, the author's scores beside ours"
    )
    board.add_argument("--block", metavar="N", help="with --author: only this block of the table")
    board.add_argument(
        "--format",
        choices=("terminal", *SUFFIXES.values()),
        help="default: terminal, or markdown when the output is not a terminal",
    )
    board.add_argument(
        "--markdown",
        dest="format",
        action="store_const",
        const="markdown",
        help="short for --format markdown",
    )
    board.add_argument(
        "--output", type=Path, metavar="FILE", help="write .md, .csv or .html there, relative to the root"
    )
    board.set_defaults(command=show)


def _add_filters(board: argparse.ArgumentParser) -> None:
    board.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="GLOB",
        help="only these names, as 'exp00[45]*', or all but these, as '!*-seed*'; repeatable",
    )
    board.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only results with this parameter; KEY!=VALUE for those without; repeatable",
    )
    board.add_argument("--since", default="", metavar="DATE", help="only results from this day or time on")
    board.add_argument(
        "--sort", default="", metavar="KEY", help="date, name, a metric as lb.public, or a parameter"
    )
    board.add_argument(
        "--best", type=_count, metavar="N", help="the N with the highest CV, or of what --sort says"
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} should be a whole number above 0")
    return int(text)


def show(args: argparse.Namespace) -> None:
    """Print the table, or write it; plain Markdown when the output is a pipe or a file."""
    import sys

    from callboard.analysis.choice import Choice, author_blocks, result_blocks
    from callboard.results.rows import read_rows

    form = _format(args, sys.stdout.isatty())
    if args.block and not args.author:
        raise UserError("--block: only the author's table has blocks; add --author")
    rows = read_rows()
    choice = Choice(tuple(args.name), tuple(args.where), args.since, args.best, args.sort)
    columns = _columns(args, rows)
    blocks = author_blocks(rows, choice, args.block) if args.author else result_blocks(rows, choice)
    if form == "terminal":
        _print(blocks, columns)
        return
    text = TEXTS[form](blocks, columns)
    if args.output is None:
        print(text, end="")
        return
    if args.author and form == "markdown":
        text += "\n" + _agreement(blocks)
    _write(args.output, text, sum(line.row is not None for block in blocks for line in block))


def _format(args: argparse.Namespace, is_terminal: bool) -> str:
    if args.output is None:
        return args.format or ("terminal" if is_terminal else "markdown")
    by_suffix: str | None = SUFFIXES.get(args.output.suffix.lower(), args.format)
    if by_suffix is None or args.format == "terminal":
        raise UserError(
            f"--output {args.output}: should end in {', '.join(SUFFIXES)}, or give another --format"
        )
    form: str = args.format or by_suffix
    return form


def _columns(args: argparse.Namespace, rows: "Sequence[BoardRow]") -> "Sequence[Column]":
    from callboard.reports.board.columns import POOLED_CV, author_columns_of, columns_of, estimate_column

    cv = POOLED_CV
    if args.cv != "lwlrap":
        from callboard.analysis.cv_estimates import estimates_of
        from callboard.results.cv_metrics import CV_NAMES

        if args.cv not in CV_NAMES:
            raise UserError(f"--cv {args.cv}: no such estimate; there are {', '.join(CV_NAMES)}")
        cv = estimate_column(args.cv, estimates_of(rows))
    return author_columns_of(cv) if args.author else columns_of(cv)


def _print(blocks: "Blocks", columns: "Sequence[Column]") -> None:
    from rich.console import Console

    from callboard.reports.board.formats import print_table

    print_table(blocks, Console(), columns)


def _markdown(blocks: "Blocks", columns: "Sequence[Column]") -> str:
    from callboard.reports.board.formats import board_markdown

    return board_markdown(blocks, columns)


def _csv(blocks: "Blocks", columns: "Sequence[Column]") -> str:
    from callboard.reports.board.formats import as_csv

    return as_csv(
        blocks, {column.name: column.value for column in columns if column.is_extra and column.value}
    )


def _html(blocks: "Blocks", columns: "Sequence[Column]") -> str:
    from callboard.reports.board.columns import shown_rows
    from callboard.reports.board.page import board_html

    n_results = len(shown_rows(blocks))
    return board_html(blocks, f"callboard: {counted(n_results, 'result')}", columns)


TEXTS: dict[str, "Callable[[Blocks, Sequence[Column]], str]"] = {
    "markdown": _markdown,
    "csv": _csv,
    "html": _html,
}


def _agreement(blocks: "Blocks") -> str:
    from callboard.experiments.table import read_experiments
    from callboard.params.defaults import flatten, read_full_tree
    from callboard.reports.board.agreement import agreement

    return agreement(blocks, read_experiments(), flatten(read_full_tree()))


def _write(output: Path, text: str, n_results: int) -> None:
    from callboard.core.files import written_whole

    with written_whole(output) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    print(f"board: {counted(n_results, 'result')} in {output}")
