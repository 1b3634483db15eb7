"""What a finished pipeline leaves behind: content key, parameters, metrics, curves and leaderboard scores."""

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from callboard.errors import UserError
from callboard.params.base import read_tree

RESULT_STAGES = ("evaluate", "infer", "score")
"""What these stages and their ancestors say in dvc.lock identifies a result."""

CHECKS = ".check/"
"""What lies below decides whether a stage runs, not what it gives."""

SUBMISSION = "submission/submission.csv"
OUT_OF_FOLD = "scores/oof.csv"
CLIPS = "data/clips.csv"

N_DIGITS = 5
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
    """`lb.public`, `lb.private`, as far as known."""
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


def read_result(workspace: Path) -> Result:
    """The result that `workspace` holds after its last stage before track.

    Raises:
        UserError: dvc.lock, metrics, a curve or leaderboard.csv is missing, dvc.lock lacks a stage, or
            leaderboard.csv has a bad row.
    """
    lock_path = workspace / "dvc.lock"
    if not lock_path.is_file():
        raise UserError(f"{lock_path}: not found; `dvc repro` writes it")
    lock = parse_lock(lock_path.read_text(encoding="utf-8"), str(lock_path))
    tree = read_tree(workspace / "params.yaml")
    outs = all_outs(lock)
    return Result(
        key=content_key(lock),
        outs=outs,
        data_source=tree["data"]["source"],
        params=flatten(tree),
        cv=_read_metrics(workspace / "metrics/cv.json"),
        lb=_read_metrics(workspace / "metrics/lb.json")
        | read_ledger(workspace / "leaderboard.csv").get(outs[SUBMISSION], {}),
        curves={name: _read_curve(workspace / f"plots/train/{name}.csv") for name in _fold_names(tree)},
    )


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
            inputs = [dep["path"] for dep in lock[name].get("deps", []) if not dep["path"].startswith(CHECKS)]
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


def _read_metrics(path: Path) -> dict[str, float]:
    if not path.is_file():
        raise UserError(f"{path}: not found; `dvc repro` writes it, `dvc checkout` restores it")
    flat = flatten(json.loads(path.read_text(encoding="utf-8")))
    return {key: round(float(text), N_DIGITS) for key, text in flat.items() if text not in ("null", "{}")}


def _fold_names(tree: dict[str, Any]) -> list[str]:
    rounds = range(tree["pseudo"]["final"] + 1)
    return [f"r{number}-fold{fold}" for number in rounds for fold in tree["split"]["folds"]]


def _read_curve(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        raise UserError(f"{path}: not found; `dvc repro` writes it, `dvc checkout` restores it")
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(file)]


def read_ledger(path: Path) -> dict[str, dict[str, float]]:
    """Scores that people or a leaderboard reported, by the submission's md5; the last word on each counts.

    Raises:
        UserError: no such file, a row without md5, or a score that is no number.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found; restore it with `git checkout {path.name}`")
    scores: dict[str, dict[str, float]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            if not (md5 := row.get("submission_md5")):
                raise UserError(f"{path.name} row {number}: submission_md5 is empty")
            for column in ("public", "private"):
                if text := row.get(column):
                    scores.setdefault(md5, {})[f"lb.{column}"] = _score(
                        text, f"{path.name} row {number}: {column}"
                    )
    return scores


def _score(text: str, where: str) -> float:
    try:
        return round(float(text), N_DIGITS)
    except ValueError:
        raise UserError(f"{where} {text!r} is not a number") from None
