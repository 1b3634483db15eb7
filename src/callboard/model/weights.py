"""Weights files: trained networks with the parameters that rebuild them."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.core.reading import reading
from callboard.model.class_axis import ClassAxis, SpeciesModel
from callboard.model.detector import SedModel, build_model
from callboard.params.base import Params, validate
from callboard.params.model import ModelParams
from callboard.params.training import AVERAGED_BY, ClipParams

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
"""Keys of a weights file; an average that was not requested is None, or absent in older files."""

WEIGHTS = {"last": "state_dict", "ema": "ema_state_dict", "swa": "swa_state_dict"}
"""Key in a weights file for each value of predict.weights."""


class WeightsParams(Params):
    """The sections stored with weights: those that define the network and its input."""

    model: ModelParams
    clip: ClipParams


class LoadedModel(NamedTuple):
    """A trained network, in eval mode."""

    model: SedModel | SpeciesModel
    """The network; its class axis is the species, even if it was trained on song types."""
    species: list[str]
    """The class axis."""
    fold: int
    """The fold that the network has not seen."""
    clip: ClipParams
    held_out: frozenset[str]
    """The recordings of that fold, with which out-of-fold scoring is verified."""


def save_model(
    path: Path,
    model: SedModel,
    params: WeightsParams,
    axis: ClassAxis,
    fold: int,
    held_out: Iterable[str],
    averages: Mapping[str, SedModel] | None = None,
) -> None:
    """Write the weights and the parameters that rebuild the network; equal weights give equal bytes.

    Args:
        path: The new file.
        model: The trained network.
        params: The parameters that rebuild it.
        axis: The class axis.
        fold: The fold that the network has not seen.
        held_out: The recordings of that fold.
        averages: The network with averaged weights, by value of `predict.weights`.

    Raises:
        UserError: The file cannot be written.
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
    with written_whole(path) as unfinished:
        unfinished.write_bytes(state_bytes(content))


def _on_cpu(model: SedModel) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}


def read_weights(path: Path, device: torch.device) -> dict[str, Any]:
    """Read the weights file at `path`: the keys of CONTENT, with tensors on `device`.

    Raises:
        UserError: The file is missing, damaged, or not a weights file.
    """
    not_asked_for: dict[str, Any] = dict.fromkeys(WEIGHTS[name] for name in AVERAGED_BY)
    content = not_asked_for | _load(path, device)
    if content.keys() != CONTENT:
        raise _not_ours(path)
    return content


def load_model(path: Path, device: torch.device, weights: str = "last") -> LoadedModel:
    """Load the network saved at `path` onto `device`, in eval mode.

    Args:
        path: The weights file.
        device: Device of the network.
        weights: Which of its weights to load: a value of `predict.weights`.

    Raises:
        UserError: The file is missing, damaged, not a weights file, or lacks these weights.
    """
    content = read_weights(path, device)
    state_dict = content[WEIGHTS[weights]]
    if state_dict is None:
        raise UserError(
            f"{path}: no {weights} weights; set predict.weights=last, or train with "
            f"train.{AVERAGED_BY[weights]} above 0"
        )
    with reading(path, "a weights file of this project", damaged="train again"):
        params = validate(WeightsParams, content["params"], path)
        species, held_out = list(content["species"]), frozenset(content["held_out"])
        n_classes, fold = len(content["classes"]), int(content["fold"])
    try:
        model = build_model(params.model.blank, n_classes)
    except UserError as error:
        raise UserError(f"{path}: {error}; train again") from error
    with reading(path, "weights that fit the network they describe", damaged="train again"):
        model.load_state_dict(state_dict)
        speaking = model if content["classes"] == species else SpeciesModel(model, content["class_species"])
    return LoadedModel(speaking.to(device).eval(), species, fold, params.clip, held_out)


def read_held_out(path: Path) -> tuple[int, frozenset[str]]:
    """Read the fold that a network has not seen, and its recordings, without building the network.

    Also reads files that lack newer keys of CONTENT, so that old results can be audited.

    Raises:
        UserError: The file is missing, damaged, or not a weights file.
    """
    content = _load(path, torch.device("cpu"), mmap=True)
    if not {"fold", "held_out"} <= content.keys():
        raise _not_ours(path)
    with reading(path, "a weights file of this project", damaged="train again"):
        return int(content["fold"]), frozenset(content["held_out"])


def _load(path: Path, device: torch.device, *, mmap: bool = False) -> dict[str, Any]:
    with reading(path, "readable as weights", missing="run train first", damaged="train again"):
        content = torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    if not isinstance(content, dict):
        raise _not_ours(path)
    return content


def _not_ours(path: Path) -> UserError:
    return UserError(f"{path}: not a weights file of this project; train again")


def state_bytes(content: dict[str, Any]) -> bytes:
    """Return what torch saves for values that `torch.load(weights_only=True)` reads; equal for equal ones."""
    buffer = io.BytesIO()  # torch would store the temporary file's name, which varies, in the file
    torch.save(content, buffer)
    return buffer.getvalue()
