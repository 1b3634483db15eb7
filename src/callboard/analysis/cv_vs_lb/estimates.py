"""CV estimates of finished results, from their tables in DVC's cache; what was worked out is remembered."""

from collections.abc import Sequence
from functools import lru_cache
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

from callboard.analysis.difference import MismatchError
from callboard.core.console import progress
from callboard.core.errors import UserError
from callboard.core.json_cache import JsonCache
from callboard.results.cv_metrics import CV_NAMES
from callboard.results.dvc_cache import cached_file
from callboard.results.lookup import held_result
from callboard.results.result import CLIPS, OUT_OF_FOLD, SUBMISSION, SUBMISSIONS_WITHOUT
from callboard.results.rows import BoardRow

if TYPE_CHECKING:
    import pandas as pd

ESTIMATES_VERSION = "2"
"""To be raised when an estimate of the same tables changes."""

Estimates = dict[str, float]


def estimates_of(rows: Sequence[BoardRow]) -> dict[str, Estimates]:
    """By content key of a row its estimates by name.

    A row whose tables are no longer in the cache has those that MLflow holds as `cv.` metrics.
    """
    memory = JsonCache("estimates", ESTIMATES_VERSION)
    new = {_memory_key(row): row for row in rows if _memory_key(row) not in memory}
    for key, row in progress(new.items(), total=len(new), label="estimates", unit="runs"):
        if (found := _from_tables(row)) is not None:
            memory[key] = found
    memory.save()
    return {
        row.key: memory[_memory_key(row)] if _memory_key(row) in memory else _from_metrics(row)
        for row in rows
    }


def _memory_key(row: BoardRow) -> str:
    return f"{row.oof_md5} {row.clips_md5} {row.submission_md5}"


def _from_metrics(row: BoardRow) -> Estimates:
    return {name: row.metrics[f"cv.{name}"] for name in CV_NAMES if f"cv.{name}" in row.metrics}


def _from_tables(row: BoardRow) -> Estimates | None:
    """None where a table is not in the cache, or the tables are of different species.

    A blend of rescaled parts has no `prevalence`: what their scores were is not told apart any more.
    """
    try:
        out_of_fold = cached_file(row.oof_md5, OUT_OF_FOLD)
        clips, submission = cached_file(row.clips_md5, CLIPS), _submission_as_scored(row)
    except UserError:
        return None
    from callboard.analysis.cv_vs_lb.estimators import ESTIMATES, scored
    from callboard.data.score_tables import read_score_table

    try:
        whole = scored(read_score_table(out_of_fold), _clips(clips), read_score_table(submission))
    except MismatchError:
        return None
    values = {name: estimate(whole) for name, estimate in ESTIMATES.items()}
    unknown = {"prevalence"} if any(map(_is_rescaled, row.parts)) else set()
    return {name: value for name, value in values.items() if name not in unknown and not isnan(value)}


def _submission_as_scored(row: BoardRow) -> Path:
    """The submission before `infer.prevalence`: rescaled scores hold the shares that they would tell already.

    Raises:
        UserError: it is not in the cache.
    """
    if not _is_rescaled(row):
        return cached_file(row.submission_md5, SUBMISSION)
    if (result := held_result(row.ref)) is None:
        raise UserError(f"{row.name}: no commit holds its files any more")
    with result.folder(SUBMISSIONS_WITHOUT) as folder:
        path = folder / "prevalence.csv"
        if not path.is_file():
            raise UserError(f"{path.name} of {SUBMISSIONS_WITHOUT} of {row.name} is not in DVC's cache")
        return path.resolve()


def _is_rescaled(row: BoardRow) -> bool:
    return float(row.params.get("infer.prevalence", "0")) > 0


@lru_cache(maxsize=4)
def _clips(path: Path) -> "pd.DataFrame":
    """Nearly all results share one table."""
    from callboard.data.annotations import read_table

    return read_table(path, ["recording_id", "species_id", "label_type"])
