"""Blends: the mean of finished experiments' tables in place of an experiment's own networks.

DVC does not see those tables as dependencies. A part is therefore given as `name@key`, which fixes its
content: the parameter alone says what the blend is made of.
"""

from collections.abc import Sequence
from functools import reduce

import pandas as pd

from callboard.errors import UserError
from callboard.finished import Finished, find_finished, split_reference
from callboard.submission import read_score_table


def blend_tables(
    references: Sequence[str], path: str, recording_ids: Sequence[str], columns: Sequence[str]
) -> pd.DataFrame:
    """Mean with equal weights of one table of several finished experiments.

    Args:
        references: `name@key` of each part.
        path: The table, `submission/submission.csv` or `scores/oof.csv`.
        recording_ids: Rows of the result, in order; each part must have exactly these.
        columns: Score columns of the result, in order; likewise.

    Returns:
        recording_id and `columns`.

    Raises:
        UserError: a reference without key or with one that its name does not have, parts of different data, a
            table that is not in DVC's cache, other recordings or other species.
    """
    parts = [_exactly(reference) for reference in references]
    if len({part.outs["data/source"] for part in parts}) > 1:
        raise UserError(f"infer.blend: {', '.join(references)} are of different data")
    tables = [_fitting_scores(part, path, recording_ids, columns) for part in parts]
    mean: pd.DataFrame = reduce(lambda total, table: total + table, tables) / len(tables)
    return mean.reset_index()


def _exactly(reference: str) -> Finished:
    finished = find_finished(reference)
    if not split_reference(reference)[1]:
        raise UserError(f"infer.blend: {reference!r} must say which result: {finished.reference}")
    return finished


def _fitting_scores(
    part: Finished, path: str, recording_ids: Sequence[str], columns: Sequence[str]
) -> pd.DataFrame:
    """Scores in the order asked for, indexed by recording_id."""
    table = read_score_table(part.file(path)).drop(columns="fold", errors="ignore").set_index("recording_id")
    for what, found, wanted in (
        ("recordings", set(table.index), set(recording_ids)),
        ("columns", set(table.columns), set(columns)),
    ):
        if found != wanted:
            raise UserError(
                f"infer.blend: {path} of {part.reference} has other {what} than this experiment: "
                f"missing {_few(wanted - found)}, extra {_few(found - wanted)}"
            )
    return table.loc[list(recording_ids), list(columns)]


def _few(names: set[str]) -> str:
    return f"{len(names)} ({min(names)}, …)" if names else "none"
