"""The finished results that MLflow holds, as it stores them.

A local SQLite database is read by SQL: importing mlflow alone takes longer than everything else that the
board does.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from callboard.core.errors import UserError
from callboard.results.mlflow import record as tag
from callboard.results.mlflow.client_runs import searched
from callboard.results.mlflow.connection import (
    EXPERIMENT,
    TrackingError,
    connecting,
    local_database,
    tracking_uri,
)
from callboard.results.mlflow.sqlite_runs import loaded
from callboard.results.refs import refs_in_git

RESULTS_QUERY = f"""
    SELECT runs.run_uuid AS run_id, runs.name, runs.start_time FROM runs
    JOIN experiments ON experiments.experiment_id = runs.experiment_id
    JOIN tags kind ON kind.run_uuid = runs.run_uuid
     AND kind.key = '{tag.KIND}' AND kind.value = '{tag.RESULT}'
    WHERE experiments.name = :experiment AND runs.lifecycle_stage = 'active' AND runs.status = 'FINISHED'
"""


class NoResultsError(UserError):
    """Nothing has been recorded yet."""

    def __init__(self, database: Path, why: str) -> None:
        """Say what makes the first result, or records those that git has.

        Args:
            database: The file.
            why: What is the matter with it.
        """
        in_git = any(ref.key for ref in refs_in_git())
        todo = "git has results, which `callboard sync` records" if in_git else "`dvc repro` makes the first"
        super().__init__(f"no results yet: {database} {why}; {todo}")


@dataclass
class StoredRun:
    """One result."""

    name: str
    start_ms: int
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


def stored_runs() -> list[StoredRun]:
    """Every finished result, in order of start time, then name.

    Raises:
        NoResultsError: there is no database yet.
        UserError: the server is down, or the database is none.
    """
    uri = tracking_uri()
    database = local_database(uri)
    found = _by_sql(database) if database else _by_client(uri)
    return sorted(found, key=lambda run: (run.start_ms, run.name, run.tags.get(tag.KEY, "")))


@contextmanager
def reading(database: Path) -> Iterator[sqlite3.Connection]:
    """A database on this machine, which is neither made nor changed.

    Raises:
        NoResultsError: it is not there.
        UserError: the file is no database, or lacks a table that the block asks for.
    """
    if not database.exists():
        raise NoResultsError(database, "is not there")
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise UserError(f"the results cannot be read: {database}: {error}") from error


def _by_sql(database: Path) -> list[StoredRun]:
    with reading(database) as connection:
        return _selected(connection)


def _selected(connection: sqlite3.Connection) -> list[StoredRun]:
    given = {"experiment": EXPERIMENT}
    connection.execute("BEGIN")  # all four queries see one state
    runs = {
        run_id: StoredRun(name, start) for run_id, name, start in connection.execute(RESULTS_QUERY, given)
    }

    def values(columns: str, table: str) -> Iterable[tuple[Any, ...]]:
        query = (
            f"SELECT run_uuid, key, {columns} FROM {table} "
            f"WHERE run_uuid IN (SELECT run_id FROM ({RESULTS_QUERY}))"
        )
        return connection.execute(query, given)

    for run_id, key, text in values("value", "params"):
        runs[run_id].params[key] = text
    for run_id, key, text in values("value", "tags"):
        runs[run_id].tags[key] = text
    for run_id, key, value, is_nan in values("value, is_nan", "latest_metrics"):
        runs[run_id].metrics[key] = loaded(value, is_nan)
    return list(runs.values())


def _by_client(uri: str) -> list[StoredRun]:
    query = f"tags.`{tag.KIND}` = '{tag.RESULT}' and attributes.status = 'FINISHED'"
    try:
        with connecting(uri) as client:
            experiment = client.get_experiment_by_name(EXPERIMENT)
            found = searched(client, experiment.experiment_id, query) if experiment else []
    except TrackingError as error:
        raise UserError(f"the results cannot be read: {error}") from error
    return [
        StoredRun(
            run.info.run_name,
            run.info.start_time,
            dict(run.data.params),
            dict(run.data.metrics),
            dict(run.data.tags),
        )
        for run in found
    ]
