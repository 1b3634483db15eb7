"""What commits hold of results, parameters and keys, cached: git and the YAML parser are slow."""

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from callboard.core.errors import UserError
from callboard.core.json_cache import JsonCache
from callboard.params.renamed import renamed_texts
from callboard.results.commits import CommittedFiles
from callboard.results.git import params_at, text_at
from callboard.results.result import SUBMISSION, all_outs, content_key, parse_lock

LOCKS_VERSION = "1"
"""Raised when `results.content_key` tells results apart in another way."""

DATA = "data/source"


class Locked(NamedTuple):
    """The result that a dvc.lock tells of."""

    key: str = ""
    """Content key; empty where the last stages are missing, as in a run that has not finished."""
    submission_md5: str = ""
    data_md5: str = ""
    is_broken: bool = False
    """Whether it cannot be read at all."""


NOTHING = Locked()


class Locks:
    """The dvc.lock of any commit; `save` keeps what was worked out."""

    def __init__(self, files: CommittedFiles) -> None:
        """Read through a running git process."""
        self._files = files
        self._memory = JsonCache("locks", LOCKS_VERSION)

    def at(self, commit: str) -> Locked:
        """What the commit holds; `NOTHING` where it has no dvc.lock."""
        if not (blob := self._files.blob(commit, "dvc.lock")):
            return NOTHING
        if blob.sha not in self._memory:
            self._memory[blob.sha] = lock_content(blob.text)
        return Locked(*self._memory[blob.sha])

    def save(self) -> None:
        """Write what is new to disk."""
        self._memory.save()


def lock_content(text: str) -> Locked:
    """What a dvc.lock says."""
    try:
        lock = parse_lock(text, "dvc.lock")
        outs = all_outs(lock)
        return Locked(content_key(lock), outs.get(SUBMISSION, ""), outs.get(DATA, ""))
    except UserError:
        return NOTHING
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        return Locked(is_broken=True)


COMMITTED_VERSION = "1"
"""Of how a key and flat parameters follow from the files."""

FULL_HASH = re.compile(r"[0-9a-f]{40}")


def params_of(commit: str) -> dict[str, str]:
    """Flat parameters as of `commit`; empty where it is not known here."""
    return renamed_texts(_held(commit, Path.cwd())["params"])


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
    held = {"params": params_at(commit), "key": lock_content(text_at(commit, "dvc.lock")).key or None}
    # a branch moves; an unknown commit may be fetched later
    if held["params"] and FULL_HASH.fullmatch(commit):
        memory[commit] = held
        memory.save()
    return held


@cache
def _memory(_folder: Path) -> JsonCache:
    """One for each folder that is asked from; it lies in that folder's main workspace."""
    return JsonCache("committed", COMMITTED_VERSION)
