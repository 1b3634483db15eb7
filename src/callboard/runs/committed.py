"""What any commit holds of parameters and key, remembered: a git process and the YAML parser are slow."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from callboard.history import params_at, text_at
from callboard.memory import Memory
from callboard.runs.locks import locked

VERSION = "1"
"""Of how a key and flat parameters follow from the files."""

FULL_HASH = re.compile(r"[0-9a-f]{40}")


def params_of(commit: str) -> dict[str, str]:
    """Flat parameters as of `commit`; empty where it is not known here."""
    params: dict[str, str] = _held(commit, Path.cwd())["params"]
    return params


def key_of(commit: str) -> str | None:
    """Content key of the result that a commit holds; None where there is none, or no such commit."""
    key: str | None = _held(commit, Path.cwd())["key"]
    return key


@cache
def _held(commit: str, folder: Path) -> dict[str, Any]:
    memory = _memory(folder)
    if commit in memory:
        held: dict[str, Any] = memory[commit]
        return held
    if not commit:
        return {"params": {}, "key": None}
    held = {"params": params_at(commit), "key": locked(text_at(commit, "dvc.lock")).key or None}
    # a branch moves; an unknown commit may be fetched later
    if held["params"] and FULL_HASH.fullmatch(commit):
        memory[commit] = held
        memory.save()
    return held


@cache
def _memory(_folder: Path) -> Memory:
    """One for each folder that is asked from; it lies in that folder's main workspace."""
    return Memory("committed", VERSION)
