"""Blends: the mean of finished experiments' tables in place of an experiment's own networks.

These tables are not DVC dependencies. A part is therefore given as `name@key`, which fixes its content, so
that the parameter alone determines the blend.
"""

from collections.abc import Sequence
from functools import reduce

import pandas as pd

from callboard.core.console import first_few
from callboard.core.errors import UserError
from callboard.data.folds import GROUP, groups_apart
from callboard.data.score_tables import read_score_table, score_columns_in
from callboard.params.references import BLEND
from callboard.results.lookup import find_exactly
from callboard.results.result import OUT_OF_FOLD, SOURCE, Result


def blend_tables(
    references: Sequence[str],
    path: str,
    recording_ids: Sequence[str],
    columns: Sequence[str],
    weights: Sequence[float] = (),
) -> pd.DataFrame:
    """Return the weighted mean of one table of several finished experiments.

    Args:
        references: `name@key` of each part.
        path: The table, `submission/submission.csv` or `scores/oof.csv`.
        recording_ids: Rows of the result, in order; each part must have exactly these.
        columns: Score columns of the result, in order; each part must have exactly these.
        weights: Weight of each part, with any sum; empty = equal weights.

    Returns:
        recording_id and `columns`.

    Raises:
        UserError: See `part_tables`.
    """
    tables = part_tables(references, path, recording_ids, columns)
    if weights:
        tables = [weight * table for weight, table in zip(weights, tables, strict=True)]
    total: pd.DataFrame = reduce(lambda so_far, table: so_far + table, tables)
    return (total / (sum(weights) if weights else len(tables))).reset_index()


def part_tables(
    references: Sequence[str], path: str, recording_ids: Sequence[str], columns: Sequence[str]
) -> list[pd.DataFrame]:
    """Return the table of each part, indexed by recording_id, in the given order; Args as `blend_tables`.

    Raises:
        UserError: A reference has no key or does not exist, parts were computed on different data, a table is
            not in DVC's cache, or its recordings or species differ from those requested.
    """
    parts = [find_exactly(reference, BLEND) for reference in references]
    if len({part.outs[SOURCE] for part in parts}) > 1:
        raise UserError(f"{BLEND}: {', '.join(references)} were computed on different data")
    return [_fitting_scores(part, path, recording_ids, columns) for part in parts]


def refuse_split_groups(references: Sequence[str], folds: pd.DataFrame) -> None:
    """Refuse parts whose folds split a group: their networks had trained on other recordings of it.

    Args:
        references: `name@key` of each part.
        folds: recording_id and fold of this experiment; and group, if recordings are grouped.

    Raises:
        UserError: A group of these folds is in several folds of a part, or a part's scores are not in DVC's
            cache.
    """
    if GROUP not in folds:
        return
    for part in (find_exactly(reference, BLEND) for reference in references):
        theirs = read_score_table(part.output(OUT_OF_FOLD))[["recording_id", "fold"]].astype(
            {"fold": "int64"}
        )
        if apart := groups_apart(theirs.merge(folds[["recording_id", GROUP]], on="recording_id")):
            raise UserError(
                f"{BLEND}: leak: groups of this experiment are in several folds of {part.ref.reference}: "
                f"{first_few(apart)}; split.group must be the same"
            )


def refuse_rescaled(references: Sequence[str], step: str) -> None:
    """Refuse parts whose submission, but not their out-of-fold scores, infer.prevalence has rescaled.

    Args:
        references: `name@key` of each part.
        step: The key of `infer` that compares test scores with out-of-fold scores.

    Raises:
        UserError: The submission of a part has been rescaled.
    """
    for part in (find_exactly(reference, BLEND) for reference in references):
        if float(part.params.get("infer.prevalence", "0")):
            raise UserError(
                f"infer.{step}: infer.prevalence rescaled the submission of {part.ref.reference}, but not "
                "its out-of-fold scores; blend the same experiment with infer.prevalence=0"
            )


def _fitting_scores(
    part: Result, path: str, recording_ids: Sequence[str], columns: Sequence[str]
) -> pd.DataFrame:
    """Return a part's scores in the requested order, indexed by recording_id."""
    table = read_score_table(part.output(path)).set_index("recording_id")
    table = table[score_columns_in(table)]
    for what, found, wanted in (
        ("recordings", set(table.index), set(recording_ids)),
        ("columns", set(table.columns), set(columns)),
    ):
        if found != wanted:
            raise UserError(
                f"{BLEND}: {path} of {part.ref.reference} has different {what} from this experiment: "
                f"missing {_few(wanted - found)}, extra {_few(found - wanted)}"
            )
    return table.loc[list(recording_ids), list(columns)]


def _few(names: set[str]) -> str:
    return f"{len(names)} ({min(names)}, …)" if names else "none"
