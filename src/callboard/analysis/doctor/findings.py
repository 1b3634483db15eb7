"""The state that `callboard doctor` examines, and a finding about it."""

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from callboard.results.commits import CommittedFiles
from callboard.results.mlflow.access import known_runs
from callboard.results.mlflow.connection import TrackingError, local_database, tracking_uri
from callboard.results.mlflow.record import KnownRun
from callboard.results.mlflow.sync import InGit, results_in_git
from callboard.results.result import Lock, parse_lock

SYNC = "callboard sync"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    what: str
    todo: str
    """Remedy; empty where nothing need be done."""
    loses_results: bool = False
    """Whether a result, a score or an interval is missing or will be."""

    def __str__(self) -> str:
        mark = "LOSS" if self.loses_results else "note"
        return f"{mark}  {self.what}" + (f"\n      → {self.todo}" if self.todo else "")


@dataclass
class State:
    """The main workspace with everything that holds results; what two checks need is read once."""

    folder: Path
    files: CommittedFiles
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    """Environment at the start: some variables are changed to talk to MLflow."""
    unreadable: list[str] = field(default_factory=list)
    """Messages about unreadable files in git."""
    _locks: dict[str, Lock] = field(default_factory=dict)

    @cached_property
    def results(self) -> dict[str, InGit]:
        """Results that git has under a name, by content key."""
        return results_in_git(self.files, self.folder, self.unreadable.append)

    @cached_property
    def runs(self) -> dict[str, KnownRun] | str:
        """Runs in MLflow, by content key; a one-line reason where MLflow cannot be reached."""
        try:
            return known_runs()
        except TrackingError as error:
            return str(error)

    def lock_of(self, result: InGit) -> Lock:
        """The dvc.lock of the first of its commits."""
        if result.key not in self._locks:
            named = result.holders[0]
            blob = self.files.blob(named.commit, "dvc.lock")
            self._locks[result.key] = parse_lock(blob.text if blob else "", str(named))
        return self._locks[result.key]

    @property
    def database(self) -> Path | None:
        """File of the SQLite database; None for a server."""
        return local_database(tracking_uri())

    def known(self) -> dict[str, KnownRun]:
        """Return `runs`, or none where MLflow cannot be reached."""
        return self.runs if isinstance(self.runs, dict) else {}


def first_few(names: list[str], most: int = 5) -> str:
    """List names with commas; of many only the first few."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
