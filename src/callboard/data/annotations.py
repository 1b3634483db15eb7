"""The tp and fp annotation tables: their columns, and the checks that every table must pass when read."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from callboard.core.csv_rows import (
    refuse_missing,
    refuse_rows,
    row_name,
    table_rows,
    utf8_text,
    without_formula,
)
from callboard.core.errors import UserError
from callboard.core.reading import reading

ANNOTATION_COLUMNS = ["recording_id", "species_id", "songtype_id", "t_min", "f_min", "t_max", "f_max"]
"""Columns of an annotation table as delivered: ids as text, times in seconds, frequencies in Hz."""

NUMBERS = ["t_min", "f_min", "t_max", "f_max"]

LABEL_TYPES = ["tp", "fp"]
"""tp: an annotator confirmed the species in the box. fp: an annotator rejected it."""


def read_annotations(path: Path, label_type: str, species: list[str] | None = None) -> pd.DataFrame:
    """Read ANNOTATION_COLUMNS and add `label_type`: one row per annotation, indexed by line number.

    Other columns are dropped. Ids stay text: `055088446` and `838227e71` only look like numbers.

    Args:
        path: CSV with a header; row numbers in messages are line numbers of this file.
        label_type: "tp" or "fp"; a tp table must have rows.
        species: Known ids; None = any.

    Raises:
        UserError: A column is missing, or rows are bad: an empty cell, a number that is not finite, a box out
            of order, a negative time or frequency, an unknown species, or a repetition of an earlier row.
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
    """Read the species ids, in class order.

    Raises:
        UserError: There is no `species_id` column or no species, or an id is empty or repeated.
    """
    table = read_table(path, ["species_id"])
    if table.empty:
        raise UserError(f"{path.name}: no species")
    _refuse(path, _blank_cells(table))
    _refuse(path, _repetitions(table))
    return [str(name) for name in table["species_id"]]


def write_species(species: list[str], path: Path) -> None:
    """Write one row per species, in class order."""
    pd.DataFrame({"species_id": species}).to_csv(path, index=False)


def read_table(
    path: Path, columns: list[str], *, others: bool = False, hint: str = "", delimiter: str = ","
) -> pd.DataFrame:
    """Read `columns` of a CSV, every cell as text exactly as written, indexed by line number in the file.

    Args:
        path: CSV with a header.
        columns: Required columns.
        others: Whether to return all other columns too, in the order of the file.
        hint: Advice for the error message if the file does not exist.
        delimiter: Character between cells.

    Raises:
        UserError: The file, its header or a column is missing, or a row's cells do not match the header.
    """
    header, lines = table_rows(utf8_text(path, hint), path.name, delimiter)
    refuse_missing(path.name, header, columns, delimiter)
    kept = header if others else columns
    if repeated := sorted({name for name in kept if header.count(name) > 1}):
        raise UserError(f"{path.name}: column(s) {', '.join(repeated)} given twice")
    return pd.DataFrame(list(lines.values()), columns=header, index=list(lines), dtype="str")[kept]


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose cells no spreadsheet runs as formulas; see `csv_rows.without_formula`."""
    return table.map(lambda cell: without_formula(cell) if isinstance(cell, str) else cell)


def typed(table: pd.DataFrame, dtypes: dict[str, str], path: Path) -> pd.DataFrame:
    """Convert columns of a table that a stage wrote to `dtypes`, blank floats to NaN; number its rows from 0.

    Raises:
        UserError: A cell cannot be converted.
    """
    blanks = {name: {"": "nan"} for name, dtype in dtypes.items() if dtype == "float64"}
    with reading(path, "what its stage writes", damaged="run its stage again"):
        return table.replace(blanks).astype(dtypes).reset_index(drop=True)


def _refuse(path: Path, problems: Iterable[tuple[int, str]]) -> None:
    """Raise a UserError if there are problems, given as (line number, what is wrong)."""
    refuse_rows((row_name(path.name, row), problem) for row, problem in problems)


def _blank_cells(table: pd.DataFrame) -> Iterable[tuple[int, str]]:
    for name in table.columns:
        stripped = table[name].str.strip()
        for row in table.index[stripped == ""]:
            yield row, f"{name} is empty"
        for row in table.index[(stripped != table[name]) & (stripped != "")]:
            yield row, f"{name} {table.at[row, name]!r} has leading or trailing blanks"


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
        yield row, f"unknown species {table.at[row, 'species_id']!r}; known species: {known}"


def _repetitions(table: pd.DataFrame) -> Iterable[tuple[int, str]]:
    first: dict[tuple[str | float, ...], int] = {}
    for row, *cells in table.itertuples():
        earlier = first.setdefault(tuple(cells), row)
        if earlier != row:
            yield row, f"repeats row {earlier}"
