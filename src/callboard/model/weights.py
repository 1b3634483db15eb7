"""Weights on disk: trained networks with the params that rebuild them."""

import io
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from callboard.core.errors import UserError, one_line
from callboard.core.files import written_whole
from callboard.model.class_axis import ClassAxis, SpeciesModel
from callboard.model.detector import SedModel, build_model
from callboard.params.base import Params, validate
from callboard.params.model import ModelParams
from callboard.params.training import AVERAGED_BY, ClipParams

UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError)
"""What torch raises for a file that is cut short, damaged, or of another kind."""

CONTENT = {
    "params",
    "species",
    "classes",
    "class_species",
    "fold",
    "held_out",
    "state_dict",
    "ema_state_dict",
    "swa_state_dict",
}
"""What a file of weights holds; an average that was not asked for is None, or in older files not there."""

WEIGHTS = {"last": "state_dict", "ema": "ema_state_dict", "swa": "swa_state_dict"}
"""By predict.weights: where a file has them."""


class WeightsParams(Params):
    """The sections stored with weights: what rebuilds the network, and what it takes as input."""

    model: ModelParams
    clip: ClipParams


class LoadedModel(NamedTuple):
    """A trained network, in eval mode."""

    model: SedModel | SpeciesModel
    """Its class axis is the species, whatever the classes it was trained on."""
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
    axis: ClassAxis,
    fold: int,
    held_out: Iterable[str],
    averages: Mapping[str, SedModel] | None = None,
) -> None:
    """Write weights and what rebuilds the network; equal weights give equal bytes.

    Args:
        path: Of the new file.
        model: The trained network.
        params: What rebuilds it.
        axis: The class axis.
        fold: The fold that it has not seen.
        held_out: The recordings of that fold.
        averages: The same network with averages of its weights, by `predict.weights`.

    Raises:
        UserError: the file cannot be written.
    """
    content = {
        "params": params.model_dump(),
        "species": axis.species,
        "classes": axis.names,
        "class_species": axis.class_species.tolist(),
        "fold": fold,
        "held_out": sorted(held_out),
        **dict.fromkeys(WEIGHTS.values()),
        "state_dict": _on_cpu(model),
        **{WEIGHTS[name]: _on_cpu(average) for name, average in (averages or {}).items()},
    }
    write_state(path, content)


def _on_cpu(model: SedModel) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}


def read_weights(path: Path, device: torch.device) -> dict[str, Any]:
    """What the file of weights at `path` holds, see CONTENT; tensors on `device`.

    Raises:
        UserError: there is no such file, it is damaged, or it holds something else.
    """
    not_asked_for: dict[str, Any] = dict.fromkeys(WEIGHTS[name] for name in AVERAGED_BY)
    content = not_asked_for | _load(path, device)
    if content.keys() != CONTENT:
        raise _not_ours(path)
    return content


def load_model(path: Path, device: torch.device, weights: str = "last") -> LoadedModel:
    """The network saved at `path`, on `device`, in eval mode.

    Args:
        path: Of the file.
        device: Of the network.
        weights: Which of its weights, as `predict.weights` names them.

    Raises:
        UserError: there is no such file, it is damaged, holds something else, or lacks these weights.
    """
    content = read_weights(path, device)
    state_dict = content[WEIGHTS[weights]]
    if state_dict is None:
        raise UserError(
            f"{path}: no {weights} weights; take predict.weights=last, or train with "
            f"train.{AVERAGED_BY[weights]} above 0"
        )
    params = validate(WeightsParams, content["params"], path)
    model = build_model(params.model.blank, len(content["classes"]))
    try:
        model.load_state_dict(state_dict)
    except RuntimeError as error:
        raise UserError(f"{path}: weights do not fit the network they describe; train again") from error
    species, held_out = content["species"], frozenset(content["held_out"])
    speaking = model if content["classes"] == species else SpeciesModel(model, content["class_species"])
    return LoadedModel(speaking.to(device).eval(), species, content["fold"], params.clip, held_out)


def read_held_out(path: Path) -> tuple[int, frozenset[str]]:
    """The fold that a network has not seen, and the fold's recordings, without building the network.

    Files that lack newer parts of CONTENT are read too: an audit is of old results as well.

    Raises:
        UserError: there is no such file, it is damaged, or it holds something else.
    """
    content = _load(path, torch.device("cpu"), mmap=True)
    if not {"fold", "held_out"} <= content.keys():
        raise _not_ours(path)
    return int(content["fold"]), frozenset(content["held_out"])


def _load(path: Path, device: torch.device, *, mmap: bool = False) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run train first") from None
    except UNREADABLE as error:
        raise UserError(f"{path}: not readable as weights ({one_line(error)}); train again") from error
    if not isinstance(content, dict):
        raise _not_ours(path)
    return content


def _not_ours(path: Path) -> UserError:
    return UserError(f"{path}: not weights of this project; train again")


def write_state(path: Path, content: dict[str, Any], writer: str = "") -> None:
    """Save with torch: the whole file or nothing; equal content gives equal bytes.

    Args:
        path: Of the new file.
        content: What `torch.load(weights_only=True)` reads.
        writer: Tells the temporary names of concurrent writers apart.
    """
    buffer = io.BytesIO()  # torch would write the name of a file into it, and the temporary name changes
    torch.save(content, buffer)
    with written_whole(path, writer) as unfinished:
        unfinished.write_bytes(buffer.getbuffer())
