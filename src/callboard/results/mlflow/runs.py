"""Writing of runs to MLflow, through its client only.

A run is created as running, filled, and finished last, each fold before its parent: a finished run is
complete. `Runs.write` resumes a run that a killed process left and adds nothing twice, since MLflow keeps one
of two equal points of a metric, and the times of points are derived from the start of their run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from callboard.results.mlflow.connection import (
    EXPERIMENT,
    connecting,
    one_writer,
    our_experiment,
    tracking_uri,
)
from callboard.results.mlflow.record import FOLD, PARENT, MetricPoint, RunRecord, fold_tags, now_ms
from callboard.results.stored_runs import StoredRun, searched

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric

FINISHED = "FINISHED"


@contextmanager
def open_runs() -> Iterator["Runs"]:
    """Yield a writer of MLflow's runs, one at a time.

    Raises:
        TrackingError: the main workspace cannot be written.
    """
    with one_writer():
        yield Runs(tracking_uri())


class Runs:
    """A writer of runs in our MLflow experiment, which the first write creates; see `open_runs`.

    Every method raises a TrackingError if the server is down or mlflow fails.
    """

    def __init__(self, uri: str) -> None:
        """Store the address without connecting: importing mlflow takes seconds.

        Args:
            uri: Address of the server or database.
        """
        self._uri = uri

    def write(self, record: RunRecord, unfinished: StoredRun | None = None) -> None:
        """Write a run, or complete the one that a killed writer left; a person's notes stay."""
        with our_experiment(self._uri) as (client, experiment_id):
            if unfinished:
                run, folds = unfinished, _folds_of(client, experiment_id, unfinished)
            else:
                run_id = _begin(client, experiment_id, record.name, record.start_ms, record.tags)
                run, folds = StoredRun(record.name, record.start_ms, run_id=run_id), {}
            _fill(client, run, record)
            for fold, curve in record.folds.items():
                if (begun := folds.get(fold)) and begun.is_finished:
                    continue
                tags = fold_tags(record, run.run_id, fold)
                run_id = begun.run_id if begun else _begin(client, experiment_id, fold, run.start_ms, tags)
                client.log_batch(run_id, metrics=_metrics(curve))
                end_ms = max((point.time_ms for point in curve), default=run.start_ms)
                client.set_terminated(run_id, FINISHED, end_time=end_ms)
            client.set_terminated(run.run_id, FINISHED, end_time=run.start_ms)

    def rename(self, run: StoredRun, name: str, tags: dict[str, str]) -> None:
        """Set the name of a run, then these tags."""
        with our_experiment(self._uri) as (client, _):
            if name != run.name:
                client.update_run(run.run_id, name=name)
            _set_tags(client, run, tags)

    def set_tags(self, run: StoredRun, tags: dict[str, str]) -> None:
        """Set these tags of a run."""
        with our_experiment(self._uri) as (client, _):
            _set_tags(client, run, tags)

    def set_scores(self, run: StoredRun, scores: dict[str, float]) -> None:
        """Log scores with a later time than those they replace, since MLflow shows the latest."""
        with our_experiment(self._uri) as (client, _):
            _correct(client, run, scores)

    def restore(self) -> None:
        """Restore our MLflow experiment, which was deleted, with all runs that it ever had."""
        with connecting(self._uri) as client:
            if found := client.get_experiment_by_name(EXPERIMENT):
                client.restore_experiment(found.experiment_id)

    def delete(self, run: StoredRun) -> None:
        """Mark a run as deleted."""
        with our_experiment(self._uri) as (client, _):
            client.delete_run(run.run_id)


def _begin(client: "MlflowClient", experiment_id: str, name: str, start_ms: int, tags: dict[str, str]) -> str:
    """Create a run and return its id; its tags are set at once, so that it is found again after a crash."""
    created = client.create_run(experiment_id, start_time=start_ms, tags=tags, run_name=name)
    return str(created.info.run_id)


def _folds_of(client: "MlflowClient", experiment_id: str, parent: StoredRun) -> dict[str, StoredRun]:
    """Return the runs of folds below a parent, by the name of the fold."""
    found = searched(client, experiment_id, f"tags.`{PARENT}` = '{parent.run_id}'")
    return {run.tags[FOLD]: run for run in found}


def _fill(client: "MlflowClient", run: StoredRun, record: RunRecord) -> None:
    """Add what a run lacks of its record; MLflow cannot change parameters, and shows the latest score."""
    from mlflow.entities import Param

    scores = run.lacking(record.metrics)
    corrected = {key: value for key, value in scores.items() if key in run.metrics}
    points = [MetricPoint(key, scores[key], run.start_ms, 0) for key in scores.keys() - corrected.keys()]
    params = [Param(key, text) for key, text in record.params.items() if key not in run.params]
    client.log_batch(run.run_id, metrics=_metrics(points), params=params)
    _correct(client, run, corrected)
    if record.data:
        client.log_inputs(run.run_id, [_dataset(*record.data)])


def _correct(client: "MlflowClient", run: StoredRun, scores: dict[str, float]) -> None:
    for key, value in scores.items():
        history = [metric.timestamp for metric in client.get_metric_history(run.run_id, key)]
        time_ms = max([now_ms(), *(last_ms + 1 for last_ms in history)])
        client.log_metric(run.run_id, key, value, timestamp=time_ms, step=0)


def _set_tags(client: "MlflowClient", run: StoredRun, tags: dict[str, str]) -> None:
    for key, text in tags.items():
        client.set_tag(run.run_id, key, text)


def _metrics(points: list[MetricPoint]) -> "list[Metric]":
    from mlflow.entities import Metric

    return [Metric(point.key, point.value, point.time_ms, point.step) for point in points]


def _dataset(name: str, digest: str) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput

    source = f'{{"md5": "{digest}"}}'
    return DatasetInput(Dataset(name=name, digest=digest, source_type="dvc", source=source))
