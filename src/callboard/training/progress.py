"""How far a training is, in a small file beside its checkpoint that `callboard watch` reads.

Reading and writing need neither torch nor pandas, whose imports are slow.
"""

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from callboard.core.files import written_whole

STALE_AFTER_S = 3600
"""Age at which a training on another host counts as killed, since its process cannot be looked up."""


@dataclass(frozen=True)
class Progress:
    """The content of a progress file."""

    experiment: str
    """DVC's name for it; empty under `dvc repro`."""
    name: str
    """Round and fold, as r0-fold1, or the network, as r0/folds0-2."""
    n_epochs: int
    """Epochs in all."""
    curve: list[dict[str, float | None]]
    """The learning curve so far, as in plots/train."""
    seconds_per_epoch: float | None
    """Of the epochs that this process has trained; None before the first."""
    pid: int
    host: str
    started: float
    """When this process began or went on, Unix time in s."""
    updated: float
    """When the last epoch ended, Unix time in s."""

    @property
    def is_finished(self) -> bool:
        """Whether no epoch is left."""
        return len(self.curve) >= self.n_epochs

    def is_running(self) -> bool:
        """Whether the process that wrote this is still at work."""
        if self.is_finished:
            return False
        if self.host != socket.gethostname():
            return time.time() - self.updated < STALE_AFTER_S
        try:
            process = psutil.Process(self.pid)
            # a process that began later was given the number of one that has ended
            return bool(process.create_time() <= self.updated and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False

    def left_s(self) -> float | None:
        """Seconds to the last epoch, at the pace so far."""
        if self.seconds_per_epoch is None:
            return None
        left = self.seconds_per_epoch * (self.n_epochs - len(self.curve)) - (time.time() - self.updated)
        return max(left, 0.0)


class ProgressWriter:
    """Keeps the progress file of one training up to date."""

    def __init__(self, checkpoint: Path, name: str, n_epochs: int) -> None:
        """Write nothing yet.

        Args:
            checkpoint: Path of the checkpoint.
            name: Of the training, as shown.
            n_epochs: In all.
        """
        self._path = progress_path(checkpoint)
        self._name, self._n_epochs = name, n_epochs
        self._n_before: int | None = None
        self._started = 0.0

    def write(self, curve: Sequence[Mapping[str, float | None]]) -> None:
        """Replace the file; to be called before the first epoch of this process and after every epoch.

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
    """Where the progress of a training is, by its checkpoint."""
    return checkpoint.with_suffix(".json")


def read_progress(folder: Path) -> dict[Path, Progress]:
    """The progress of every training with a checkpoint in `folder`, by the path of the checkpoint.

    Files that are gone by now, or of another version, are left out.
    """
    found = {}
    for path in folder.glob("*-fold*.json"):
        try:
            found[path.with_suffix(".pt")] = Progress(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue
    return found
