"""dvc.lock: what its stages wrote, and the content key of the result that it tells of."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import yaml

from callboard.core.errors import UserError

RESULT_STAGES = ("evaluate", "infer", "score")
"""What these stages and their ancestors say in dvc.lock identifies a result."""

CHECK_FOLDER = ".check/"
"""What lies below decides whether a stage runs, not what it gives."""

Lock = dict[str, dict[str, Any]]
"""The `stages` of a dvc.lock."""


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
