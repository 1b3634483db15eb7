"""The file of an exported detector: a zip of `manifest.json` and its networks as ONNX, uncompressed.

It depends on the detector alone, so equal ones are equal files. Nothing of it is unpacked.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, model_validator

from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.core.reading import reading
from callboard.params.base import Reference

SUFFIX = ".zip"

FORMAT = 1
"""Version of the file's form; raised whenever an older callboard would misunderstand a newer file."""

MANIFEST_NAME = "manifest.json"
PART_SECTIONS = ("audio", "features", "seed", "augment", "predict", "infer")
"""Sections of params.yaml that a part's scores depend on."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class NetworkEntry(_Entry):
    """A network of a part."""

    file: str
    """Its name in the zip."""
    fold: int
    """The fold that it has not seen."""
    clip: dict[str, Any]
    """Section of params.yaml that it was trained with."""


class PartEntry(_Entry):
    """A result that is not a blend."""

    result: Reference
    params: dict[str, Any]
    """PART_SECTIONS of params.yaml."""
    species: list[str]
    """Class axis of its networks."""
    networks: list[NetworkEntry]
    factors: list[NonNegativeFloat] | None
    """Factors of odds of each of the detector's species."""


class StackEntry(_Entry):
    """A `Stack` as lists of numbers."""

    weights: list[list[float]]
    bias: list[float]
    is_fitted: list[bool]


class Manifest(_Entry):
    """Everything of an exported detector except its networks."""

    format: int
    callboard: str
    """Version of this package that wrote the file."""
    result: Reference
    """The result that was exported."""
    date: str
    """Day on which the result was committed or recorded; empty if unknown."""
    cv: float | None
    """Its `cv.lwlrap`."""
    licences: list[str]
    """Sentences on what the weights come from."""
    species: list[str]
    parts: list[PartEntry]
    weights: list[NonNegativeFloat]
    """Weight of each part in the mean."""
    stack: StackEntry | None
    factors: list[NonNegativeFloat] | None
    """Factors of odds of each species."""
    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]]
    """By species, the lowest score that counts as a detection; can be empty."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        n_species, n_parts = len(self.species), len(self.parts)
        for part in self.parts:
            if sorted(part.species) != sorted(set(self.species)) or not part.networks:
                raise ValueError(f"part {part.result} has other species than the detector, or no network")
        rows = [self.factors, *(part.factors for part in self.parts)]
        if self.stack:
            rows += [*self.stack.weights, self.stack.bias]
            if len(self.stack.weights) != n_parts or len(self.stack.is_fitted) != n_species:
                raise ValueError("the stack must have weights for each part and species")
        if any(row is not None and len(row) != n_species for row in rows):
            raise ValueError(f"factors and stack must have {n_species} numbers, one for each species")
        if not n_species or not n_parts or len(self.weights) != n_parts or not any(self.weights):
            raise ValueError("there must be species, and a weight above 0 for one of the parts")
        if unknown := self.thresholds.keys() - set(self.species):
            raise ValueError(f"thresholds has unknown species: {', '.join(sorted(unknown))}")
        return self


class DetectorFile(NamedTuple):
    """The content of the file."""

    manifest: Manifest
    networks: dict[str, bytes]
    """ONNX by name in the zip."""


def is_detector_file(text: str) -> bool:
    """Return whether a name that the user typed is that of a file, not of a result."""
    return text.endswith(SUFFIX)


def write_detector_file(path: Path, content: DetectorFile) -> None:
    """Write the file whole or not at all.

    Raises:
        UserError: The file cannot be written.
    """
    manifest = json.dumps(content.manifest.model_dump(), indent=2) + "\n"
    entries: Mapping[str, bytes | str] = {MANIFEST_NAME: manifest, **content.networks}
    with written_whole(path) as unfinished, ZipFile(unfinished, "w", ZIP_STORED) as file:
        for name, entry in entries.items():
            file.writestr(ZipInfo(name), entry)  # its default date is the same for all


def read_detector_file(path: Path) -> DetectorFile:
    """Read the file.

    Raises:
        UserError: The file is missing or damaged, is not of `callboard export`, or a newer one wrote it.
    """
    advice = "`callboard export` writes it", "export it again"
    with (
        reading(path, "a detector of `callboard export`", missing=advice[0], damaged=advice[1]),
        ZipFile(path) as file,
    ):
        names = [_stored_name(entry) for entry in file.infolist()]
        if len(set(names)) < len(names):
            raise ValueError("a name is repeated")
        tree = json.loads(file.read(MANIFEST_NAME))
        _refuse_newer(tree["format"], tree["callboard"], path)
        manifest = Manifest.model_validate_json(json.dumps(tree))
        listed = {network.file for part in manifest.parts for network in part.networks}
        if set(names) != {MANIFEST_NAME, *listed}:
            raise ValueError(f"it must contain {MANIFEST_NAME} and the networks that this lists")
        return DetectorFile(manifest, {name: file.read(name) for name in sorted(listed)})


def _stored_name(entry: ZipInfo) -> str:
    """Return the name of an entry.

    Raises:
        ValueError: The entry is compressed, so that reading it could take any memory.
    """
    if entry.compress_type != ZIP_STORED or entry.file_size != entry.compress_size:
        raise ValueError(f"{entry.filename!r} is compressed")
    return entry.filename


def _refuse_newer(found: object, version: object, path: Path) -> None:
    if not isinstance(found, int) or found < 1:
        raise ValueError(f"format {found!r} is not a version")
    if found > FORMAT:
        raise UserError(
            f"{path}: callboard {version} wrote it in format {found}, and this version reads up to {FORMAT}; "
            "install a newer callboard"
        )
