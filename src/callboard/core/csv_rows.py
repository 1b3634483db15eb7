"""CSV that people edit or bring: strict rows, each with its line, and cells that no spreadsheet runs."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from callboard.core.errors import UserError
from callboard.core.reading import reading

MAX_ROWS_SHOWN = 10
"""Number of bad rows that one message lists; it only counts the rest."""


class CsvRow(NamedTuple):
    """A row of a CSV table that is not blank; of a broken one, the cells are empty."""

    line: int
    """Line number where it begins, from 1."""
    cells: list[str]
    problem: str = ""
    """Reason why it cannot be read; empty if it can."""


def utf8_text(path: Path, hint: str = "") -> str:
    r"""Read a text file with any kind of line ends, which become \n; a byte order mark is dropped.

    Args:
        path: The file.
        hint: Advice for the error message if the file does not exist.

    Raises:
        UnreadableFileError: the file does not exist, cannot be read or is not UTF-8.
    """
    with reading(path, "text", missing=hint):
        text = path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    return io.StringIO(text, newline=None).read()


def csv_rows(text: str, delimiter: str = ",", width: int = 0) -> Iterator[CsvRow]:
    r"""Yield every row; after a broken one, go on at the next line.

    A row is broken if a quote is not closed, or is closed within a cell, or if it contains a NUL or a cell
    above csv.field_size_limit. A cell can have line ends, unless what follows one looks like a row: then an
    unclosed quote has swallowed it.

    Args:
        text: The table, with \n as line ends.
        delimiter: Character between cells.
        width: Least number of cells of a row; 0 for that of the first one.
    """
    lines = list(io.StringIO(text))
    has_nul = "\0" in text
    start, reader = 0, csv.reader(lines, delimiter=delimiter, strict=True)
    offset = 0  # the reader's first line
    while start < len(lines):
        try:
            cells, problem = next(reader, []), ""
            end = offset + reader.line_num
            width = width or len(cells)
            if end > start + 1 and any(line.count(delimiter) + 1 >= width for line in lines[start + 1 : end]):
                problem = 'a quote (") is not closed, and would swallow the rows below'
            elif has_nul and any("\0" in cell for cell in cells):
                problem = "contains a NUL character"
        except csv.Error as error:
            problem = _in_words(error)
        if problem:
            yield CsvRow(start + 1, [], problem)
            start = offset = start + 1
            reader = csv.reader(lines[start:], delimiter=delimiter, strict=True)
            continue
        if cells:
            yield CsvRow(start + 1, cells)
        start = end


def _in_words(error: csv.Error) -> str:
    if "field limit" in str(error):
        return f'a cell is longer than {csv.field_size_limit()} characters; is a quote (") not closed?'
    return f'a quote (") is not closed, or is followed by text ({error})'


def refuse_rows(problems: Iterable[tuple[str, str]]) -> None:
    """Raise an error if there are problems.

    Args:
        problems: Pairs of a row's name (see row_name) and what is wrong with it.

    Raises:
        UserError: There is a problem; the message lists the first MAX_ROWS_SHOWN.
    """
    found = [f"{row}: {problem}" for row, problem in problems]
    if found:
        more = [f"… and {len(found) - MAX_ROWS_SHOWN} more"] if len(found) > MAX_ROWS_SHOWN else []
        raise UserError("\n".join([*found[:MAX_ROWS_SHOWN], *more]))


def row_name(name: str, line: int) -> str:
    """Return the name that messages give a row of a table."""
    return f"{name} row {line}"


def table_rows(
    text: str, name: str, delimiter: str = ",", n_above: int = 0
) -> tuple[list[str], dict[int, list[str]]]:
    """Return the header, and the cells of every other row by line number.

    Args:
        text: The table.
        name: Name of the table in messages.
        delimiter: Character between cells.
        n_above: Number of lines above the text, for the line numbers.

    Raises:
        UserError: a row is broken (see csv_rows), or its cells do not match the header.
    """
    rows = list(csv_rows(text, delimiter))
    header = rows[0].cells if rows else []
    ragged = {row.line for row in rows if header and len(row.cells) != len(header)}
    refuse_rows(
        (
            row_name(name, n_above + row.line),
            row.problem or f"{len(row.cells)} cells, but the header has {len(header)}",
        )
        for row in rows
        if row.problem or row.line in ragged
    )
    return header, {n_above + row.line: row.cells for row in rows[1:]}


def refuse_missing(name: str, header: Sequence[str], columns: Iterable[str], delimiter: str = ",") -> None:
    """Refuse a table without some columns.

    Raises:
        UserError: a column is missing.
    """
    if missing := [column for column in columns if column not in header]:
        other = next((mark for mark in ",;\t" if mark != delimiter and mark in "".join(header)), "")
        hint = f"; cells must be separated by {delimiter!r}, not {other!r}" if other else ""
        raise UserError(
            f"{name}: missing column(s) {', '.join(missing)}; found {', '.join(header) or 'none'}{hint}"
        )


FORMULA_MARKS = ("=", "+", "-", "@", "\t", "\r")
"""First characters of cells that spreadsheets run as formulas."""


def without_formula(cell: str) -> str:
    """Return a cell that no spreadsheet runs as a formula, with an apostrophe before it if it needs one.

    Numbers stay as they are. `as_written` is the inverse.
    """
    return f"'{cell}" if cell.lstrip("'").startswith(FORMULA_MARKS) and not _is_number(cell) else cell


def as_written(cell: str) -> str:
    """Return the cell that `without_formula` was given."""
    is_marked = cell.startswith("'") and without_formula(cell[1:]) == cell
    return cell[1:] if is_marked else cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
