"""The original author's scores in experiments.yaml as finished MLflow runs, next to the pipeline's own."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from callboard.core.errors import UserError
from callboard.experiments.steps import is_below
from callboard.experiments.table import ExperimentTable, TableRow
from callboard.params.defaults import flatten, result_params
from callboard.results.mlflow import record as tag
from callboard.results.mlflow.connection import TrackingError
from callboard.results.mlflow.record import RunRecord
from callboard.results.mlflow.runs import Runs, open_runs
from callboard.results.stored_runs import StoredRun, read_runs

CV_DEFINITION = (
    "mean over folds of the best epoch's LRAP on the validation fold; optimistic, not out of fold: the epoch "
    "was chosen on the recordings that it is measured on"
)
"""Definition of CV in trtd56/RFCX `docs/my_solution.md`, according to the notebooks of that time."""

LAST_EDIT = datetime(2021, 1, 4, 8, 7, tzinfo=UTC)
"""Last edit of the author's table. Runs get this time plus one second per row, so that they keep the table's
order and a second import changes nothing."""

ROW = "callboard.row"
"""Tag with the name of the row."""


def author_rows(table: ExperimentTable) -> list[TableRow]:
    """Return the rows of the author's table, in its order, without to-dos, footnotes and presets."""
    return [row for row in table.rows.values() if isinstance(row.block, int)]


def author_verdict(row: TableRow) -> str:
    """Return the author's verdict, or whether the row was run, submitted or scored."""
    if row.verdict:
        return row.verdict
    if row.lb is None:
        return "not run" if row.cv is None else "not submitted"
    return "scored"


def author_runs(table: ExperimentTable, preset: dict[str, Any]) -> list[RunRecord]:
    """Return one run per row of the author's table.

    Args:
        table: The table.
        preset: Parameters of the competition, as nested sections; a row overrides the keys that it changes.
    """
    start_ms = int(LAST_EDIT.timestamp() * 1000)
    return [
        RunRecord(
            f"{row.name} (author)",  # the row's name belongs to this project's result
            start_ms + 1000 * number,
            _tags(row),
            _params(table, row, preset),
            _metrics(row),
        )
        for number, row in enumerate(author_rows(table))
    ]


def _params(table: ExperimentTable, row: TableRow, preset: dict[str, Any]) -> dict[str, str]:
    flat = result_params(preset)
    for key, value in table.values(row.name).items():
        flat = {name: text for name, text in flat.items() if not is_below(name, {key})}
        flat |= flatten({key: value})
    return dict(sorted(flat.items()))


def _metrics(row: TableRow) -> dict[str, float]:
    scores = {"cv.lwlrap": row.cv, "lb.public": row.lb}
    return {key: score for key, score in scores.items() if score is not None}


def _tags(row: TableRow) -> dict[str, str]:
    note = "\n\n".join(text for text in (row.memo_en, row.memo_ja, row.note) if text)
    return {
        tag.KIND: tag.AUTHOR,
        ROW: row.name,
        "callboard.block": str(row.block),
        "callboard.base": row.base or "none",
        "callboard.verdict": author_verdict(row),
        "callboard.certainty": str(row.certainty),
        "callboard.cv_definition": CV_DEFINITION,
        tag.NOTE: note,
        "source": "experiments.yaml",
    }


def import_runs(records: Iterable[RunRecord]) -> str:
    """Make MLflow's runs of the author's table match `records`.

    Tags and notes are updated in place. MLflow cannot change parameters or remove metrics, so a row whose
    parameters or scores have changed gets a new run; runs of rows that no longer exist are deleted.

    Returns:
        Numbers of new, renewed, removed and unchanged runs, for the summary line.

    Raises:
        UserError: the server is down, or the database cannot be written.
    """
    done: Counter[str] = Counter()
    try:
        with open_runs() as runs:
            known = {run.tags[ROW]: run for run in read_runs(tag.AUTHOR)}
            for record in records:
                done[_upsert(runs, known.pop(record.tags[ROW], None), record)] += 1
            for gone in known.values():
                runs.delete(gone)
                done["removed"] += 1
    except TrackingError as error:
        raise UserError(f"the table cannot be imported: {error}") from error
    return ", ".join(f"{count} {what}" for what, count in done.items())


def _upsert(runs: Runs, known: StoredRun | None, record: RunRecord) -> str:
    if known and not _says_other_numbers(known, record):
        changed = {key: text for key, text in record.tags.items() if known.tags.get(key) != text}
        if changed:
            runs.set_tags(known, changed)
        return "renewed" if changed else "unchanged"
    if known:
        runs.delete(known)
    runs.write(record)
    return "renewed" if known else "new"


def _says_other_numbers(known: StoredRun, record: RunRecord) -> bool:
    """Return whether parameters or scores differ, or an import was killed before its end."""
    return not known.is_finished or (known.params, known.metrics) != (record.params, record.metrics)
