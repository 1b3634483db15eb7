"""The board as a table: Markdown, or on a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from callboard.analysis.lines import Block, Blocks
from callboard.core.console import counted
from callboard.reports.board.columns import BOARD_COLUMNS, Column, legends, shown_rows

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
"""Columns in the order in which a terminal finds room for them; those not named come last."""

MIN_WRAP = 24
"""The fewest characters that a column of words gets."""

STYLES = {"better": "green", "worse": "red", "noise": "dim"}

PADDING = 3
"""Characters that a terminal's table adds to each column: two blanks and a rule."""


def board_markdown(blocks: Blocks, columns: Sequence[Column] = BOARD_COLUMNS) -> str:
    """A Markdown table with an empty line of cells between blocks, and what its marks mean."""
    bodies = [[[column.text(line) for column in columns] for line in block] for block in blocks]
    gap = [[""] * len(columns)]
    cells = [row for number, body in enumerate(bodies) for row in (gap * bool(number) + body)]
    table = markdown_table(
        [column.name for column in columns], cells, [column.is_number for column in columns]
    )
    return table + legend_markdown(legends(blocks, columns))


def legend_markdown(notes: Sequence[str]) -> str:
    """Paragraphs below a table, with their marks as they are."""
    return "".join(f"\n{text.replace('*', chr(92) + '*')}\n" for text in notes)


def markdown_table(header: Sequence[str], cells: Sequence[Sequence[str]], is_number: Sequence[bool]) -> str:
    """Columns padded so that the plain text reads as a table too."""
    lines = [list(header), *([_one_cell(cell) for cell in line] for line in cells)]
    widths = [max(3, *(len(line[k]) for line in lines)) for k in range(len(header))]
    rule = [
        "-" * (width - 1) + (":" if right else "-") for width, right in zip(widths, is_number, strict=True)
    ]
    padded = [
        [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, is_number, strict=True)
        ]
        for line in (lines[0], rule, *lines[1:])
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)


def _one_cell(text: str) -> str:
    """Neither a bar nor a line's end may break the table, nor may a memo bring HTML of its own."""
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")


def fitting(columns: Sequence[Column], lines: Block, width: int) -> list[Column]:
    """Those columns that a terminal has room for, the most telling first; the name always.

    They stand in the order of `columns`.
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
    """The same table for a terminal, as many columns as it has room for."""
    from rich.table import Table
    from rich.text import Text

    n_results = len(shown_rows(blocks))
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
    notes = legends(blocks, [column for column in columns if column in shown or column.is_extra])
    if hidden := [column.name for column in columns if column not in shown]:
        notes.append(f"No room here for {', '.join(hidden)}: widen the window, or see --format or --output.")
    console.print(Text("\n".join(notes)))
