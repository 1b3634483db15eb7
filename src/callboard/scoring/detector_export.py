"""Export of a result's detector: its networks as ONNX, compared with those that torch runs."""

from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from scipy.special import expit

from callboard.core.errors import UserError
from callboard.core.pinned_weights import WEIGHTS_PACKAGES
from callboard.features.embeddings import LICENCE
from callboard.features.front_ends import frames_of
from callboard.features.normalisation import normalise, to_unit
from callboard.model.onnx_export import onnx_network
from callboard.model.weights import LoadedModel
from callboard.results.result import Result
from callboard.scoring.detections import read_thresholds
from callboard.scoring.detector import Networks
from callboard.scoring.detector_file import (
    FORMAT,
    PART_SECTIONS,
    DetectorFile,
    Manifest,
    NetworkEntry,
    PartEntry,
    StackEntry,
)
from callboard.scoring.onnx_networks import DEFAULT_ENGINE, OnnxSession
from callboard.scoring.result_detector import load_detector, parts_of
from callboard.scoring.stacking import Stack

CPU = torch.device("cpu")

TOLERANCE = 1e-4
"""Largest difference of a probability between torch in float32 and ONNX."""

CHECKED_WINDOWS = (3, 16)
"""Windows in the batches by which they are compared, so that no size is a constant of the network."""

OWN = "trained here from random weights"
EMBEDDED = f"{LICENCE}; it is not in this file, and predicting needs the packages of callboard[birdnet]"


def export_detector(result: Result, thresholds: Path | None = None) -> DetectorFile:
    """Return the content of the file of a finished result's detector.

    Args:
        result: The result.
        thresholds: Table of species and thresholds to keep, as `callboard detections` reads it.

    Raises:
        UserError: The table of thresholds is wrong; a file of the result is not in DVC's cache; it uses
            test-time augmentation; ONNX lacks an operation of a network; or its scores differ from torch's.
    """
    detector = load_detector(result, CPU)
    results = parts_of(result)
    networks: dict[str, bytes] = {}
    parts = [
        _export_part(f"networks/{number}", part, of, networks)
        for number, (part, of) in enumerate(zip(detector.parts, results, strict=True))
    ]
    manifest = Manifest(
        format=FORMAT,
        callboard=metadata.version("callboard"),
        result=result.ref.reference,
        date=_day(result.ref.time_ms),
        cv=result.cv.get("cv.lwlrap"),
        licences=list(dict.fromkeys(text for part in results for text in licences(part))),
        species=detector.species,
        parts=parts,
        weights=detector.weights,
        stack=None if detector.stack is None else _stack_entry(detector.stack),
        factors=_numbers(detector.factors),
        thresholds=read_thresholds(str(thresholds), detector.species, detector.reference)
        if thresholds
        else {},
    )
    return DetectorFile(manifest, networks)


def _stack_entry(stack: Stack) -> StackEntry:
    return StackEntry(
        weights=stack.weights.tolist(), bias=stack.bias.tolist(), is_fitted=stack.is_fitted.tolist()
    )


def _numbers(values: NDArray[np.float64] | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values]


def _day(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).date().isoformat() if time_ms else ""


def _export_part(
    folder: str, part: Networks[LoadedModel], result: Result, networks: dict[str, bytes]
) -> PartEntry:
    """Describe a part, and add its networks under a folder's name."""
    if part.score.predict.tta:
        raise UserError(
            f"{result.name}: predict.tta {part.score.predict.tta} cannot be exported, since torch draws its "
            "masks; export a result with predict.tta 0"
        )
    entries = []
    for loaded in part.models:
        name = f"{folder}/fold{loaded.fold}.onnx"
        n_mels = len(range(frames_of(part.front_end).n_rows)[loaded.clip.visible_mels])
        networks[name] = onnx_network(loaded, n_mels)
        _compare(loaded, networks[name], n_mels, f"{result.name}: {name}")
        clip = loaded.clip.model_dump(mode="json")
        entries.append(NetworkEntry(file=name, fold=loaded.fold, clip=clip))
    sections = {**part.front_end.model_dump(), **part.score.model_dump(), "infer": part.infer.model_dump()}
    return PartEntry(
        result=result.ref.reference,
        params={name: sections[name] for name in PART_SECTIONS},
        species=list(part.models[0].species),
        networks=entries,
        factors=_numbers(part.factors),
    )


def _compare(loaded: LoadedModel, content: bytes, n_mels: int, place: str) -> None:
    run = OnnxSession(content, DEFAULT_ENGINE, place)
    for frames in _random_frames(loaded, n_mels):
        with torch.inference_mode():
            output = loaded.model(normalise(to_unit(torch.from_numpy(frames))))
        expected = [output.attention, output.max, output.segment]
        if output.frequency is not None:
            expected += [output.frequency.attention, output.frequency.max]
        for a, b in zip(expected, run(frames), strict=True):
            difference = np.abs(expit(a.numpy()) - expit(b)).max()
            if not difference <= TOLERANCE:
                raise UserError(
                    f"{place}: probabilities differ from torch's by up to {difference:.2g}, more than "
                    f"{TOLERANCE:g}; ONNX does not reproduce this network"
                )


def _random_frames(loaded: LoadedModel, n_mels: int) -> Iterator[NDArray[np.uint8]]:
    rng = np.random.default_rng(loaded.fold)
    for number, n_windows in enumerate(CHECKED_WINDOWS):
        n_frames = loaded.clip.n_frames + 37 * number * (loaded.clip.mode == "full")
        yield rng.integers(0, 256, (n_windows, n_frames, n_mels), dtype=np.uint8)


def licences(result: Result) -> list[str]:
    """Return sentences on what the weights of a result come from, and its licence."""
    sections = result.sections("model", "features", "train")
    model: dict[str, Any] = sections["model"]
    texts = []
    if sections["features"]["kind"] == "birdnet":
        texts.append(EMBEDDED)
    if begun := sections["train"]["init_from"]:
        texts.append(f"training started from the weights of {begun}, whose licence applies")
    elif package := WEIGHTS_PACKAGES.get(model["weights"] or ""):
        texts.append(f"training started from {package.distribution}, {package.licence}")
    elif model["weights"]:
        texts.append(f"training started from {model['weights']}, whose licence applies")
    elif model["pretrained"]:
        licence = getattr(timm.models.get_pretrained_cfg(model["backbone"]), "license", None)
        texts.append(f"training started from timm's {model['backbone']}, {licence or 'licence unknown'}")
    else:
        texts.append(OWN)
    return texts
