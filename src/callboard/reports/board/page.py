"""The board as a self-contained HTML page."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from callboard.analysis.lines import Blocks, BoardLine
from callboard.reports.board.columns import (
    BOARD_COLUMNS,
    Column,
    filled,
    legends,
    shown_rows,
)
from callboard.reports.text import number, page, verdict_tone, verdict_word
from callboard.results.rows import CV

SCATTER = (640, 360)
"""Width and height of the plot, in SVG units."""

MARGIN = 52
"""Margin around the area of the dots, for the labels of the axes."""

N_TICKS = 4


@dataclass(frozen=True)
class Cell:
    """A cell of the page."""

    text: str
    by: str
    """Sort key; empty if unknown."""
    tone: str = ""
    """Class of the verdict's mark."""


@dataclass(frozen=True)
class Dot:
    """A result in the plot."""

    x: float
    y: float
    tone: str
    words: str


@dataclass(frozen=True)
class Tick:
    """A tick of an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Scatter:
    """The plot of CV against LB."""

    dots: list[Dot]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def board_html(blocks: Blocks, title: str, columns: Sequence[Column] = BOARD_COLUMNS) -> str:
    """Build the page: counts, table, legend, and a plot of CV against the public leaderboard.

    Args:
        blocks: Lines of the board.
        title: Heading of the page.
        columns: Columns of the table.
    """
    columns = filled(columns, blocks)
    lines = [line for block in blocks for line in block if line.row]
    return page(
        "board.html.j2",
        title=title,
        n_results=len(shown_rows(blocks)),
        newest=max((line.row.start.astimezone() for line in lines if line.row), default=None),
        verdicts=Counter(verdict_word(line.judgement) for line in lines if line.judgement).most_common(),
        best=next((line.best for line in lines if line.best), None),
        legends=legends(blocks, columns),
        columns=columns,
        blocks=[[[_cell(column, line) for column in columns] for line in block] for block in blocks],
        scatter=_scatter(lines),
        size=SCATTER,
        margin=MARGIN,
    )


def _cell(column: Column, line: BoardLine) -> Cell:
    text = column.text(line)
    value = column.value(line) if column.value else text
    is_unknown = value is None or (isinstance(value, float) and isnan(value))
    return Cell(text, "" if is_unknown else str(value), column.tone(line) if column.tone else "")


def _scatter(lines: Sequence[BoardLine]) -> Scatter | None:
    """Plot results with both scores and no optimistic CV, which would mislead; None if fewer than three."""
    found = [
        (cv, lb, line)
        for line in lines
        if line.row and not line.row.is_optimistic
        if (cv := line.metric(CV)) is not None and (lb := line.metric("lb.public")) is not None
    ]
    if len(found) < 3:
        return None
    width, height = SCATTER
    cvs, lbs = [cv for cv, _, _ in found], [lb for _, lb, _ in found]
    dots = [
        Dot(
            _place(cv, cvs, MARGIN, width - 16),
            _place(lb, lbs, height - MARGIN, 16),
            verdict_tone(line.judgement),
            f"{line.name}: CV {number(cv)}, LB {number(lb)}, {verdict_word(line.judgement)}",
        )
        for cv, lb, line in found
    ]
    return Scatter(dots, _ticks(cvs, MARGIN, width - 16), _ticks(lbs, height - MARGIN, 16))


def _place(value: float, values: Sequence[float], first: float, last: float) -> float:
    low, high = min(values), max(values)
    share = (value - low) / (high - low) if high > low else 0.5
    inside = 0.04 + 0.92 * share  # no dot on an axis
    return round(first + inside * (last - first), 1)


def _ticks(values: Sequence[float], first: float, last: float) -> list[Tick]:
    low, high = min(values), max(values)
    shown = [low + (high - low) * step / N_TICKS for step in range(N_TICKS + 1)] if high > low else [low]
    return [Tick(_place(value, values, first, last), f"{value:.3f}") for value in shown]
