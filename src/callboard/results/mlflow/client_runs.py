"""Runs on any server that mlflow's client reaches."""

from typing import TYPE_CHECKING

from callboard.results.mlflow import record as tag
from callboard.results.mlflow.record import KnownRun, MetricPoint, RunRecord, fold_tags, now_ms

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

METRICS_PER_CALL = 1000
"""The most that MLflow takes in one `log_batch`."""

RUNS_PER_CALL = 1000


class MlflowRuns:
    """The runs of one MLflow experiment."""

    def __init__(self, client: "MlflowClient", experiment_id: str) -> None:
        """Use a client that has been connected.

        Args:
            client: Of the server.
            experiment_id: Of the MLflow experiment.
        """
        self._client, self._experiment = client, experiment_id

    def close(self) -> None:
        """Nothing is held."""

    def known(self, key: str = "") -> dict[str, KnownRun]:
        """Results in MLflow by content key, or the one with `key`; of two the first finished counts."""
        query = f"tags.`{tag.KIND}` = '{tag.RESULT}'" + (f" and tags.`{tag.KEY}` = '{key}'" if key else "")
        found: dict[str, KnownRun] = {}
        for run in sorted(self._search(query), key=lambda run: run.info.status != "FINISHED"):
            found.setdefault(run.data.tags[tag.KEY], _known(run))
        return found

    def write(self, record: RunRecord, unfinished: KnownRun | None) -> None:
        """Write a result, or complete the run that a killed writer left; the notes of a person stay."""
        from mlflow.entities import Dataset, DatasetInput, Param, RunTag

        if unfinished:
            run_id, kept = unfinished.run_id, unfinished.tags
            params = self._client.get_run(run_id).data.params
        else:
            run_id, kept, params = self._new_run(record.name, record.start_ms, record.tags), record.tags, {}
        self._client.log_batch(
            run_id,
            metrics=_metrics(record.metrics),
            params=[Param(key, text) for key, text in record.params.items() if key not in params],
            tags=[RunTag(key, text) for key, text in record.tags.items() if key not in kept],
        )
        source = f'{{"md5": "{record.digest}"}}'
        dataset = Dataset(name=record.dataset, digest=record.digest, source_type="dvc", source=source)
        self._client.log_inputs(run_id, [DatasetInput(dataset)])
        children = self._children(run_id) if unfinished else {}
        for fold, curve in record.folds.items():
            tags = fold_tags(record, run_id, fold)
            child = children.get(fold) or self._new_run(fold, record.start_ms, tags)
            metrics = _metrics(curve)
            for first in range(0, len(metrics), METRICS_PER_CALL):
                self._client.log_batch(child, metrics=metrics[first : first + METRICS_PER_CALL])
            self._finish(child, record.start_ms, curve)
        self._finish(
            run_id, record.start_ms, record.metrics
        )  # the commit point: a killed run is completed later

    def rename(self, run: KnownRun, name: str, tags: dict[str, str]) -> None:
        """Give a run another name and these tags."""
        for key, text in tags.items():
            self._client.set_tag(run.run_id, key, text)
        self._client.update_run(run.run_id, name=name)

    def set_scores(self, run: KnownRun, scores: dict[str, float]) -> None:
        """Log scores later than what they replace, since MLflow shows the latest."""
        for key, value in scores.items():
            history = [metric.timestamp for metric in self._client.get_metric_history(run.run_id, key)]
            time_ms = max([now_ms(), *(last_ms + 1 for last_ms in history)])
            self._client.log_metric(run.run_id, key, value, timestamp=time_ms, step=0)

    def _new_run(self, name: str, start_ms: int, tags: dict[str, str]) -> str:
        created = self._client.create_run(self._experiment, start_time=start_ms, tags=tags, run_name=name)
        return str(created.info.run_id)

    def _children(self, run_id: str) -> dict[str, str]:
        found = self._search(f"tags.`{tag.PARENT}` = '{run_id}'")
        return {run.data.tags[tag.FOLD]: run.info.run_id for run in found}

    def _finish(self, run_id: str, start_ms: int, points: list[MetricPoint]) -> None:
        end_ms = max((point.time_ms for point in points), default=start_ms)
        self._client.set_terminated(run_id, "FINISHED", end_time=end_ms)

    def _search(self, query: str) -> "list[Run]":
        return searched(self._client, self._experiment, query)


def searched(client: "MlflowClient", experiment_id: str, query: str) -> "list[Run]":
    """All runs that a query finds, oldest first, page by page; raises what mlflow raises."""
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
            return found


def _metrics(points: list[MetricPoint]) -> "list[Metric]":
    from mlflow.entities import Metric

    return [Metric(point.key, point.value, point.time_ms, point.step) for point in points]


def _known(run: "Run") -> KnownRun:
    info, data = run.info, run.data
    return KnownRun(
        info.run_id,
        info.run_name,
        info.start_time,
        info.status == "FINISHED",
        dict(data.tags),
        dict(data.metrics),
    )
