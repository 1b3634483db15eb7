"""Checkpoints of unfinished training runs."""

import hashlib
import io
import json
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from callboard.core.console import warn
from callboard.core.errors import UnreadableFileError, one_line
from callboard.core.files import written_whole
from callboard.core.reading import reading
from callboard.core.sealed import seal, unseal
from callboard.core.workspace import CHECKPOINTS, main_workspace
from callboard.model.weights import state_bytes
from callboard.params.base import Params

ABANDONED_AFTER_S = 30 * 24 * 3600
"""Age at which the checkpoint of a run that nobody resumed is removed."""

FINISHED_AFTER_S = 24 * 3600
"""Age at which the progress file of a training run without a checkpoint is removed."""


class Checkpoint:
    """State of one unfinished training run, replaced after every epoch and removed at the end.

    Experiments that run in parallel and train the same network share one: each writes whole states, from
    which the other can resume, and either may remove it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint by `state`, whole or not at all, even if the process is killed.

        Raises:
            UserError: the file cannot be written.
        """
        if not self.path.exists():
            _remove_abandoned(self.path.parent)
        with written_whole(self.path, writer=secrets.token_hex(4)) as unfinished:
            unfinished.write_bytes(seal(state_bytes(state), self.path.name))

    def read(self) -> dict[str, Any] | None:
        """Return the state last written, or None without a checkpoint.

        Report and ignore a file that is damaged or of a different training: the name says which one it is of,
        and the seal that it was written under this name.
        """
        try:
            with reading(self.path):
                content = unseal(self.path.read_bytes(), self.path.name)
                state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except UnreadableFileError as error:
            if not error.is_missing:
                why = one_line(error.__cause__ or error)
                warn(f"{self.path}: checkpoint ignored, training starts at the first epoch: {why}")
            return None
        return state

    def remove(self) -> None:
        """Delete the checkpoint, if it still exists."""
        self.path.unlink(missing_ok=True)


def checkpoint_for(params: Params, inputs: Iterable[Path | str], fold: int | str) -> Checkpoint:
    """Return the checkpoint for training `fold` with `params` on these inputs, in the main workspace.

    Two training runs that differ in any of these never share one. Start weights need no separate digest:
    `train.init_from` contains their content key.

    Args:
        params: All parameters that training depends on.
        inputs: Tables as files and the code fingerprint as text, in a fixed order.
        fold: Number of the fold, or another name of the part that is held out.
    """
    digest = hashlib.sha256(json.dumps(params.model_dump(), sort_keys=True).encode())
    for each in inputs:
        content = each.read_bytes() if isinstance(each, Path) else each.encode()
        digest.update(hashlib.sha256(content).digest())
    name = f"{digest.hexdigest()[:32]}-fold{fold}.pt"
    return Checkpoint(main_workspace() / CHECKPOINTS / name)


def _remove_abandoned(folder: Path) -> None:
    """Remove old files: checkpoints, partially written ones of killed runs, and progress files."""
    now = time.time()
    for path in folder.glob("*-fold*"):
        is_progress_alone = path.suffix == ".json" and not path.with_suffix(".pt").exists()
        limit_s = FINISHED_AFTER_S if is_progress_alone else ABANDONED_AFTER_S
        try:
            if now - path.stat().st_mtime > limit_s:
                path.unlink()
        except FileNotFoundError:  # another run was faster
            continue
