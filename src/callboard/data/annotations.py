"""The tp and fp tables: their columns, and everything that must hold before anyone computes with them."""

import csv
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from callboard.core.errors import UserError, one_line

ANNOTATION_COLUMNS = ["recording_id", "species_id", "songtype_id", "t_min", "f_min", "t_max", "f_max"]
"""Columns of an annotation table as delivered: ids are text, times are seconds, frequencies are Hz."""

NUMBERS = ["t_min", "f_min", "t_max", "f_max"]

LABEL_TYPES = ["tp", "fp"]
"""tp: an expert confirmed the species in the box. fp: an expert rejected it."""

MAX_ROWS_SHOWN = 10
"""Bad rows spelled out in one message; the rest are counted."""


def read_annotations(path: Path, label_type: str, species: list[str] | None = None) -> pd.DataFrame:
    """COLUMNS and `label_type`, one row per annotation, indexed by line number; other columns are dropped.

    Ids stay text: `055088446` and `838227e71` are neither a number nor each other's neighbours.

    Args:
        path: CSV with a header; row numbers in messages are line numbers of this file.
        label_type: "tp" or "fp"; a tp table must have rows.
        species: known ids; None = any.

    Raises:
        UserError: a missing column, or every bad row: empty cell, not a finite number, box out of order,
            negative time, unknown species, repetition of an earlier row.
    """
    table = read_table(path, ANNOTATION_COLUMNS)
    if label_type == "tp" and table.empty:
        raise UserError(f"{path.name}: no rows; at least one confirmed annotation is needed")
    _refuse(path, _blank_cells(table))
    numbers = table[NUMBERS].apply(pd.to_numeric, errors="coerce").astype(float)
    _refuse(path, _not_finite(table, numbers))
    _refuse(path, _bad_boxes(numbers))
    if species is not None:
        _refuse(path, _unknown_species(table, species))
    table = table.assign(**{name: numbers[name] for name in NUMBERS})
    _refuse(path, _repetitions(table))
    return table.assign(label_type=label_type)


def read_species(path: Path) -> list[str]:
    """Species ids in class order.

    Raises:
        UserError: no `species_id` column, no species, an empty id, an id given twice.
    """
    table = read_table(path, ["species_id"])
    if table.empty:
        raise UserError(f"{path.name}: no species")
    _refuse(path, _blank_cells(table))
    _refuse(path, _repetitions(table))
    return [str(name) for name in table["species_id"]]


def write_species(species: list[str], path: Path) -> None:
    """One row per species, in class order."""
    pd.DataFrame({"species_id": species}).to_csv(path, index=False)


def read_table(path: Path, columns: list[str], *, others: bool = False, hint: str = "") -> pd.DataFrame:
    """`columns` of a CSV, every cell text exactly as written; the index is the line number in the file.

    Args:
        path: CSV with a header.
        columns: Those that must be there.
        others: Whether to give further columns too, and all in the order of the file.
        hint: What to do where there is no such file.

    Raises:
        UserError: no such file, no header, columns missing, a row with more or fewer cells than the header.
    """
    header, lines = _read_lines(path, hint)
    kept = header if others else columns
    if missing := [name for name in columns if name not in header]:
        found = ", ".join(header) or "none"
        raise UserError(f"{path.name}: missing column(s) {', '.join(missing)}; found {found}")
    if repeated := sorted({name for name in kept if header.count(name) > 1}):
        raise UserError(f"{path.name}: column(s) {', '.join(repeated)} given twice")
    _refuse(
        path,
        (
            (line, f"{len(cells)} cells under a header of {len(header)}")
            for line, cells in lines.items()
            if len(cells) != len(header)
        ),
    )
    return pd.DataFrame(list(lines.values()), columns=header, index=list(lines), dtype="str")[kept]


def typed(table: pd.DataFrame, dtypes: dict[str, str], path: Path) -> pd.DataFrame:
    """A table that a stage wrote, the columns of `dtypes` converted, a blank float to NaN, rows from 0.

    Raises:
        UserError: a cell is no such number.
    """
    blanks = {name: {"": "nan"} for name, dtype in dtypes.items() if dtype == "float64"}
    try:
        return table.replace(blanks).astype(dtypes).reset_index(drop=True)
    except ValueError as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)}); run its stage again") from None


def _read_lines(path: Path, hint: str) -> tuple[list[str], dict[int, list[str]]]:
    """The header, and the cells of every other line that is not blank, by line number."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except FileNotFoundError:
        raise UserError(f"{path}: not found{hint and '; '}{hint}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV table: {error}") from error
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save the table as a plain CSV") from None
    return header, dict(lines)


def _refuse(path: Path, problems: Iterable[tuple[int, str]]) -> None:
    """Raise if there are problems, given as (row, what is wrong)."""
    refuse_rows((row_name(path, row), problem) for row, problem in problems)


def row_name(path: Path, line: int) -> str:
    """What messages call a row of a table."""
    return f"{path.name} row {line}"


def refuse_rows(problems: Iterable[tuple[str, str]]) -> None:
    """Stop if there are problems.

    Args:
        problems: Each as the row, see row_name, and what is wrong with it.

    Raises:
        UserError: spelling out the first N_SHOWN.
    """
    found = [f"{row}: {problem}" for row, problem in problems]
    if found:
        more = [f"… and {len(found) - MAX_ROWS_SHOWN} more"] if len(found) > MAX_ROWS_SHOWN else []
        raise UserError("\n".join([*found[:MAX_ROWS_SHOWN], *more]))


def _blank_cells(table: pd.DataFrame) -> Iterable[tuple[int, str]]:
    for name in table.columns:
        stripped = table[name].str.strip()
        for row in table.index[stripped == ""]:
            yield row, f"{name} is empty"
        for row in table.index[(stripped != table[name]) & (stripped != "")]:
            yield row, f"{name} {table.at[row, name]!r} has blanks around it"


def _not_finite(table: pd.DataFrame, numbers: pd.DataFrame) -> Iterable[tuple[int, str]]:
    for name in NUMBERS:
        for row in table.index[~np.isfinite(numbers[name])]:
            yield row, f"{name} {table.at[row, name]!r} is not a finite number"


def _bad_boxes(numbers: pd.DataFrame) -> Iterable[tuple[int, str]]:
    rules: list[tuple[Callable[[pd.DataFrame], pd.Series], str]] = [
        (lambda box: box["t_min"] < 0, "t_min {t_min} is negative"),
        (lambda box: box["f_min"] < 0, "f_min {f_min} is negative"),
        (lambda box: box["t_max"] <= box["t_min"], "t_max {t_max} <= t_min {t_min}"),
        (lambda box: box["f_max"] <= box["f_min"], "f_max {f_max} <= f_min {f_min}"),
    ]
    for is_broken, message in rules:
        for row in numbers.index[is_broken(numbers)]:
            yield row, message.format(**numbers.loc[row])


def _unknown_species(table: pd.DataFrame, species: list[str]) -> Iterable[tuple[int, str]]:
    known = ", ".join(species) if len(species) <= 40 else f"{len(species)} ids, {species[0]} … {species[-1]}"
    for row in table.index[~table["species_id"].isin(species)]:
        yield row, f"unknown species {table.at[row, 'species_id']!r}; known are {known}"


def _repetitions(table: pd.DataFrame) -> Iterable[tuple[int, str]]:
    first: dict[tuple[str | float, ...], int] = {}
    for row, *cells in table.itertuples():
        earlier = first.setdefault(tuple(cells), row)
        if earlier != row:
            yield row, f"repeats row {earlier}"
