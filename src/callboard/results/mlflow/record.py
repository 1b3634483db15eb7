"""An MLflow run of a result as plain data: a parent run, one run per fold below it, and their tags."""

import time
from dataclasses import dataclass, field
from typing import NamedTuple

from callboard.results.committed import params_of
from callboard.results.result import CLIPS, OUT_OF_FOLD, Result, changes

KEY = "callboard.key"
"""Content key of the result."""

KIND = "callboard.kind"
"""One of the three below."""

RESULT = "cv"
FOLD_OF_RESULT = "fold"
AUTHOR = "author"

FOLD = "callboard.fold"
SUBMISSION_MD5 = "callboard.submission_md5"
OOF_MD5 = "callboard.oof_md5"
CLIPS_MD5 = "callboard.clips_md5"
DATA_MD5 = "callboard.data_md5"
COMMIT = "git.commit"

NAMES = "dvc.exp_name"
"""Every DVC experiment that reached the result, with commas between them."""

NOTE = "mlflow.note.content"
PARENT = "mlflow.parentRunId"
"""Makes MLflow show a run below another."""

NAMELESS = "workspace-"


def joined_names(names: tuple[str, ...]) -> str:
    """Names of experiments as the tag has them."""
    return ",".join(names)


def split_names(text: str) -> tuple[str, ...]:
    """The names in a tag."""
    return tuple(name for name in text.split(",") if name)


def nameless(key: str) -> str:
    """What a result is called that no experiment has reached."""
    return NAMELESS + key[:6]


MAX_TEXT = 6000
"""Characters of a parameter or note that MLflow keeps on every kind of server."""


class MetricPoint(NamedTuple):
    """One value of a metric."""

    key: str
    value: float
    time_ms: int
    step: int


@dataclass(frozen=True)
class Origin:
    """Where a result was reached."""

    experiment: str | None
    """DVC's name for it; none under `dvc repro`. Several names stand with commas between them."""
    commit: str
    """What the workspace started from."""
    time_ms: int | None = None
    """When it was reached, in milliseconds since 1970; None for now."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every experiment of this origin."""
        return split_names(self.experiment or "")


class DataVersion(NamedTuple):
    """The data of a result."""

    name: str
    digest: str
    """At most 36 characters."""


@dataclass(frozen=True)
class RunRecord:
    """A run as it is to be written."""

    name: str
    start_ms: int
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]
    data: DataVersion | None = None
    folds: dict[str, list[MetricPoint]] = field(default_factory=dict)
    """Learning curve by the name of its fold."""


def record_of(result: Result, origin: Origin, memo: str = "", start_ms: int | None = None) -> RunRecord:
    """The result as a run.

    Times of all points follow from the start, so that writing the same record twice changes nothing.

    Args:
        result: With its curves.
        origin: Names and note come from it.
        memo: First paragraph of the note.
        start_ms: Of a run that is to be completed; else the origin's time counts.
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
    """Tags of a fold's run."""
    return {
        PARENT: parent_id,
        KEY: record.tags[KEY],
        KIND: FOLD_OF_RESULT,
        FOLD: fold,
    }


def now_ms() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def _tags(result: Result, origin: Origin, memo: str) -> dict[str, str]:
    tags = {
        KEY: result.key,
        KIND: RESULT,
        SUBMISSION_MD5: result.submission_md5,
        OOF_MD5: result.outs[OUT_OF_FOLD],
        CLIPS_MD5: result.outs[CLIPS],
        DATA_MD5: result.data_md5,
        COMMIT: origin.commit,
        "source": "callboard",
        NOTE: _note(result, origin, memo),
    }
    return tags | ({NAMES: joined_names(origin.names)} if origin.names else {})


def _note(result: Result, origin: Origin, memo: str) -> str:
    """What a person reads first; theirs to overwrite in MLflow."""
    base = params_of(origin.commit)
    changed = changes(base, result.params) if base else []
    against = f"Against {origin.commit[:7]}: {', '.join(changed) or 'no other parameter'}"
    return "\n\n".join(text for text in (memo, against) if text)[:MAX_TEXT]
