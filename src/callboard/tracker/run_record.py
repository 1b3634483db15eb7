"""What MLflow shall hold of a result: a parent run with one run per fold below it, as plain data."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

from callboard.history import params_at
from callboard.results import CLIPS, OUT_OF_FOLD, Result, changes

MAX_TEXT = 6000
"""Characters of a parameter or note that MLflow keeps on every kind of server."""

NOTE = "mlflow.note.content"
NAMES = "dvc.exp_name"


class Point(NamedTuple):
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


@dataclass(frozen=True)
class RunRecord:
    """A result as MLflow shows it."""

    key: str
    name: str
    start_ms: int
    tags: dict[str, str]
    params: dict[str, str]
    metrics: list[Point]
    dataset: str
    digest: str
    """Of the data, at most 36 characters."""
    folds: dict[str, list[Point]]
    """Learning curve by the name of its fold."""


@dataclass(frozen=True)
class KnownRun:
    """What MLflow says of a result already."""

    run_id: str
    name: str
    start_ms: int
    is_finished: bool
    """False for a run whose writer was killed: the status is set last."""
    tags: dict[str, str]
    metrics: dict[str, float]

    @property
    def names(self) -> tuple[str, ...]:
        """Experiments that reached it."""
        return split_names(self.tags.get(NAMES, ""))


def split_names(text: str) -> tuple[str, ...]:
    """The names in a list with commas."""
    return tuple(name for name in text.split(",") if name)


def record_of(result: Result, origin: Origin, start_ms: int | None = None) -> RunRecord:
    """The result as a run.

    Times of all points follow from the start, so that writing the same record twice changes nothing.

    Args:
        result: With its curves.
        origin: Names and note come from it.
        start_ms: Of a run that is to be completed; else the origin's time counts.
    """
    start_ms = start_ms or origin.time_ms or now_ms()
    folds = {
        name: [
            Point(key, value, start_ms + int(epoch["epoch"]), int(epoch["epoch"]))
            for epoch in curve
            for key, value in epoch.items()
            if key != "epoch"
        ]
        for name, curve in result.curves.items()
    }
    return RunRecord(
        key=result.key,
        name=origin.names[0] if origin.names else f"workspace-{result.key[:6]}",
        start_ms=start_ms,
        tags=_tags(result, origin),
        params={key: text[:MAX_TEXT] for key, text in result.params.items()},
        metrics=[Point(key, value, start_ms, 0) for key, value in (result.cv | result.lb).items()],
        dataset=result.data_source,
        digest=result.data_md5.removesuffix(".dir"),
        folds=folds,
    )


def fold_tags(record: RunRecord, parent_id: str, fold: str) -> dict[str, str]:
    """Tags of a fold's run; the first makes MLflow show it below its parent."""
    return {
        "mlflow.parentRunId": parent_id,
        "callboard.key": record.key,
        "callboard.kind": "fold",
        "callboard.fold": fold,
    }


def now_ms() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


@cache
def memos(table: Path) -> dict[str, str]:
    """English memo by name of a row; empty where there is no table.

    Only this much of the table is read here; whether the rest of it is right is asked where it is run.
    """
    if not table.is_file():
        return {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    rows: Iterable[dict[str, str]] = yaml.load(table.read_text(encoding="utf-8"), Loader=loader)["rows"]
    return {
        "-".join(row[part] for part in ("id", "variant") if row.get(part)): row["memo_en"]
        for row in rows
        if row.get("memo_en")
    }


def _tags(result: Result, origin: Origin) -> dict[str, str]:
    tags = {
        "callboard.key": result.key,
        "callboard.kind": "cv",
        "callboard.submission_md5": result.submission_md5,
        "callboard.oof_md5": result.outs[OUT_OF_FOLD],
        "callboard.clips_md5": result.outs[CLIPS],
        "callboard.data_md5": result.data_md5,
        "git.commit": origin.commit,
        "source": "callboard",
        NOTE: _note(result, origin),
    }
    return tags | ({NAMES: ",".join(origin.names)} if origin.names else {})


@cache
def _base_params(commit: str) -> dict[str, str]:
    """Many results start from one commit, and reading params.yaml takes as long as writing a run."""
    return params_at(commit)


def _note(result: Result, origin: Origin) -> str:
    """What a person reads first; theirs to overwrite in MLflow."""
    base = _base_params(origin.commit)
    changed = changes(base, result.params) if base else []
    against = f"Against {origin.commit[:7]}: {', '.join(changed) or 'no other parameter'}"
    known = memos(Path.cwd() / "experiments.yaml") if origin.names else {}
    memo = next((known[name] for name in origin.names if name in known), "")
    return "\n\n".join(text for text in (memo, against) if text)[:MAX_TEXT]
