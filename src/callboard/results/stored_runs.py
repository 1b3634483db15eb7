"""Runs as MLflow stores them.

A database on this machine is read by SQL: importing mlflow alone takes longer than everything else that the
board does. Servers, and tables that the queries do not fit, are read through mlflow's client.
"""

import math
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from callboard.core.errors import UnreadableFileError, UserError, one_line
from callboard.core.reading import reading
from callboard.results.mlflow import record as tag
from callboard.results.mlflow.connection import (
    EXPERIMENT,
    SQLITE,
    DeletedExperimentError,
    TrackingError,
    connecting,
    experiment_id,
    local_database,
    tracking_uri,
)
from callboard.results.refs import refs_in_git

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

WAIT_S = 60.0
"""Time to wait for another process to end its transaction, s."""

RUNS_PER_CALL = 1000
"""Page size of the client's search."""

STAGE_QUERY = "SELECT lifecycle_stage FROM experiments WHERE name = :experiment"
RUNS_QUERY = f"""
    SELECT runs.run_uuid AS run_id, runs.name, runs.start_time, runs.status = 'FINISHED' FROM runs
    JOIN experiments ON experiments.experiment_id = runs.experiment_id
    JOIN tags kind ON kind.run_uuid = runs.run_uuid AND kind.key = '{tag.KIND}' AND kind.value = :kind
    LEFT JOIN tags of ON of.run_uuid = runs.run_uuid AND of.key = '{tag.KEY}'
    WHERE experiments.name = :experiment AND runs.lifecycle_stage = 'active' AND :key IN ('', of.value)
"""


class NoResultsError(UserError):
    """No result has been recorded yet."""

    def __init__(self, database: Path, why: str) -> None:
        """Compose the message, with the command that makes the first result or records those in git.

        Args:
            database: The file of the database.
            why: Why it has no results, as the rest of a sentence about it.
        """
        in_git = any(ref.key for ref in refs_in_git())
        todo = "`callboard sync` records those in git" if in_git else "`dvc repro` makes the first"
        super().__init__(f"no results yet: {database} {why}; {todo}")


@dataclass
class StoredRun:
    """A run as MLflow stores it."""

    name: str
    start_ms: int
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    run_id: str = ""
    is_finished: bool = True
    """Whether the run is complete; not if the writer was killed, since the status is set last."""

    @property
    def names(self) -> tuple[str, ...]:
        """Experiments that reached it."""
        return tag.split_names(self.tags.get(tag.NAMES, ""))

    def lacking(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Return the scores that the run does not show; NaN equals NaN."""
        return {key: value for key, value in scores.items() if repr(self.metrics.get(key)) != repr(value)}


UNREADABLE = (sqlite3.Error, UnicodeDecodeError, UnreadableFileError)
"""Errors of reading a damaged database, whose own words sqlite3 decodes as UTF-8."""


def stored_runs(kind: str = tag.RESULT) -> list[StoredRun]:
    """Return every finished run of a kind, one per content key, in order of start time, then name.

    Raises:
        NoResultsError: there is no database yet.
        UserError: the server is down, or the database cannot be read.
    """
    database = local_database(tracking_uri())
    if database and not database.exists():
        raise NoResultsError(database, "does not exist")
    try:
        runs = _one_of_each_key(read_runs(kind)).values()
    except TrackingError as error:
        raise UserError(f"the results cannot be read: {error}") from error
    finished = [run for run in runs if run.is_finished]
    return sorted(finished, key=lambda run: (run.start_ms, run.name, run.tags.get(tag.KEY, "")))


def known_runs(key: str = "") -> dict[str, StoredRun]:
    """Return runs of results by content key, or only that with `key`, finished or not; none without database.

    Raises:
        TrackingError: the server is down, or the database cannot be read.
    """
    return _one_of_each_key(read_runs(tag.RESULT, key))


def known_result(key: str) -> StoredRun | None:
    """Return a finished result from a database on this machine; None also if only mlflow could read it.

    Raises:
        DeletedExperimentError: our MLflow experiment was deleted.
    """
    database = local_database(tracking_uri())
    try:
        runs = _by_sql(database, tag.RESULT, key) if database else []
    except UNREADABLE:
        return None
    return next((run for run in runs if run.is_finished), None)


def read_runs(kind: str, key: str = "") -> list[StoredRun]:
    """Return every run of a kind, or those with a content key, finished or not; empty without a database.

    Raises:
        TrackingError: the server is down, or the database cannot be read.
    """
    uri = tracking_uri()
    if not (database := local_database(uri)):
        return read_by_client(uri, kind, key)
    if not database.exists():
        return []
    try:
        return _by_sql(database, kind, key)
    except sqlite3.OperationalError:  # tables of another version, or one of them is missing
        return read_by_client(uri, kind, key)
    except UNREADABLE as error:
        raise TrackingError(f"{uri}: {one_line(error)}") from error


def read_by_client(uri: str, kind: str, key: str = "") -> list[StoredRun]:
    """Return every run of a kind, or those with a content key, through mlflow's client.

    Raises:
        TrackingError: the server is down, or mlflow cannot use the database.
    """
    query = f"tags.`{tag.KIND}` = '{kind}'" + (f" and tags.`{tag.KEY}` = '{key}'" if key else "")
    with connecting(uri) as client:
        own = experiment_id(client, uri)
        return searched(client, own, query) if own else []


def searched(client: "MlflowClient", experiment_id: str, query: str) -> list[StoredRun]:
    """Return all runs that match a query, oldest first, fetched page by page; mlflow's errors pass."""
    found: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment_id],
            query,
            max_results=RUNS_PER_CALL,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        found += page
        if not (token := page.token):
            return [_stored(run) for run in found]


def _stored(run: "Run") -> StoredRun:
    info, data = run.info, run.data
    return _checked(
        StoredRun(
            info.run_name,
            info.start_time,
            dict(data.params),
            dict(data.metrics),
            dict(data.tags),
            info.run_id,
            info.status == "FINISHED",
        )
    )


def _by_sql(database: Path, kind: str, key: str) -> list[StoredRun]:
    """Return the runs from a file, which is neither created nor changed; sqlite3's errors pass.

    Raises:
        DeletedExperimentError: our MLflow experiment was deleted.
    """
    uri = f"{database.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=WAIT_S)) as connection:
        return _selected(
            connection, f"{SQLITE}{database}", {"experiment": EXPERIMENT, "kind": kind, "key": key}
        )


def _selected(connection: sqlite3.Connection, uri: str, given: dict[str, str]) -> list[StoredRun]:
    connection.execute("BEGIN")  # all queries see one state
    if ("deleted",) in connection.execute(STAGE_QUERY, given):
        raise DeletedExperimentError(uri)
    runs = {
        run_id: _checked(StoredRun(name, start_ms, run_id=run_id, is_finished=bool(is_finished)))
        for run_id, name, start_ms, is_finished in connection.execute(RUNS_QUERY, given)
    }

    def values(columns: str, table: str) -> Iterable[tuple[Any, ...]]:
        query = (
            f"SELECT run_uuid, key, {columns} FROM {table} "
            f"WHERE run_uuid IN (SELECT run_id FROM ({RUNS_QUERY}))"
        )
        return connection.execute(query, given)

    for run_id, key, text in values("value", "params"):
        runs[run_id].params[key] = str(text)
    for run_id, key, text in values("value", "tags"):
        runs[run_id].tags[key] = str(text)
    for run_id, key, value, is_nan in values("value, is_nan", "latest_metrics"):
        with reading(f"run {run_id}: {key}"):
            runs[run_id].metrics[key] = math.nan if is_nan else float(value)
    return list(runs.values())


def _checked(run: StoredRun) -> StoredRun:
    """Return a run with a name and a start that has a date, which the tables do not ensure."""
    with reading(f"run {run.run_id}", "a run of this project"):
        if not isinstance(run.name, str):
            raise ValueError(f"its name is {run.name!r}")
        datetime.fromtimestamp(run.start_ms / 1000, UTC)
    return run


def _one_of_each_key(runs: Iterable[StoredRun]) -> dict[str, StoredRun]:
    """Return runs by content key; of several with one key, the first finished one counts."""
    found: dict[str, StoredRun] = {}
    for run in sorted(runs, key=lambda run: (not run.is_finished, run.start_ms, run.run_id)):
        found.setdefault(run.tags.get(tag.KEY, run.run_id), run)
    return found
