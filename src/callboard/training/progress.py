"""Progress of a training run, in a small file next to its checkpoint that `callboard watch` reads.

Reading and writing need neither torch nor pandas, which are slow to import.
"""

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from callboard.core.errors import UnreadableFileError
from callboard.core.files import written_whole
from callboard.core.reading import reading

STALE_AFTER_S = 3600
"""Age at which a training run on a different host counts as killed, since its process cannot be checked."""


@dataclass(frozen=True)
class Progress:
    """Content of a progress file."""

    experiment: str
    """DVC's name of the experiment; empty under `dvc repro`."""
    name: str
    """Round and fold, such as r0-fold1, or the network, such as r0/folds0-2."""
    n_epochs: int
    """Total number of epochs."""
    curve: list[dict[str, float | None]]
    """The learning curve so far, as in plots/train."""
    seconds_per_epoch: float | None
    """Mean over the epochs that this process has trained; None before the first."""
    pid: int
    host: str
    started: float
    """When this process started or resumed, Unix time in s."""
    updated: float
    """When the file was written, at the start and after each epoch, Unix time in s."""

    @property
    def is_finished(self) -> bool:
        """Whether no epoch is left."""
        return len(self.curve) >= self.n_epochs

    def is_running(self) -> bool:
        """Return whether the process that wrote this is still running."""
        if self.is_finished:
            return False
        if self.host != socket.gethostname():
            return time.time() - self.updated < STALE_AFTER_S
        try:
            process = psutil.Process(self.pid)
            # a process created later has reused the number of one that has ended
            return bool(process.create_time() <= self.updated and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False

    def left_s(self) -> float | None:
        """Return the seconds until training ends, at the pace so far; None before the first epoch."""
        if self.seconds_per_epoch is None:
            return None
        left = self.seconds_per_epoch * (self.n_epochs - len(self.curve)) - (time.time() - self.updated)
        return max(left, 0.0)


class ProgressWriter:
    """Writer of the progress file of one training run."""

    def __init__(self, checkpoint: Path, name: str, n_epochs: int) -> None:
        """Prepare the writer, without writing.

        Args:
            checkpoint: Path of the checkpoint.
            name: Name of the training run, as shown.
            n_epochs: Total number of epochs.
        """
        self._path = progress_path(checkpoint)
        self._name, self._n_epochs = name, n_epochs
        self._n_before: int | None = None
        self._started = 0.0

    def write(self, curve: Sequence[Mapping[str, float | None]]) -> None:
        """Replace the file; call this before the first epoch of this process and after every epoch.

        Raises:
            UserError: the file cannot be written.
        """
        now = time.time()
        if self._n_before is None:
            self._n_before, self._started = len(curve), now
        n_trained = len(curve) - self._n_before
        progress = Progress(
            experiment=os.environ.get("DVC_EXP_NAME", ""),
            name=self._name,
            n_epochs=self._n_epochs,
            curve=[dict(row) for row in curve],
            seconds_per_epoch=(now - self._started) / n_trained if n_trained else None,
            pid=os.getpid(),
            host=socket.gethostname(),
            started=self._started,
            updated=now,
        )
        with written_whole(self._path, writer=str(os.getpid())) as unfinished:
            unfinished.write_text(json.dumps(asdict(progress)), encoding="utf-8")


def progress_path(checkpoint: Path) -> Path:
    """Return the path of the progress file that belongs to a checkpoint."""
    return checkpoint.with_suffix(".json")


def read_progress(folder: Path) -> dict[Path, Progress]:
    """Read the progress of every training run with a checkpoint in `folder`, by the path of the checkpoint.

    Files that have disappeared, or that a different version wrote, are left out.
    """
    found = {}
    for path in folder.glob("*-fold*.json"):
        with suppress(UnreadableFileError), reading(path):
            found[path.with_suffix(".pt")] = _checked(
                Progress(**json.loads(path.read_text(encoding="utf-8")))
            )
    return found


def _checked(progress: Progress) -> Progress:
    """Return what was read if every field is of its type.

    Raises:
        TypeError: one is not.
    """
    texts = (progress.experiment, progress.name, progress.host)
    numbers = (progress.n_epochs, progress.pid, progress.started, progress.updated)
    rows = [value for row in progress.curve for value in (row["loss"], row["val_lwlrap"])]
    optional = [value for value in (*rows, progress.seconds_per_epoch) if value is not None]
    if not (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(number, int | float) for number in (*numbers, *optional))
    ):
        raise TypeError("a field is of a different type")
    return progress
