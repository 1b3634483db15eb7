"""Weights on disk: trained networks with the params that rebuild them, and checkpoints of unfinished ones."""

import hashlib
import io
import json
import os
import pickle
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from callboard.errors import UserError
from callboard.model import SedModel, build_model
from callboard.outputs import written_whole
from callboard.params.base import Params, validate
from callboard.params.model import ModelParams
from callboard.params.training import ClipParams

UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError)
"""What torch raises for a file that is cut short, damaged, or of another kind."""


CONTENT = {"params", "species", "fold", "held_out", "state_dict"}
"""What a file of weights holds."""


class WeightsParams(Params):
    """The sections stored with weights: what rebuilds the network, and what it takes as input."""

    model: ModelParams
    clip: ClipParams


class LoadedModel(NamedTuple):
    """A trained network, in eval mode."""

    model: SedModel
    species: list[str]
    """The class axis."""
    fold: int
    """The fold that the network has not seen."""
    clip: ClipParams
    held_out: frozenset[str]
    """The recordings of that fold: whoever scores out of fold can prove it."""


def save_model(
    path: Path,
    model: SedModel,
    params: WeightsParams,
    species: list[str],
    fold: int,
    held_out: Iterable[str],
) -> None:
    """Write weights and what rebuilds the network; equal weights give equal bytes.

    Args:
        path: Of the new file.
        model: The trained network.
        params: What rebuilds it.
        species: The class axis.
        fold: The fold that it has not seen.
        held_out: The recordings of that fold.

    Raises:
        UserError: the file cannot be written.
    """
    state_dict = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    content = {"params": params.model_dump(), "species": species, "fold": fold, "held_out": sorted(held_out)}
    content["state_dict"] = state_dict
    _write(path, content)


def load_model(path: Path, device: torch.device) -> LoadedModel:
    """The network saved at `path`, on `device`, in eval mode.

    Raises:
        UserError: there is no such file, it is damaged, or it holds something else.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run train first") from None
    except UNREADABLE as error:
        raise UserError(f"{path}: not readable as weights ({_first_line(error)}); train again") from error
    if not isinstance(content, dict) or content.keys() != CONTENT:
        raise UserError(f"{path}: not weights of this project; train again")
    params = validate(WeightsParams, content["params"], path)
    model = build_model(params.model.model_copy(update={"pretrained": False}), len(content["species"]))
    try:
        model.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise UserError(f"{path}: weights do not fit the network they describe; train again") from error
    held_out = frozenset(content["held_out"])
    return LoadedModel(model.to(device).eval(), content["species"], content["fold"], params.clip, held_out)


class Checkpoint:
    """The state of one unfinished training, replaced after every epoch and removed at its end."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint by `state`: all of it or nothing, also when the process is killed.

        Raises:
            UserError: the file cannot be written.
        """
        _write(self.path, state)

    def read(self) -> dict[str, Any] | None:
        """The state last written; None if there is none. A damaged file is reported and ignored."""
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except UNREADABLE as error:
            reason = _first_line(error)
            print(f"warning: {self.path}: damaged checkpoint ignored ({reason})", file=sys.stderr, flush=True)
            return None
        return state

    def remove(self) -> None:
        """Delete the checkpoint, and its folder once no other fold has one there."""
        self.path.unlink(missing_ok=True)
        folder = self.path.parent
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def checkpoint_for(params: Params, inputs: Iterable[Path], fold: int) -> Checkpoint:
    """The checkpoint of training `fold` by `params` on the content of `inputs` with the code now loaded.

    Two trainings that differ in any of these never share one. It lies in the workspace, below `.cache`.
    """
    workspace = Path(os.environ.get("DVC_ROOT", "."))
    key = _training_key(params, inputs)
    return Checkpoint(workspace / ".cache" / "checkpoints" / key / f"fold{fold}.pt")


def _training_key(params: Params, inputs: Iterable[Path]) -> str:
    digest = hashlib.sha256(json.dumps(params.model_dump(), sort_keys=True).encode())
    for path in [*inputs, *_loaded_sources()]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]


def _loaded_sources() -> list[Path]:
    """Source files of this project's modules that have been imported."""
    ours = (module for name, module in sys.modules.items() if name.split(".")[0] in ("callboard", "stages"))
    return sorted({Path(module.__file__) for module in ours if module.__file__})


def _write(path: Path, content: dict[str, Any]) -> None:
    buffer = io.BytesIO()  # torch would write the name of a file into it, and the temporary name changes
    torch.save(content, buffer)
    try:
        with written_whole(path) as unfinished:
            unfinished.write_bytes(buffer.getbuffer())
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
