"""Results to MLflow: one run per content key, however often and on whatever way it is reached.

No other stage writes to MLflow. Training may be restored from DVC's run-cache without running, or run twice
after a crash, so a run logged from inside it would be missing or doubled.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from callboard.errors import one_line
from callboard.history import git
from callboard.results import Result
from callboard.tracker.run_record import NAMES, KnownRun, Origin, RunRecord, record_of
from callboard.tracker.sqlite_runs import SqliteRuns
from callboard.workspace import main_workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "callboard"
SQLITE = "sqlite:///"
UNUSABLE = (OSError, ImportError, ValueError)
"""What an address leads to that nobody answers, that has no driver here, or that is none."""

NO_NAME = "workspace-"
"""What a run is called, before six digits of its key, that no experiment has reached."""


class TrackingError(Exception):
    """MLflow could not be reached or written; the result itself is whole."""


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


def origin_of_this_process() -> Origin:
    """As DVC tells its stages; git is asked where DVC does not say."""
    commit = os.environ.get("DVC_EXP_BASELINE_REV") or git("rev-parse", "HEAD").strip()
    return Origin(os.environ.get("DVC_EXP_NAME"), commit)


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or the main workspace's own database.

    A relative SQLite path counts from the main workspace: in a temporary one the results would go with it.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    return f"{SQLITE}{main_workspace() / uri.removeprefix(SQLITE)}" if uri.startswith(SQLITE) else uri


def local_database(uri: str) -> Path | None:
    """The file of a SQLite database; None for a server."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def without_credentials(text: str, uri: str) -> str:
    """`text` with the user and password of `uri` taken out."""
    netloc = urlsplit(uri).netloc
    return text.replace(netloc, netloc.rpartition("@")[2]) if "@" in netloc else text


def known_result(key: str) -> KnownRun | None:
    """A finished result in a database on this machine; None also where only mlflow could say."""
    runs = _by_sql(tracking_uri())
    if runs is None:
        return None
    try:
        with closing(runs):
            run = runs.known(key).get(key)
    except sqlite3.Error:
        return None
    return run if run and run.is_finished else None


def known_runs() -> dict[str, KnownRun]:
    """Every result in MLflow by content key; nothing is made where there is no database.

    Raises:
        TrackingError: the server is down, or there is no database that can be read.
    """
    uri = tracking_uri()
    prepare_environment()
    if runs := _by_sql(uri):
        with closing(runs), _sqlite_errors(uri):
            return runs.known()
    if (database := local_database(uri)) and not database.is_file():
        raise TrackingError(f"{database} is not there")
    from callboard.tracker.mlflow_runs import MlflowRuns

    with mlflow_errors(uri):
        client = _client(uri)
        found = client.get_experiment_by_name(EXPERIMENT)
        return MlflowRuns(client, found.experiment_id).known() if found else {}


def is_told(run: KnownRun, names: tuple[str, ...], scores: dict[str, float]) -> bool:
    """Whether a run says these names and leaderboard scores already."""
    return set(names) <= set(run.names) and not new_scores(run, scores)


def new_scores(run: KnownRun, scores: dict[str, float]) -> dict[str, float]:
    """The scores that a run does not show."""
    return {key: value for key, value in scores.items() if run.metrics.get(key) != value}


def record(result: Result, origin: Origin) -> str:
    """Make sure that MLflow holds the result, its leaderboard scores and its experiment's name.

    Returns:
        What was done, for the summary line.

    Raises:
        TrackingError: the server is down, or the database cannot be written.
    """
    known = known_result(result.key)
    if known and is_told(known, origin.names, result.lb):
        return "already in MLflow"
    with open_runs() as runs:
        return upsert(runs, runs.known(result.key).get(result.key), result, origin)


def upsert(runs: Runs, known: KnownRun | None, result: Result, origin: Origin) -> str:
    """Write a result that MLflow lacks, complete a half-written one, or add what a finished one lacks.

    Returns:
        What was done, for the summary line.
    """
    if not (known and known.is_finished):
        written = record_of(result, origin, known.start_ms if known else None)
        runs.write(written, known)
        return f"new run {known.name if known else written.name} in MLflow"
    done = []
    if added := tuple(name for name in origin.names if name not in known.names):
        set_names(runs, known, known.names + added)
        done.append(f"also named {', '.join(added)}")
    if scores := new_scores(known, result.lb):
        runs.set_scores(known, scores)
        done += [f"{key} {value}" for key, value in scores.items()]
    return f"known run {known.name}" + (f": {', '.join(done)}" if done else "")


def set_names(runs: Runs, run: KnownRun, names: tuple[str, ...]) -> None:
    """Say which experiments reached a result; a run's title that a person has given stays."""
    is_ours = run.name in run.names or run.name.startswith(NO_NAME)
    title = names[0] if is_ours and run.name not in names else run.name
    runs.rename(run, title, {NAMES: ",".join(names)})


def push_scores(md5: str, scores: dict[str, float]) -> int:
    """Set leaderboard scores of every finished run with this submission; the last word counts.

    Args:
        md5: Of the submission, as dvc.lock tells it.
        scores: `lb.public`, `lb.private` or both.

    Returns:
        How many runs have the submission; 0 where none is known yet, which `callboard sync` mends.

    Raises:
        TrackingError: the server is down, or the database cannot be written.
    """
    with open_runs() as runs:
        found = [
            run
            for run in runs.known().values()
            if run.is_finished and run.tags.get("callboard.submission_md5") == md5
        ]
        for run in found:
            runs.set_scores(run, new_scores(run, scores))
    return len(found)


@contextmanager
def open_runs() -> Iterator[Runs]:
    """The runs of our MLflow experiment, with the quickest of the ways to them; one writer at a time.

    Raises:
        TrackingError: the server is down, or the database cannot be written.
    """
    uri = tracking_uri()
    prepare_environment()
    with _lock():
        if runs := _by_sql(uri):
            with closing(runs), _sqlite_errors(uri):
                yield runs
            return
        from callboard.tracker.mlflow_runs import MlflowRuns

        with mlflow_errors(uri):
            client = _client(uri)
            experiment_id = _experiment(client)  # a database that was missing has its tables now
            if runs := _by_sql(uri):
                with closing(runs), _sqlite_errors(uri):
                    yield runs
            else:
                yield MlflowRuns(client, experiment_id)


@contextmanager
def open_experiment(uri: str) -> Iterator[tuple["MlflowClient", str]]:
    """A client and the id of our MLflow experiment, which is made if need be; one writer at a time.

    Raises:
        TrackingError: the server is down, or the database cannot be written.
    """
    prepare_environment()
    with mlflow_errors(uri), _lock():
        client = _client(uri)
        yield client, _experiment(client)


@contextmanager
def mlflow_errors(uri: str) -> Iterator[None]:
    """What mlflow and the libraries below it raise, as a TrackingError of one line without credentials."""
    import alembic.util
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, sqlalchemy.exc.SQLAlchemyError, alembic.util.CommandError, *UNUSABLE) as error:
        reason = f"{type(error).__name__} at {uri}: {one_line(error)}"
        raise TrackingError(without_credentials(reason, uri)) from error


@contextmanager
def _sqlite_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise TrackingError(f"{type(error).__name__} at {uri}: {one_line(error)}") from error


def prepare_environment() -> None:
    """What must hold before mlflow is imported."""
    os.environ.pop("MLFLOW_RUN_ID", None)  # would turn every fold's run into the parent
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # the default keeps trying for minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


def _by_sql(uri: str) -> SqliteRuns | None:
    database = local_database(uri)
    try:
        return SqliteRuns(database, EXPERIMENT) if database else None
    except LookupError:
        return None  # missing, of another version, or broken: mlflow makes, moves or refuses it


@contextmanager
def _lock() -> Iterator[None]:
    """One writer at a time: processes that create MLflow's tables together leave them broken for good."""
    with (main_workspace() / ".mlflow.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _client(uri: str) -> "MlflowClient":
    import logging

    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _experiment(client: "MlflowClient") -> str:
    if found := client.get_experiment_by_name(EXPERIMENT):
        return str(found.experiment_id)
    is_local = tracking_uri().startswith("sqlite:")
    # without a location MLflow would fix one below the current folder, which may be a temporary workspace
    location = (main_workspace() / "mlartifacts").as_uri() if is_local else None
    return str(client.create_experiment(EXPERIMENT, artifact_location=location))
