"""The author's own scores of experiments.yaml as finished MLflow runs, beside those of the pipeline."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from callboard.core.errors import UserError
from callboard.experiments.captions import is_below
from callboard.experiments.table import ExperimentTable, TableRow
from callboard.results.mlflow import record as tag
from callboard.results.mlflow.client_runs import searched
from callboard.results.mlflow.connection import TrackingError, open_experiment, tracking_uri
from callboard.results.result import flatten

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CV_DEFINITION = (
    "mean over folds of the best epoch's LRAP on the validation fold; optimistic, not out of fold: the epoch "
    "was chosen on the recordings that it is measured on"
)
"""Of trtd56/RFCX `docs/my_solution.md`, by the notebooks of that time."""

LAST_EDIT = datetime(2021, 1, 4, 8, 7, tzinfo=UTC)
"""Of the author's table. Runs get this time plus a second per row, so that they keep the table's order and a
second import says nothing new."""

ROW = "callboard.row"
"""Tag with the name of the row."""

AUTHOR_SCALE = "rfcx"
"""The author's data: rows are resolved at the competition's scale."""


@dataclass(frozen=True)
class AuthorRun:
    """What MLflow is to say of one row."""

    name: str
    params: dict[str, str]
    metrics: dict[str, float]
    """`cv.lwlrap` and `lb.public`, where the author has them."""
    tags: dict[str, str]
    time_ms: int


def author_rows(table: ExperimentTable) -> list[TableRow]:
    """The rows of the author's table, in its order, without what stands beside it."""
    return [row for row in table.rows.values() if isinstance(row.block, int)]


def author_verdict(row: TableRow) -> str:
    """The author's verdict, or which of his scores there are."""
    if row.verdict:
        return row.verdict
    if row.lb is None:
        return "not run" if row.cv is None else "not submitted"
    return "scored"


def author_runs(table: ExperimentTable, preset: dict[str, Any]) -> list[AuthorRun]:
    """One run per row.

    Args:
        table: The table.
        preset: Parameters of the competition, as nested sections; a row replaces what it moves.
    """
    start_ms = int(LAST_EDIT.timestamp() * 1000)
    return [
        AuthorRun(row.name, _params(table, row, preset), _metrics(row), _tags(row), start_ms + 1000 * number)
        for number, row in enumerate(author_rows(table))
    ]


def _params(table: ExperimentTable, row: TableRow, preset: dict[str, Any]) -> dict[str, str]:
    flat = flatten(preset)
    for key, value in table.resolve(row.name, AUTHOR_SCALE).items():
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


def import_runs(runs: Iterable[AuthorRun]) -> str:
    """Make MLflow say exactly this of the author's table: what it knows stays, what has changed is renewed.

    Tags and notes are set anew in the run that is there. MLflow changes no parameter and forgets no metric,
    so a row whose parameters or scores have changed gets a new run; runs of rows that are gone are deleted.

    Returns:
        How many runs are new, renewed, removed and unchanged.

    Raises:
        UserError: the server is down, or the database cannot be written.
    """
    done: Counter[str] = Counter()
    try:
        with open_experiment(tracking_uri()) as (client, experiment_id):
            known = _known(client, experiment_id)
            for run in runs:
                done[_upsert(client, experiment_id, known.pop(run.name, None), run)] += 1
            for gone in known.values():
                client.delete_run(gone.info.run_id)
                done["removed"] += 1
    except TrackingError as error:
        raise UserError(f"the table cannot be imported: {error}") from error
    return ", ".join(f"{count} {what}" for what, count in done.items())


def _known(client: "MlflowClient", experiment_id: str) -> dict[str, "Run"]:
    found = searched(client, experiment_id, f"tags.`{tag.KIND}` = '{tag.AUTHOR}'")
    return {run.data.tags[ROW]: run for run in found}


def _upsert(client: "MlflowClient", experiment_id: str, known: "Run | None", run: AuthorRun) -> str:
    if known and not _says_other_numbers(known, run):
        changed = {key: text for key, text in run.tags.items() if known.data.tags.get(key) != text}
        for key, text in changed.items():
            client.set_tag(known.info.run_id, key, text)
        return "renewed" if changed else "unchanged"
    if known:
        client.delete_run(known.info.run_id)
    _create(client, experiment_id, run)
    return "renewed" if known else "new"


def _says_other_numbers(known: "Run", run: AuthorRun) -> bool:
    """Whether parameters or scores differ, or an import was killed before its end."""
    data = known.data
    return known.info.status != "FINISHED" or (data.params, data.metrics) != (run.params, run.metrics)


def _create(client: "MlflowClient", experiment_id: str, run: AuthorRun) -> None:
    from mlflow.entities import Metric, Param

    shown = f"{run.name} (author)"  # our result of the row has its name
    created = client.create_run(experiment_id, start_time=run.time_ms, tags=run.tags, run_name=shown)
    client.log_batch(
        created.info.run_id,
        metrics=[Metric(key, value, run.time_ms, 0) for key, value in run.metrics.items()],
        params=[Param(key, text) for key, text in run.params.items()],
    )
    client.set_terminated(created.info.run_id, "FINISHED", end_time=run.time_ms)
