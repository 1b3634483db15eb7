"""Tables of verdicts of people on windows of new recordings: whether the species called in the window."""

from pathlib import Path

import numpy as np
import pandas as pd

from callboard.core.csv_rows import as_written, refuse_rows, row_name
from callboard.core.files import written_whole
from callboard.data.annotations import read_table, without_formulas
from callboard.data.corrections import VERDICTS

VERDICT_TABLE = "verdicts.csv"
"""Table of verdicts in a folder of predictions."""

VERDICT_COLUMNS = ["recording", "start_s", "end_s", "species", "score", "verdict"]
"""Columns: a window as in the table of predictions, seconds, its score, and one of VERDICTS."""

_NUMBERS = ["start_s", "end_s", "score"]


def read_window_verdicts(path: Path) -> pd.DataFrame:
    """Read VERDICT_COLUMNS, numbers as float64.

    Raises:
        UserError: The file or a column is missing, a number or verdict is wrong, or a row is repeated.
    """
    table = read_table(path, VERDICT_COLUMNS, hint="`callboard review` writes it").map(as_written)
    numbers = table[_NUMBERS].apply(pd.to_numeric, errors="coerce").astype(float)
    is_second = table[["recording", "start_s", "end_s", "species"]].duplicated()
    problems = []
    for line in table.index:
        start_s, end_s, score = numbers.loc[line]
        if not 0 <= start_s < end_s < np.inf:
            problems.append((line, "start_s and end_s must be seconds, start_s the smaller"))
        if not 0 <= score <= 1:
            problems.append((line, f"score must be from 0 to 1, found {table.at[line, 'score']!r}"))
        if (verdict := table.at[line, "verdict"]) not in VERDICTS:
            problems.append((line, f"verdict must be one of {', '.join(VERDICTS)}, found {verdict!r}"))
        if is_second[line]:
            problems.append((line, "has a verdict in an earlier row"))
    refuse_rows((row_name(path.name, line), problem) for line, problem in problems)
    return table.assign(**{name: numbers[name] for name in _NUMBERS}).reset_index(drop=True)


def write_window_verdicts(table: pd.DataFrame, path: Path) -> None:
    """Write VERDICT_COLUMNS as a whole."""
    with written_whole(path) as unfinished:
        without_formulas(table[VERDICT_COLUMNS]).to_csv(unfinished, index=False)
