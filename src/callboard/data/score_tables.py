"""Score tables in the competition's format: recording_id, then one column `s<species_id>` per species."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.data.annotations import read_table

NOT_NUMBERS = ("recording_id", "usage", "group")
"""Columns of text: the recording, its part of the test set, and its group, see data/groups.py."""

NOT_SCORES = (*NOT_NUMBERS, "fold")
"""Columns of a score table other than scores."""


def score_columns(species: Sequence[str]) -> list[str]:
    """Return the score columns of a table, in class order."""
    return [f"s{species_id}" for species_id in species]


def score_table(
    recording_ids: Sequence[str], species: Sequence[str], scores: NDArray[np.floating]
) -> pd.DataFrame:
    """Return (recordings, species) scores as a table."""
    table = pd.DataFrame(scores, columns=score_columns(species))
    table.insert(0, "recording_id", pd.Series(recording_ids, dtype=str))
    return table


def score_columns_in(table: pd.DataFrame) -> list[str]:
    """Return the score columns that a table has, in its order."""
    return [name for name in table.columns if name not in NOT_SCORES]


def fill_submission(sample: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Return our scores with the rows and columns of the sample submission, in its order.

    Raises:
        UserError: A species or recording of the sample has no scores, or the scores have other species.
    """
    if set(sample.columns) != set(scores.columns):
        missing, extra = set(sample.columns) - set(scores.columns), set(scores.columns) - set(sample.columns)
        raise UserError(
            "sample submission: its columns do not match the scores; "
            f"without scores: {sorted(missing) or 'none'}, not in the sample: {sorted(extra) or 'none'}"
        )
    unscored = sorted(set(sample["recording_id"]) - set(scores["recording_id"]))
    if unscored:
        raise UserError(
            f"sample submission: {len(unscored)} of {len(sample)} recordings have no scores, "
            f"first {unscored[0]}; they are missing from the mel cache of the test set"
        )
    in_order = scores.set_index("recording_id").loc[sample["recording_id"]].reset_index()
    return in_order[list(sample.columns)]


def read_score_table(path: Path) -> pd.DataFrame:
    """Read a score, sample submission or truth table: NOT_NUMBERS as text, all else as numbers.

    Raises:
        UserError: The file or recording_id is missing, a recording is repeated, or a number is not finite.
    """
    table = read_table(path, ["recording_id"], others=True)
    if len(repeated := table[table["recording_id"].duplicated()]):
        recording_id = repeated["recording_id"].iloc[0]
        raise UserError(f"{path} row {repeated.index[0]}: recording {recording_id} is repeated")
    for name in table.columns.difference(list(NOT_NUMBERS)):
        numbers = pd.to_numeric(table[name], errors="coerce").astype(np.float64)
        if len(bad := table[~np.isfinite(numbers)]):
            raise UserError(
                f"{path} row {bad.index[0]}: {name} must be a number, found {bad[name].iloc[0]!r}"
            )
        table[name] = numbers
    return table.reset_index(drop=True)


def write_score_table(table: pd.DataFrame, path: Path) -> None:
    """Write scores with every digit, because rounding would create ties near 0 and near 1."""
    with written_whole(path) as unfinished:
        table.to_csv(unfinished, index=False, float_format="%.17g")
