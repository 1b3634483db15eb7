"""The results that MLflow holds, as rows of the board."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from callboard.errors import UserError
from callboard.history import params_at
from callboard.tracking import EXPERIMENT, TrackingError, mlflow_errors, prepare_environment

MAX_RUNS = 5000


@dataclass(frozen=True)
class Row:
    """One result."""

    name: str
    params: dict[str, str]
    metrics: dict[str, float]
    start: datetime
    commit: str
    base: dict[str, str]
    """Parameters of the commit that it started from; empty where unknown."""
    names: tuple[str, ...] = ()
    """Of every DVC experiment that reached it."""
    key: str = ""
    """Content key."""
    data_md5: str = ""
    clips_md5: str = ""
    oof_md5: str = ""
    parts: "tuple[Row, ...]" = ()
    """Of a blend, as far as they are on the board."""

    @property
    def is_optimistic(self) -> bool:
        """Whether CV saw something of the labels that it is measured on; an unknown part may have."""
        if blend := json.loads(self.params.get("infer.blend", "[]")):
            return len(self.parts) < len(blend) or any(part.is_optimistic for part in self.parts)
        chose_epoch = self.params.get("train.select", "last") != "last"
        return chose_epoch or self.params.get("pseudo.final", "0") != "0"


def read_rows(uri: str) -> list[Row]:
    """Every finished result that the MLflow at `uri` holds, oldest first.

    Raises:
        UserError: the server is down, or its database is none or of another version.
    """
    prepare_environment()
    try:
        with mlflow_errors(uri):
            found = _search(uri)
    except TrackingError as error:
        raise UserError(f"the results cannot be read: {error}") from error
    params_of = cache(_base_params)
    rows: dict[str, Row] = {}
    for run in found:
        row = _row(run, params_of, rows)
        rows[run.info.run_id] = row
    return list(rows.values())


def _search(uri: str) -> Sequence[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    found: Sequence[Any] = client.search_runs(
        [experiment.experiment_id],
        "tags.`callboard.kind` = 'cv' and attributes.status = 'FINISHED'",
        max_results=MAX_RUNS,
        order_by=["attributes.start_time ASC"],
    )
    return found


def _base_params(commit: str) -> dict[str, str]:
    """Parameters as of `commit`; empty where it is not known here."""
    return params_at(commit) if commit else {}


def _row(run: Any, params_of: Callable[[str], dict[str, str]], earlier: dict[str, Row]) -> Row:
    tags, params = run.data.tags, dict(run.data.params)
    commit = tags.get("git.commit", "")
    keys = {reference.rpartition("@")[2] for reference in json.loads(params.get("infer.blend", "[]"))}
    return Row(
        name=run.info.run_name,
        params=params,
        metrics=dict(run.data.metrics),
        start=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        commit=commit,
        base=params_of(commit),
        names=tuple(name for name in tags.get("dvc.exp_name", "").split(",") if name),
        key=tags.get("callboard.key", ""),
        data_md5=tags.get("callboard.data_md5", ""),
        clips_md5=tags.get("callboard.clips_md5", ""),
        oof_md5=tags.get("callboard.oof_md5", ""),
        parts=tuple(row for row in earlier.values() if row.key in keys),
    )
