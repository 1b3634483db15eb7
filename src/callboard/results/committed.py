"""What commits hold of results, parameters and keys, cached: git and the YAML parser are slow."""

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from ruamel.yaml import YAML

from callboard.core.errors import UserError
from callboard.core.json_cache import JsonCache
from callboard.params.defaults import flatten, texts_with_defaults
from callboard.results.dvc_lock import all_outs, content_key, parse_lock
from callboard.results.git import CommittedFiles, text_at
from callboard.results.result import SOURCE, SUBMISSION

LOCKS_VERSION = "1"
"""Raised when `dvc_lock.content_key` tells results apart in another way."""


class LockFacts(NamedTuple):
    """The result that a dvc.lock tells of."""

    key: str = ""
    """Content key; empty where the last stages are missing, as in a run that has not finished."""
    submission_md5: str = ""
    data_md5: str = ""
    is_broken: bool = False
    """Whether it cannot be read at all."""


NOTHING = LockFacts()


class Locks:
    """The dvc.lock of any commit; `save` keeps what was worked out."""

    def __init__(self, files: CommittedFiles) -> None:
        """Read through a running git process."""
        self._files = files
        self._memory = JsonCache("locks", LOCKS_VERSION)

    def at(self, commit: str) -> LockFacts:
        """What the commit holds; `NOTHING` where it has no dvc.lock."""
        if not (blob := self._files.blob(commit, "dvc.lock")):
            return NOTHING
        if blob.sha not in self._memory:
            self._memory[blob.sha] = lock_content(blob.text)
        return LockFacts(*self._memory[blob.sha])

    def save(self) -> None:
        """Write what is new to disk."""
        self._memory.save()


def lock_content(text: str) -> LockFacts:
    """What a dvc.lock says."""
    try:
        lock = parse_lock(text, "dvc.lock")
        outs = all_outs(lock)
        return LockFacts(content_key(lock), outs.get(SUBMISSION, ""), outs.get(SOURCE, ""))
    except UserError:
        return NOTHING
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        return LockFacts(is_broken=True)


COMMITTED_VERSION = "1"
"""Of how a key and flat parameters follow from the files."""

FULL_HASH = re.compile(r"[0-9a-f]{40}")


def params_at(revision: str) -> dict[str, str]:
    """Flat parameters as committed at `revision`; empty where there are none."""
    text = text_at(revision, "params.yaml")
    return flatten(YAML(typ="safe", pure=True).load(text)) if text else {}


def params_of(commit: str) -> dict[str, str]:
    """Flat parameters as of `commit`, with defaults; empty where it is not known here."""
    return _completed(commit, Path.cwd())


def key_of(commit: str) -> str | None:
    """Content key of the result that a commit holds; None where there is none, or no such commit."""
    key: str | None = _held(commit, Path.cwd())["key"]
    return key


@cache
def _completed(commit: str, folder: Path) -> dict[str, str]:
    """Completed once: many rows of a board started from the same commit."""
    return texts_with_defaults(_held(commit, folder)["params"])


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
