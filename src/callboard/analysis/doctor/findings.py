"""The state that `callboard doctor` examines, and a finding about it."""

import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from callboard.results.dvc_lock import Lock, parse_lock
from callboard.results.git import CommittedFiles, git
from callboard.results.git_errors import GitError
from callboard.results.mlflow.connection import TrackingError, local_database, tracking_uri
from callboard.results.refs import results_in_git
from callboard.results.result import ResultRef
from callboard.results.stored_runs import StoredRun, known_runs

SYNC = "`callboard sync`"

OBJECT_FILE = re.compile(r"(?:[\w./-]*/)?objects/[0-9a-f]{2}/[0-9a-f]{38,62}")
MISSING_OBJECT = re.compile(
    r"^(?:missing \w+|broken link from +\w+ \w+\n +to +\w+) ([0-9a-f]{40,64})", re.MULTILINE
)
"""Words of `git fsck` for the file of a damaged object, and for an object that is not there."""


@dataclass(frozen=True)
class Finding:
    """One problem, with its remedy."""

    what: str
    todo: str
    """Remedy, with commands in backticks; empty if nothing need be done."""
    loses_results: bool = False
    """Whether a result, a score or an interval is missing or will be."""

    def __str__(self) -> str:
        mark = "LOSS" if self.loses_results else "note"
        return f"{mark}  {self.what}" + (f"\n      → {self.todo}" if self.todo else "")


@dataclass
class State:
    """The main workspace with everything that contains results; what two checks need is read once."""

    folder: Path
    files: CommittedFiles
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    """Environment at the start: some variables are changed to talk to MLflow."""
    unreadable: list[str] = field(default_factory=list)
    """Messages about unreadable files in git."""
    _locks: dict[str, Lock] = field(default_factory=dict)

    @cached_property
    def results(self) -> dict[str, list[ResultRef]]:
        """Refs of each result in git, by content key, experiments first."""
        return results_in_git(self.files, self.folder, self.unreadable.append)

    @cached_property
    def runs(self) -> dict[str, StoredRun] | TrackingError:
        """Runs in MLflow, by content key; the error if MLflow cannot be reached."""
        if self.database and not self.database.exists():
            return TrackingError(f"{self.database} does not exist")
        try:
            return known_runs()
        except TrackingError as error:
            return error

    @cached_property
    def damaged_objects(self) -> list[str]:
        """Files, or else hashes, of git's objects that are damaged or missing."""
        try:
            git("fsck", "--no-dangling", "--no-reflogs", "--no-progress", folder=self.folder)
        except GitError as error:
            files = sorted(set(OBJECT_FILE.findall(error.said)))
            hashes = {"".join(Path(file).parts[-2:]) for file in files}
            return [*files, *sorted({*MISSING_OBJECT.findall(error.said)} - hashes)]
        return []

    def lock_of(self, ref: ResultRef) -> Lock:
        """Return the dvc.lock of a result in git."""
        if ref.key not in self._locks:
            blob = self.files.blob(ref.commit, "dvc.lock")
            self._locks[ref.key] = parse_lock(blob.text if blob else "", str(ref))
        return self._locks[ref.key]

    @property
    def database(self) -> Path | None:
        """File of the SQLite database; None for a server."""
        return local_database(tracking_uri())

    def known(self) -> dict[str, StoredRun]:
        """Return `runs`, or an empty dict if MLflow cannot be reached."""
        return self.runs if isinstance(self.runs, dict) else {}
