"""The finished results that an MLflow holds, as it stores them.

A local SQLite database is read by SQL: importing mlflow alone takes longer than everything else that the
board does.
"""

import math
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from callboard.errors import UserError
from callboard.tracker.tracking import EXPERIMENT, SQLITE, TrackingError, mlflow_errors, prepare_environment

RUNS_PER_PAGE = 1000

RESULTS = """
    SELECT runs.run_uuid AS run_id, runs.name, runs.start_time FROM runs
    JOIN experiments ON experiments.experiment_id = runs.experiment_id
    JOIN tags kind ON kind.run_uuid = runs.run_uuid AND kind.key = 'callboard.kind' AND kind.value = 'cv'
    WHERE experiments.name = :experiment AND runs.lifecycle_stage = 'active' AND runs.status = 'FINISHED'
"""


@dataclass
class StoredRun:
    """One result."""

    name: str
    start_ms: int
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


def stored_runs(uri: str) -> list[StoredRun]:
    """Every finished result, in order of start time, then name.

    Args:
        uri: Of MLflow; `sqlite:///` before a path is a local database.

    Raises:
        UserError: the server is down, or the database is none, or is not there.
    """
    is_local = uri.startswith(SQLITE) and "?" not in uri
    found = _by_sql(Path(uri.removeprefix(SQLITE))) if is_local else _by_client(uri)
    return sorted(found, key=lambda run: (run.start_ms, run.name, run.tags.get("callboard.key", "")))


def _by_sql(database: Path) -> list[StoredRun]:
    if not database.exists():
        raise UserError(f"no results yet: {database} is not there; `dvc repro` makes the first")
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return _selected(connection)
    except sqlite3.Error as error:
        raise UserError(f"the results cannot be read: {database}: {error}") from error


def _selected(connection: sqlite3.Connection) -> list[StoredRun]:
    given = {"experiment": EXPERIMENT}
    connection.execute("BEGIN")  # all four queries see one state
    runs = {run_id: StoredRun(name, start) for run_id, name, start in connection.execute(RESULTS, given)}

    def values(columns: str, table: str) -> Iterable[tuple[Any, ...]]:
        query = (
            f"SELECT run_uuid, key, {columns} FROM {table} WHERE run_uuid IN (SELECT run_id FROM ({RESULTS}))"
        )
        return connection.execute(query, given)

    for run_id, key, text in values("value", "params"):
        runs[run_id].params[key] = text
    for run_id, key, text in values("value", "tags"):
        runs[run_id].tags[key] = text
    for run_id, key, value, is_nan in values("value, is_nan", "latest_metrics"):
        runs[run_id].metrics[key] = math.nan if is_nan else value
    return list(runs.values())


def _by_client(uri: str) -> list[StoredRun]:
    prepare_environment()
    try:
        with mlflow_errors(uri):
            return [
                StoredRun(
                    run.info.run_name,
                    run.info.start_time,
                    dict(run.data.params),
                    dict(run.data.metrics),
                    dict(run.data.tags),
                )
                for run in _searched(uri)
            ]
    except TrackingError as error:
        raise UserError(f"the results cannot be read: {error}") from error


def _searched(uri: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    query = "tags.`callboard.kind` = 'cv' and attributes.status = 'FINISHED'"
    found: list[Any] = []
    token: str | None = ""
    while token is not None:
        page = client.search_runs(
            [experiment.experiment_id], query, page_token=token, max_results=RUNS_PER_PAGE
        )
        found += page
        token = page.token or None
    return found
