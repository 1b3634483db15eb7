"""dvc.lock: the outputs of its stages, and the content key of the result that it describes."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import yaml

from callboard.core.errors import UserError
from callboard.core.reading import reading

RESULT_STAGES = ("evaluate", "infer", "score")
"""Stages whose entries in dvc.lock, with those of their ancestors, identify a result."""

CHECK_FOLDER = ".check/"
"""Folder of files that decide whether a stage runs, not what it writes."""

Lock = dict[str, dict[str, Any]]
"""The `stages` of a dvc.lock."""


def parse_lock(text: str, where: str) -> Lock:
    """Return the stages of a dvc.lock; errors refer to it as `where`.

    Raises:
        UnreadableFileError: it is not a dvc.lock.
        UserError: a stage that every result has is missing.
    """
    lock = stages_in(text, where)
    if missing := [stage for stage in ("prepare", *RESULT_STAGES) if stage not in lock]:
        raise UserError(f"{where}: no stage {missing[0]}; run `dvc repro`")
    return lock


def stages_in(text: str, where: str) -> Lock:
    """Return the stages that a dvc.lock has, maybe not all; none of an empty text.

    Raises:
        UnreadableFileError: it is not a dvc.lock.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ruamel takes 20 times as long here
    with reading(where, "a dvc.lock", damaged="`git checkout dvc.lock` restores it"):
        lock: Lock = (yaml.load(text, Loader=loader) or {}).get("stages", {})
        json.dumps(lock, sort_keys=True)  # `content_key` needs it; fails for dates and cycles
        for name, stage in lock.items():
            for entry in (*stage.get("deps", []), *stage.get("outs", [])):
                if not (isinstance(entry["path"], str) and isinstance(entry["md5"], str)):
                    raise ValueError(f"stage {name}: path and md5 must be text")
            if not isinstance(stage.get("params", {}).get("params.yaml", {}), dict):
                raise ValueError(f"stage {name}: params.yaml must be a mapping")
    return lock


def all_outs(lock: Lock) -> dict[str, str]:
    """Map the path of every output of the stages to its md5."""
    return {path: md5 for stage in lock.values() for path, md5 in _outs(stage).items()}


def content_key(lock: Lock) -> str:
    """Return 16 hex digits over parameters and outputs of evaluate, infer, score and their ancestors.

    Code (including its fingerprints below .check), commands and library versions are left out: where they
    matter an output differs, and where no output differs the result is the same. Stages that a matrix no
    longer has stay in dvc.lock, but they are not ancestors.
    """
    content = {
        name: {"params": lock[name].get("params"), "outs": _outs(lock[name])} for name in _ancestors(lock)
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


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
    """Yield stages that wrote `path`, a folder around it, or, if still current, something inside it."""
    for name, stage in lock.items():
        for out in _outs(stage):
            is_inside = out.startswith(f"{path}/")
            if out == path or path.startswith(f"{out}/") or (is_inside and _is_current(lock, stage)):
                yield name


def _is_current(lock: Lock, stage: dict[str, Any]) -> bool:
    """Return whether the stage read what the stages before it last wrote."""
    made = all_outs(lock)
    return all(made.get(dep["path"], dep["md5"]) == dep["md5"] for dep in stage.get("deps", []))


def _outs(stage: dict[str, Any]) -> dict[str, str]:
    return {out["path"]: out["md5"] for out in stage.get("outs", [])}
