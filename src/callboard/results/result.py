"""What a finished pipeline leaves behind: content key, parameters, metrics and curves."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML

from callboard.core.errors import UserError
from callboard.params.renamed import renamed

RESULT_STAGES = ("evaluate", "infer", "score")
"""What these stages and their ancestors say in dvc.lock identifies a result."""

CHECK_FOLDER = ".check/"
"""What lies below decides whether a stage runs, not what it gives."""

SUBMISSION = "submission/submission.csv"
SUBMISSIONS_WITHOUT = "submission/without"
"""Folder of submissions without a step."""

OUT_OF_FOLD = "scores/oof.csv"
CLIPS = "data/clips.csv"
FOLDS = "data/folds.csv"

METRIC_DIGITS = 5
"""Metrics are rounded for people; LWLRAP moves in the fourth digit when one annotation changes rank."""

Lock = dict[str, dict[str, Any]]
"""The `stages` of a dvc.lock."""


@dataclass(frozen=True)
class Result:
    """One result of the pipeline, however it was reached."""

    key: str
    """16 hex digits; equal for equal parameters and equal outputs of every stage that led here."""
    outs: dict[str, str]
    """Path to md5, of every output that dvc.lock tells."""
    data_source: str
    params: dict[str, str]
    """Dotted key to text, all of params.yaml."""
    cv: dict[str, float]
    """`cv.lwlrap` and its kin."""
    lb: dict[str, float]
    """`lb.public`, `lb.private`, as far as the source of the data or the ledger knows them."""
    curves: dict[str, list[dict[str, float]]]
    """Name of a fold (`r0-fold3`) to its epochs, each with the columns that have a value there."""

    @property
    def submission_md5(self) -> str:
        """What leaderboard.csv calls it by."""
        return self.outs[SUBMISSION]

    @property
    def data_md5(self) -> str:
        """Of the recordings and annotations that it was made from."""
        return self.outs["data/source"]


Files = Callable[[str], str]
"""Text of a file by its path in a workspace; empty where there is none."""


def files_in(workspace: Path) -> Files:
    """The files that lie in a folder."""

    def read(name: str) -> str:
        path = workspace / name
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    return read


def read_result(files: Files, where: str) -> Result:
    """The result that a workspace holds after its last stage before track.

    Args:
        files: Of the workspace, or of a commit.
        where: What to call it in errors.

    Raises:
        UserError: dvc.lock, metrics or a curve is missing, or dvc.lock lacks a stage.
    """
    lock = parse_lock(_found(files, "dvc.lock", where), f"{where}: dvc.lock")
    tree = renamed(YAML(typ="safe", pure=True).load(_found(files, "params.yaml", where)))
    return Result(
        key=content_key(lock),
        outs=all_outs(lock),
        data_source=tree["data"]["source"],
        params=flatten(tree),
        cv=_metrics(_found(files, "metrics/cv.json", where)),
        lb=_metrics(_found(files, "metrics/lb.json", where)),
        curves={name: _curve(_found(files, f"plots/train/{name}.csv", where)) for name in _fold_names(tree)},
    )


def _found(files: Files, name: str, where: str) -> str:
    if not (text := files(name)):
        raise UserError(f"{where}: {name}: not found; `dvc repro` writes it, `dvc checkout` restores it")
    return text


def parse_lock(text: str, where: str) -> Lock:
    """The stages of a dvc.lock, told in errors as `where`.

    Raises:
        UserError: a stage that every result has is not in it.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ruamel takes 20 times as long here
    lock: Lock = (yaml.load(text, Loader=loader) or {}).get("stages", {})
    if missing := [stage for stage in ("prepare", *RESULT_STAGES) if stage not in lock]:
        raise UserError(f"{where}: no stage {missing[0]}; run `dvc repro`")
    return lock


def all_outs(lock: Lock) -> dict[str, str]:
    """Path to md5 of what the stages wrote."""
    return {path: md5 for stage in lock.values() for path, md5 in _outs(stage).items()}


def content_key(lock: Lock) -> str:
    """16 hex digits over the parameters and outputs of evaluate, infer, score and their ancestors.

    Code (with the fingerprints of it below .check), commands and library versions are left out: where they
    matter an output differs, and where none differs the result is the same one. Stages that a matrix no
    longer has stay in dvc.lock; they are no ancestors.
    """
    told = {
        name: {"params": lock[name].get("params"), "outs": _outs(lock[name])} for name in _ancestors(lock)
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _ancestors(lock: Lock) -> set[str]:
    found: set[str] = set()
    waiting = list(RESULT_STAGES)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            inputs = [
                dep["path"] for dep in lock[name].get("deps", []) if not dep["path"].startswith(CHECK_FOLDER)
            ]
            waiting += [source for path in inputs for source in _makers(lock, path)]
    return found


def _makers(lock: Lock, path: str) -> Iterator[str]:
    """Stages that made the file, the folder around it, or, if still current, something inside the folder."""
    for name, stage in lock.items():
        for out in _outs(stage):
            is_inside = out.startswith(f"{path}/")
            if out == path or path.startswith(f"{out}/") or (is_inside and _is_current(lock, stage)):
                yield name


def _is_current(lock: Lock, stage: dict[str, Any]) -> bool:
    """Whether what the stage read is what the stages before it last wrote."""
    made = all_outs(lock)
    return all(made.get(dep["path"], dep["md5"]) == dep["md5"] for dep in stage.get("deps", []))


def _outs(stage: dict[str, Any]) -> dict[str, str]:
    return {out["path"]: out["md5"] for out in stage.get("outs", [])}


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested sections as dotted keys; numbers, lists and null as JSON writes them."""
    flat: dict[str, str] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{key}.")
        else:
            flat[key] = value if isinstance(value, str) else json.dumps(value)
    return flat


def changes(base: dict[str, str], params: dict[str, str]) -> list[str]:
    """`key: old → new` for every difference between two flat sets of parameters."""
    keys = [*params, *(key for key in base if key not in params)]
    return [
        f"{key}: {base.get(key, 'absent')} → {params.get(key, 'absent')}"
        for key in keys
        if base.get(key) != params.get(key)
    ]


def _metrics(text: str) -> dict[str, float]:
    flat = flatten(json.loads(text))
    return {
        key: round(float(value), METRIC_DIGITS) for key, value in flat.items() if value not in ("null", "{}")
    }


def _fold_names(tree: dict[str, Any]) -> list[str]:
    rounds = range(tree["pseudo"]["rounds"] + 1)
    return [f"r{number}-fold{fold}" for number in rounds for fold in tree["split"]["folds"]]


def _curve(text: str) -> list[dict[str, float]]:
    rows = csv.DictReader(io.StringIO(text))
    return [{name: float(value) for name, value in row.items() if value} for row in rows]
