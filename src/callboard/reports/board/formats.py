"""The board as Markdown, as a table on a terminal, and as CSV."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING

from callboard.analysis.difference import Difference
from callboard.analysis.lines import Block, Blocks, BoardLine
from callboard.analysis.seed_noise import are_unlike
from callboard.core.console import counted
from callboard.core.csv_rows import without_formula
from callboard.reports.board.columns import (
    BOARD_COLUMNS,
    Column,
    Value,
    base_of,
    change_value,
    changed,
    changes_of,
    filled,
    half_width,
    has_seeds,
    is_lb_noise,
    legends,
    metric_of,
    shown_rows,
)
from callboard.reports.cv_question import cv_holds_for
from callboard.reports.text import legend_markdown, markdown_table, verdict_word
from callboard.results.rows import CV

if TYPE_CHECKING:
    from rich.console import Console

IMPORTANCE = (
    "name",
    "CV",
    "verdict",
    "LB public",
    "Δ CV",
    "base",
    "±",
    "changed",
    "LB private",
    "memo",
    "Δ LB",
)
"""Columns in the order in which a terminal makes room for them; all others come last."""

MIN_WRAP = 24
"""Minimum width of a column of words, in characters."""

STYLES = {"better": "green", "worse": "red", "noise": "dim"}

PADDING = 3
"""Number of characters that a table adds to each column on a terminal: two blanks and a rule."""


def board_markdown(blocks: Blocks, columns: Sequence[Column] = BOARD_COLUMNS) -> str:
    """Build a Markdown table with an empty row between blocks, and the legend of its marks."""
    columns = filled(columns, blocks)
    bodies = [[[column.text(line) for column in columns] for line in block] for block in blocks]
    gap = [[""] * len(columns)]
    cells = [row for number, body in enumerate(bodies) for row in (gap * bool(number) + body)]
    table = markdown_table(
        [column.name for column in columns], cells, [column.is_number for column in columns]
    )
    return table + legend_markdown(legends(blocks, columns))


def fitting(columns: Sequence[Column], lines: Block, width: int) -> list[Column]:
    """Choose the columns that fit on a terminal, by IMPORTANCE and always with the name.

    The result is in the order of `columns`.
    """
    order = {name: place for place, name in enumerate(IMPORTANCE)}
    left, chosen = width - 1, set()
    for column in sorted(
        columns, key=lambda column: order.get("CV" if column.is_extra else column.name, len(order))
    ):
        need = PADDING + max([len(column.name), *(len(column.text(line)) for line in lines)])
        if column.may_wrap:
            need = min(need, MIN_WRAP + PADDING)
        if need <= left or column.name == IMPORTANCE[0]:
            chosen.add(column.name)
            left -= need
    return [column for column in columns if column.name in chosen]


def print_table(blocks: Blocks, console: "Console", columns: Sequence[Column] = BOARD_COLUMNS) -> None:
    """Print the table on a terminal, with as many columns as fit, and name the others."""
    from rich.table import Table
    from rich.text import Text

    columns, n_results = filled(columns, blocks), len(shown_rows(blocks))
    table = Table(title=counted(n_results, "result"), title_justify="left")
    shown = fitting(columns, [line for block in blocks for line in block], console.width)
    for column in shown:
        table.add_column(
            column.name, justify="right" if column.is_number else "left", no_wrap=not column.may_wrap
        )
    for block in blocks:
        for line in block:
            styles = [STYLES.get(column.tone(line) if column.tone else "", "") for column in shown]
            table.add_row(*(Text(c.text(line), style) for c, style in zip(shown, styles, strict=True)))
        table.add_section()
    console.print(table)
    notes = legends(blocks, shown)
    if hidden := [column.name for column in columns if column not in shown]:
        notes.append(f"No room for {', '.join(hidden)}: widen the window, or use --format or --output.")
    console.print(Text("\n".join(notes)))


Field = Callable[[BoardLine], Value]

ESTIMATE_FIELDS = (
    "fold_mean",
    "fold_sd",
    "lrap",
    "lwlrap_known",
    "macro_ap",
)
"""Other CV metrics in `metrics/cv.json`."""


def _change(key: str) -> Field:
    return lambda line: line.metric_change(key)


def _is_unlike_base(line: BoardLine) -> bool | None:
    return are_unlike(line.row, line.base) if line.row and line.base else None


def _best(read: Callable[[Difference], float]) -> Field:
    return lambda line: read(line.best_change) if line.best_change else None


FIELDS: Mapping[str, Field] = {
    "name": lambda line: line.name,
    "cv": metric_of(CV),
    "cv_half_width": half_width,
    "cv_holds_for": lambda line: cv_holds_for(line.row) if line.row else None,
    "cv_low": metric_of("cv.lwlrap_low"),
    "cv_high": metric_of("cv.lwlrap_high"),
    "is_optimistic": lambda line: line.row.is_optimistic if line.row else None,
    "is_unisolated": lambda line: line.row.is_unisolated if line.row else None,
    "lb_public": metric_of("lb.public"),
    "lb_private": metric_of("lb.private"),
    "base": lambda line: base_of(line) if line.base else None,
    "base_key": lambda line: line.base.key if line.base else None,
    "cv_change": change_value,
    "cv_change_low": lambda line: line.judgement.low if line.judgement else None,
    "cv_change_high": lambda line: line.judgement.high if line.judgement else None,
    "p_better": lambda line: line.judgement.p_better if line.judgement else None,
    "verdict": lambda line: verdict_word(line.judgement) if line.judgement else None,
    "are_seeds_measured": has_seeds,
    "is_trained_unlike_base": _is_unlike_base,
    "lb_public_change": _change("lb.public"),
    "lb_private_change": _change("lb.private"),
    "is_lb_change_within_noise": lambda line: is_lb_noise(line) if line.lb_judgement else None,
    "best": lambda line: line.best.name if line.best else None,
    "cv_change_to_best": _best(lambda change: change.value),
    "cv_change_to_best_low": _best(lambda change: change.low),
    "cv_change_to_best_high": _best(lambda change: change.high),
    "changed": lambda line: None if changes_of(line) is None else changed(line),
    "memo": lambda line: line.memo or None,
    "start": lambda line: line.row.start.isoformat(timespec="seconds") if line.row else None,
    "commit": lambda line: line.row.commit if line.row else None,
    "key": lambda line: line.row.key if line.row else None,
    "names": lambda line: " ".join(line.row.names) if line.row else None,
    **{f"cv_{name}": metric_of(f"cv.{name}") for name in ESTIMATE_FIELDS},
    "author_cv": lambda line: line.author_cv,
    "author_lb": lambda line: line.author_lb,
    "block": lambda line: line.entry.block if line.entry else None,
}
"""Header to value; the same for every board, so that a program can read them all."""


def as_csv(blocks: Blocks, extra: Mapping[str, Field] | None = None) -> str:
    """Write the board as CSV for programs: numbers unrounded, unknown cells empty.

    Args:
        blocks: Lines of the board, one CSV row each.
        extra: Further fields, after those of every board.
    """
    fields = {**FIELDS, **(extra or {})}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows([_cell(read(line)) for read in fields.values()] for block in blocks for line in block)
    return file.getvalue()


def _cell(value: Value) -> Value:
    if isinstance(value, str):
        return without_formula(value)
    return None if isinstance(value, float) and isnan(value) else value
