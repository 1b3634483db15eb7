"""The runs of our MLflow experiment, by the quickest way to them: SQL where it can be, else mlflow."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Protocol

from callboard.results.mlflow.connection import (
    EXPERIMENT,
    TrackingError,
    connecting,
    guarded,
    local_database,
    mlflow_errors,
    one_writer,
    our_experiment,
    sqlite_errors,
    tracking_uri,
)
from callboard.results.mlflow.record import KnownRun, RunRecord
from callboard.results.mlflow.sqlite_runs import SqliteRuns


class Runs(Protocol):
    """Where runs are held; see `sqlite_runs` and `mlflow_runs`."""

    def close(self) -> None:
        """Let go of what is open."""

    def known(self, key: str = "") -> dict[str, KnownRun]:
        """By content key what MLflow has, or the one with `key`."""

    def write(self, record: RunRecord, unfinished: KnownRun | None) -> None:
        """Write a result, or complete the run that a killed writer left."""

    def rename(self, run: KnownRun, name: str, tags: dict[str, str]) -> None:
        """Give a run another name and these tags."""

    def set_scores(self, run: KnownRun, scores: dict[str, float]) -> None:
        """Log scores later than what they replace."""


@contextmanager
def open_runs() -> Iterator[Runs]:
    """The runs of our MLflow experiment, which is made if need be; one writer at a time.

    Their methods raise a TrackingError where MLflow fails; what the block raises stays as it is.

    Raises:
        TrackingError: the server is down, or the database cannot be written.
    """
    uri = tracking_uri()
    with one_writer(), closing(_by_sql(uri) or _by_mlflow(uri)) as runs:
        yield runs


def known_runs() -> dict[str, KnownRun]:
    """Every result in MLflow by content key; nothing is made where there is no database.

    Raises:
        TrackingError: the server is down, or there is no database that can be read.
    """
    uri = tracking_uri()
    if runs := _by_sql(uri):
        with closing(runs):
            return runs.known()
    if (database := local_database(uri)) and not database.is_file():
        raise TrackingError(f"{database} is not there")
    from callboard.results.mlflow.client_runs import MlflowRuns

    with connecting(uri) as client:
        found = client.get_experiment_by_name(EXPERIMENT)
        return MlflowRuns(client, found.experiment_id).known() if found else {}


def known_result(key: str) -> KnownRun | None:
    """A finished result in a database on this machine; None also where only mlflow could say."""
    runs = _by_sql(tracking_uri())
    if runs is None:
        return None
    try:
        with closing(runs):
            run = runs.known(key).get(key)
    except TrackingError:
        return None
    return run if run and run.is_finished else None


def _by_sql(uri: str) -> Runs | None:
    if not (database := local_database(uri)):
        return None
    try:
        return guarded(SqliteRuns(database, EXPERIMENT), partial(sqlite_errors, uri))
    except LookupError:
        return None  # missing, of another version, or broken: mlflow makes, moves or refuses it


def _by_mlflow(uri: str) -> Runs:
    from callboard.results.mlflow.client_runs import MlflowRuns

    with connecting(uri) as client:
        experiment_id = our_experiment(client)  # a database that was missing has its tables now
    return _by_sql(uri) or guarded(MlflowRuns(client, experiment_id), partial(mlflow_errors, uri))
