"""What the dvc.lock of a commit says of its result, remembered: the YAML parser is slow."""

from typing import NamedTuple

import yaml

from callboard.errors import UserError
from callboard.memory import Memory
from callboard.results import SUBMISSION, all_outs, content_key, parse_lock
from callboard.runs.commits import CommittedFiles

VERSION = "1"
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
        self._memory = Memory("locks", VERSION)

    def at(self, commit: str) -> Locked:
        """What the commit holds; `NOTHING` where it has no dvc.lock."""
        if not (blob := self._files.blob(commit, "dvc.lock")):
            return NOTHING
        if blob.sha not in self._memory:
            self._memory[blob.sha] = locked(blob.text)
        return Locked(*self._memory[blob.sha])

    def save(self) -> None:
        """Write what is new to disk."""
        self._memory.save()


def locked(text: str) -> Locked:
    """What a dvc.lock says."""
    try:
        lock = parse_lock(text, "dvc.lock")
        outs = all_outs(lock)
        return Locked(content_key(lock), outs.get(SUBMISSION, ""), outs.get(DATA, ""))
    except UserError:
        return NOTHING
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        return Locked(is_broken=True)
