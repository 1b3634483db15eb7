"""An MLflow run of a result as plain data: a parent run, one run per fold below it, and their tags."""

import time
from dataclasses import dataclass, field
from typing import NamedTuple

from callboard.core.compute import computes_json
from callboard.results.committed import params_of
from callboard.results.result import CLIPS, OUT_OF_FOLD, Result, changes

KEY = "callboard.key"
"""Tag with the content key of the result."""

KIND = "callboard.kind"
"""Tag with one of the three kinds below."""

RESULT = "cv"
FOLD_OF_RESULT = "fold"
AUTHOR = "author"

FOLD = "callboard.fold"
SUBMISSION_MD5 = "callboard.submission_md5"
OOF_MD5 = "callboard.oof_md5"
CLIPS_MD5 = "callboard.clips_md5"
DATA_MD5 = "callboard.data_md5"
COMMIT = "git.commit"

COMPUTED_BY = "callboard.computed_by"
"""Tag with what trained the networks, as JSON; blends, and results older than this record, lack it."""

NAMES = "dvc.exp_name"
"""Tag with every DVC experiment that reached the result, separated by commas; of one that none reached, the
row of experiments.yaml that it is."""

NOTE = "mlflow.note.content"
PARENT = "mlflow.parentRunId"
"""Tag with the id of the run below which MLflow shows this one."""

NAMELESS = "workspace-"


def joined_names(names: tuple[str, ...]) -> str:
    """Join names of experiments for the tag `NAMES`."""
    return ",".join(names)


def split_names(text: str) -> tuple[str, ...]:
    """Split the tag `NAMES` into names."""
    return tuple(name for name in text.split(",") if name)


def nameless(key: str) -> str:
    """Return the name of a result that no experiment has reached."""
    return NAMELESS + key[:6]


MAX_TEXT = 6000
"""Characters of a parameter or note that every kind of MLflow server accepts."""


class MetricPoint(NamedTuple):
    """One value of a metric."""

    key: str
    value: float
    time_ms: int
    step: int


@dataclass(frozen=True)
class Origin:
    """The run of the pipeline that reached a result."""

    experiment: str | None
    """Name of the DVC experiment, or several separated by commas; under `dvc repro` that of the row of
    experiments.yaml that the result is, or None."""
    commit: str
    """Commit that the workspace started from."""
    time_ms: int | None = None
    """Time at which it was reached, in milliseconds since 1970; None for now."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all its experiments."""
        return split_names(self.experiment or "")


class DataVersion(NamedTuple):
    """Name and digest of the data of a result."""

    name: str
    digest: str
    """At most 36 characters."""


@dataclass(frozen=True)
class RunRecord:
    """A run to be written."""

    name: str
    start_ms: int
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]
    data: DataVersion | None = None
    folds: dict[str, list[MetricPoint]] = field(default_factory=dict)
    """Name of a fold to its learning curve."""


def record_of(result: Result, origin: Origin, memo: str = "", start_ms: int | None = None) -> RunRecord:
    """Return a result as a run.

    Times of all points are derived from the start, so that writing the same record twice changes nothing.

    Args:
        result: The result, with its curves.
        origin: Source of the names and the note.
        memo: First paragraph of the note.
        start_ms: Start of an existing run to be completed; None for the origin's time.
    """
    start_ms = start_ms or origin.time_ms or now_ms()
    folds = {
        name: [
            MetricPoint(key, value, start_ms + int(epoch["epoch"]), int(epoch["epoch"]))
            for epoch in curve
            for key, value in epoch.items()
            if key != "epoch"
        ]
        for name, curve in result.curves.items()
    }
    return RunRecord(
        name=origin.names[0] if origin.names else nameless(result.key),
        start_ms=start_ms,
        tags=_tags(result, origin, memo),
        params={key: text[:MAX_TEXT] for key, text in result.params.items()},
        metrics=result.cv | result.lb,
        data=DataVersion(result.data_source, result.data_md5.removesuffix(".dir")),
        folds=folds,
    )


def fold_tags(record: RunRecord, parent_id: str, fold: str) -> dict[str, str]:
    """Return the tags of a fold's run."""
    return {
        PARENT: parent_id,
        KEY: record.tags[KEY],
        KIND: FOLD_OF_RESULT,
        FOLD: fold,
    }


def now_ms() -> int:
    """Return the current time in milliseconds since 1970."""
    return int(time.time() * 1000)


def _tags(result: Result, origin: Origin, memo: str) -> dict[str, str]:
    tags = {
        KEY: result.key,
        KIND: RESULT,
        SUBMISSION_MD5: result.submission_md5,
        OOF_MD5: result.md5(OUT_OF_FOLD),
        CLIPS_MD5: result.md5(CLIPS),
        DATA_MD5: result.data_md5,
        COMMIT: origin.commit,
        "source": "callboard",
        NOTE: _note(result, origin, memo),
    }
    if computes := result.computed_by:
        tags[COMPUTED_BY] = computes_json(computes)
    return tags | ({NAMES: joined_names(origin.names)} if origin.names else {})


def _note(result: Result, origin: Origin, memo: str) -> str:
    """Return the note of a new run, which a person can overwrite in MLflow."""
    base = params_of(origin.commit)
    changed = changes(base, result.params) if base else []
    against = f"Against {origin.commit[:7]}: {', '.join(changed) or 'no other parameter'}"
    return "\n\n".join(text for text in (memo, against) if text)[:MAX_TEXT]
