"""Results to MLflow: one run per content key, however often and on whatever way it is reached.

No other stage writes to MLflow. Training may be restored from DVC's run-cache without running, or run twice
after a crash, so a run logged from inside it would be missing or doubled.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from callboard.errors import one_line
from callboard.history import git, params_at
from callboard.results import CLIPS, OUT_OF_FOLD, Result, changes
from callboard.workspace import main_workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "callboard"
SQLITE = "sqlite:///"
UNUSABLE = (OSError, ImportError, ValueError)
"""What an address leads to that nobody answers, that has no driver here, or that is none."""

METRICS_PER_CALL = 1000
"""The most that MLflow takes in one `log_batch`."""


class TrackingError(Exception):
    """MLflow could not be reached or written; the result itself is whole."""


@dataclass(frozen=True)
class Origin:
    """Where a result was reached."""

    experiment: str | None
    """DVC's name for it; none under `dvc repro`."""
    commit: str
    """What the workspace started from."""

    @classmethod
    def of_this_process(cls) -> "Origin":
        """As DVC tells its stages; git is asked where DVC does not say."""
        commit = os.environ.get("DVC_EXP_BASELINE_REV") or git("rev-parse", "HEAD").strip()
        return cls(os.environ.get("DVC_EXP_NAME"), commit)


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or the main workspace's own database.

    A relative SQLite path counts from the main workspace: in a temporary one the results would go with it.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    return f"{SQLITE}{main_workspace() / uri.removeprefix(SQLITE)}" if uri.startswith(SQLITE) else uri


def without_credentials(text: str, uri: str) -> str:
    """`text` with the user and password of `uri` taken out."""
    netloc = urlsplit(uri).netloc
    return text.replace(netloc, netloc.rpartition("@")[2]) if "@" in netloc else text


def record(result: Result, origin: Origin) -> str:
    """Make sure that MLflow holds the result, its leaderboard scores and its experiment's name.

    Returns:
        What was done, for the summary line.

    Raises:
        TrackingError: the server is down, or the database cannot be written.
    """
    uri = tracking_uri()
    if uri.startswith(SQLITE) and _is_recorded(Path(uri.removeprefix(SQLITE)), result, origin):
        return "already in MLflow"
    with open_experiment(uri) as (client, experiment_id):
        return _upsert(client, experiment_id, result, origin)


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


def prepare_environment() -> None:
    """What must hold before mlflow is imported."""
    os.environ.pop("MLFLOW_RUN_ID", None)  # would turn every fold's run into the parent
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # the default keeps trying for minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


def _is_recorded(database: Path, result: Result, origin: Origin) -> bool:
    """Whether a finished run says all of this already; asked without importing mlflow, which takes 1 s."""
    query = """
        SELECT runs.run_uuid FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid
        WHERE tags.key = 'callboard.key' AND tags.value = ? AND runs.status = 'FINISHED'
          AND runs.lifecycle_stage = 'active'
          AND EXISTS (SELECT 1 FROM tags kind WHERE kind.run_uuid = runs.run_uuid
                      AND kind.key = 'callboard.kind' AND kind.value = 'cv')"""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            runs = connection.execute(query, (result.key,)).fetchall()
            if not runs:
                return False
            run_id = runs[0]
            tags = dict(connection.execute("SELECT key, value FROM tags WHERE run_uuid = ?", run_id))
            metrics = dict(
                connection.execute("SELECT key, value FROM latest_metrics WHERE run_uuid = ?", run_id)
            )
    except sqlite3.Error:
        return False  # no database yet, or one that only mlflow can judge
    return not _new_names(tags, origin) and not _new_scores(metrics, result)


def _new_names(tags: dict[str, str], origin: Origin) -> str | None:
    """The list of experiment names with this one added, if it is not there yet."""
    names = [name for name in tags.get("dvc.exp_name", "").split(",") if name]
    return (
        ",".join([*names, origin.experiment])
        if origin.experiment and origin.experiment not in names
        else None
    )


def _new_scores(metrics: dict[str, float], result: Result) -> dict[str, float]:
    return {key: value for key, value in result.lb.items() if metrics.get(key) != value}


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


def _upsert(client: "MlflowClient", experiment_id: str, result: Result, origin: Origin) -> str:
    query = f"tags.`callboard.key` = '{result.key}' and tags.`callboard.kind` = 'cv'"
    run = _find(client, experiment_id, query)
    if run and run.info.status == "FINISHED":
        return _update(client, run, result, origin)
    run = run or _create_parent(client, experiment_id, result, origin)
    _log_parent(client, run, result, origin)
    for name, curve in result.curves.items():
        _log_fold(client, run, name, curve, result)
    client.set_terminated(run.info.run_id, "FINISHED")  # the commit point: a killed run is completed later
    return f"new run {run.info.run_name} in MLflow"


def _experiment(client: "MlflowClient") -> str:
    if found := client.get_experiment_by_name(EXPERIMENT):
        return str(found.experiment_id)
    is_local = tracking_uri().startswith("sqlite:")
    # without a location MLflow would fix one below the current folder, which may be a temporary workspace
    location = (main_workspace() / "mlartifacts").as_uri() if is_local else None
    return str(client.create_experiment(EXPERIMENT, artifact_location=location))


def _find(client: "MlflowClient", experiment_id: str, query: str) -> "Run | None":
    runs = client.search_runs([experiment_id], query, max_results=1, order_by=["attributes.start_time ASC"])
    return runs[0] if runs else None


def _create_parent(client: "MlflowClient", experiment_id: str, result: Result, origin: Origin) -> "Run":
    tags = {
        "callboard.key": result.key,
        "callboard.kind": "cv",
        "callboard.submission_md5": result.submission_md5,
        "callboard.oof_md5": result.outs[OUT_OF_FOLD],
        "callboard.clips_md5": result.outs[CLIPS],
        "callboard.data_md5": result.data_md5,
        "git.commit": origin.commit,
        "source": "callboard",
    }
    if origin.experiment:
        tags["dvc.exp_name"] = origin.experiment
    name = origin.experiment or f"workspace-{result.key[:6]}"
    return client.create_run(experiment_id, start_time=_now_ms(), tags=tags, run_name=name)


def _log_parent(client: "MlflowClient", run: "Run", result: Result, origin: Origin) -> None:
    from mlflow.entities import Dataset, DatasetInput, Metric, Param

    start = run.info.start_time
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(key, value, start, 0) for key, value in (result.cv | result.lb).items()],
        params=[Param(key, text) for key, text in result.params.items() if key not in run.data.params],
    )
    digest = result.data_md5.removesuffix(".dir")
    dataset = Dataset(
        name=result.data_source, digest=digest, source_type="dvc", source=f'{{"md5": "{digest}"}}'
    )
    client.log_inputs(run.info.run_id, [DatasetInput(dataset)])
    if "mlflow.note.content" not in run.data.tags:
        client.set_tag(run.info.run_id, "mlflow.note.content", _note(result, origin))


def _note(result: Result, origin: Origin) -> str:
    """What a person reads first; theirs to overwrite in MLflow."""
    base = params_at(origin.commit)
    changed = changes(base, result.params) if base else []
    return f"Against {origin.commit[:7]}: {', '.join(changed) or 'no other parameter'}"


def _log_fold(
    client: "MlflowClient", parent: "Run", name: str, curve: list[dict[str, float]], result: Result
) -> None:
    """A child run with the learning curve; times follow from the parent's, so a repeat changes nothing."""
    from mlflow.entities import Metric

    parent_id, start = parent.info.run_id, parent.info.start_time
    tags = {
        "mlflow.parentRunId": parent_id,
        "callboard.key": result.key,
        "callboard.kind": "fold",
        "callboard.fold": name,
    }
    query = f"tags.`mlflow.parentRunId` = '{parent_id}' and tags.`callboard.fold` = '{name}'"
    experiment_id = parent.info.experiment_id
    run = _find(client, experiment_id, query) or client.create_run(
        experiment_id, start_time=start, tags=tags, run_name=name
    )
    metrics = [
        Metric(key, value, start + int(epoch["epoch"]), int(epoch["epoch"]))
        for epoch in curve
        for key, value in epoch.items()
        if key != "epoch"
    ]
    for first in range(0, len(metrics), METRICS_PER_CALL):
        client.log_batch(run.info.run_id, metrics=metrics[first : first + METRICS_PER_CALL])
    client.set_terminated(run.info.run_id, "FINISHED")


def _update(client: "MlflowClient", run: "Run", result: Result, origin: Origin) -> str:
    """Add what a finished run does not say yet: leaderboard scores, another experiment's name."""
    run_id, done = run.info.run_id, []
    if names := _new_names(run.data.tags, origin):
        client.set_tag(run_id, "dvc.exp_name", names)
        if run.info.run_name.startswith("workspace-"):
            client.update_run(run_id, name=origin.experiment)
        done.append(f"also named {origin.experiment}")
    for key, value in _new_scores(run.data.metrics, result).items():
        history = [metric.timestamp for metric in client.get_metric_history(run_id, key)]
        client.log_metric(run_id, key, value, timestamp=max([_now_ms(), *(t + 1 for t in history)]), step=0)
        done.append(f"{key} {value}")
    return f"known run {run.info.run_name}" + (f": {', '.join(done)}" if done else "")


def _now_ms() -> int:
    return int(time.time() * 1000)
