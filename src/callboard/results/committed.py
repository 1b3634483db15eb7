"""Results, parameters and content keys of commits, cached because git and the YAML parser are slow."""

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from callboard.core.errors import UnreadableFileError, UserError
from callboard.core.json_cache import JsonCache, shared_cache
from callboard.params.base import parse_tree
from callboard.params.defaults import flatten, texts_with_defaults
from callboard.results.dvc_lock import all_outs, content_key, parse_lock
from callboard.results.git import CommittedFiles, text_at
from callboard.results.result import SOURCE, SUBMISSION


class LockFacts(NamedTuple):
    """Facts about the result that a dvc.lock describes."""

    key: str = ""
    """Content key; empty if the last stages are missing, as in a run that has not finished."""
    submission_md5: str = ""
    data_md5: str = ""
    is_broken: bool = False
    """Whether the file cannot be parsed."""


NOTHING = LockFacts()


class Locks:
    """Facts about the dvc.lock of any commit, cached in memory until `save`."""

    def __init__(self, files: CommittedFiles) -> None:
        """Use a running git process, and the facts on disk."""
        self._files = files
        self._memory = JsonCache("locks", __name__)

    def at(self, commit: str) -> LockFacts:
        """Return the facts about a commit's dvc.lock; `NOTHING` if it has none."""
        if not (blob := self._files.blob(commit, "dvc.lock")):
            return NOTHING
        if blob.sha not in self._memory:
            self._memory[blob.sha] = lock_content(blob.text)
        return LockFacts(*self._memory[blob.sha])

    def save(self) -> None:
        """Write new facts to disk."""
        self._memory.save()


def lock_content(text: str) -> LockFacts:
    """Return the facts about a dvc.lock; `NOTHING` if it lacks a stage of every result."""
    try:
        lock = parse_lock(text, "dvc.lock")
        outs = all_outs(lock)
        return LockFacts(content_key(lock), outs.get(SUBMISSION, ""), outs.get(SOURCE, ""))
    except UnreadableFileError:
        return LockFacts(is_broken=True)
    except UserError:
        return NOTHING


FULL_HASH = re.compile(r"[0-9a-f]{40}")


def params_at(revision: str) -> dict[str, str]:
    """Return flat parameters as committed at `revision`; empty without a params.yaml that can be read.

    A commit cannot be corrected, so its damaged file must not stand in the way of other results.
    """
    text = text_at(revision, "params.yaml")
    try:
        return flatten(parse_tree(text or "{}", f"{revision}: params.yaml"))
    except UserError:
        return {}


def params_of(commit: str) -> dict[str, str]:
    """Return flat parameters as of `commit`, with defaults; empty if the commit is not in this clone."""
    return _completed(commit, Path.cwd())


def key_of(commit: str) -> str | None:
    """Return the content key of the result in a commit; None without a result or without that commit."""
    key: str | None = _held(commit, Path.cwd())["key"]
    return key


@cache
def _completed(commit: str, folder: Path) -> dict[str, str]:
    """Complete the parameters of a commit once, since many rows of a board started from the same one."""
    return texts_with_defaults(_held(commit, folder)["params"])


@cache
def _held(commit: str, folder: Path) -> dict[str, Any]:
    memory = shared_cache("committed", __name__)
    if commit in memory:
        held: dict[str, Any] = memory[commit]
        return held
    if not commit:
        return {"params": {}, "key": None}
    held = {"params": params_at(commit), "key": lock_content(text_at(commit, "dvc.lock")).key or None}
    # a branch moves; an unknown commit may be fetched later
    if held["params"] and FULL_HASH.fullmatch(commit):
        memory[commit] = held
    return held
