"""`callboard board`: the table of results."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from callboard.commands.arguments import add_command, whole_number
from callboard.core.console import counted
from callboard.core.errors import UserError

if TYPE_CHECKING:
    from callboard.analysis.lines import Blocks
    from callboard.reports.board.columns import Column
    from callboard.results.rows import BoardRow

SUFFIXES = {".md": "markdown", ".csv": "csv", ".html": "html"}
"""Suffix of the output file to format."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    board = add_command(
        commands,
        "board",
        help="show the table of results: CV, LB and whether each is better than its base",
        examples={
            "callboard board --best 10": "the ten results with the highest CV",
            "callboard board --where loss.neg_mask=seq --since 2026-11-20": "what this setting gave lately",
            "callboard board --sort lb.public --output board.html": "all of them as a page to open or share",
        },
    )
    _add_filters(board)
    board.add_argument(
        "--cv",
        metavar="NAME",
        default="lwlrap",
        help="estimate in the CV column, such as fold_mean or macro_ap; default %(default)s",
    )
    board.add_argument(
        "--author",
        action="store_true",
        help="show the rows of experiments.yaml, with the original author's scores next to ours",
    )
    board.add_argument("--block", metavar="N", help="with --author: only this block; default: all")
    board.add_argument(
        "--format",
        choices=("terminal", *SUFFIXES.values()),
        help="default: by the suffix of --output; else terminal, or markdown if output is a pipe or file",
    )
    board.add_argument(
        "--markdown",
        dest="format",
        action="store_const",
        const="markdown",
        help="the same as --format markdown",
    )
    board.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write the table to this .md, .csv or .html file, relative to the workspace; default: print it",
    )
    board.set_defaults(command=show)


def _add_filters(board: argparse.ArgumentParser) -> None:
    board.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="GLOB",
        help="only these names, such as 'exp00[45]*', or all but these, such as '!*-seed*'; repeatable",
    )
    board.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only results with this value of a parameter; KEY!=VALUE for all others; repeatable",
    )
    board.add_argument(
        "--since",
        default="",
        metavar="DATE",
        help="only results since this day or time: YYYY-MM-DD or YYYY-MM-DDTHH:MM",
    )
    board.add_argument(
        "--sort",
        default="",
        metavar="KEY",
        help="date, name, a metric such as lb.public, or a parameter; default: date, or CV with --best",
    )
    board.add_argument(
        "--best",
        type=whole_number(1),
        metavar="N",
        help="only the N highest by CV, or by --sort; default: all",
    )


def show(args: argparse.Namespace) -> None:
    """Print the table, or write it to --output."""
    import sys

    from callboard.analysis.choice import Choice, author_blocks, result_blocks
    from callboard.results.rows import read_rows, rows_so_far

    form = _format(args, sys.stdout.isatty())
    if args.block and not args.author:
        raise UserError("--block: only the original author's table has blocks; add --author")
    rows = rows_so_far() if args.author else read_rows()
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
            f"--output {args.output}: must end in {', '.join(SUFFIXES)}, or name another --format"
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
            raise UserError(f"--cv {args.cv}: unknown estimate; known are {', '.join(CV_NAMES)}")
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
    from callboard.params.defaults import read_full_tree, result_params
    from callboard.reports.board.agreement import agreement

    return agreement(blocks, read_experiments(), result_params(read_full_tree()))


def _write(output: Path, text: str, n_results: int) -> None:
    from callboard.core.files import written_whole

    with written_whole(output) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    print(f"board: {counted(n_results, 'result')} in {output}")
