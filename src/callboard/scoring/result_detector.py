"""The detector of a finished result, which torch runs.

A recording gets the score that the pipeline would give it in the test set. `infer.prevalence`, which adapts
scores to a set, keeps the factors that were estimated on the test set.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from callboard.core.errors import UserError
from callboard.data.annotations import read_table, typed
from callboard.data.clips import read_clips
from callboard.data.folds import read_folds
from callboard.model.weights import LoadedModel, load_model
from callboard.params.base import validate
from callboard.params.features import FrontEndParams
from callboard.params.references import BLEND
from callboard.params.scoring import InferParams
from callboard.results.lookup import find_exactly
from callboard.results.result import CLIPS, FOLDS, PREVALENCE, Result
from callboard.scoring.detector import Detector, Networks
from callboard.scoring.parts import ScoreParams
from callboard.scoring.predict import TorchRunner
from callboard.scoring.scored_sets import TrainingScores
from callboard.scoring.stacking import Stack


def load_detector(result: Result, device: torch.device) -> Detector:
    """Load the detector of a finished result, with its networks on a device.

    Raises:
        UserError: A file is not in DVC's cache, or the parts of a blend are not of the same species.
    """
    infer = _infer(result)
    results = parts_of(result)
    parts = [_load_networks(part, device) for part in results]
    species = list(parts[0].models[0].species)
    for part, found in zip(results, parts, strict=True):
        if set(found.models[0].species) != set(species):
            raise UserError(
                f"{result.name}: its part {part.name} has species {', '.join(found.models[0].species)}, "
                f"but {results[0].name} has {', '.join(species)}"
            )
    if infer.blend:  # the submissions that the pipeline blends have been rescaled
        parts = [
            replace(found, factors=_factors(part, species)) if found.infer.prevalence else found
            for part, found in zip(results, parts, strict=True)
        ]
    return Detector(
        result.ref.reference,
        species,
        parts,
        infer.blend_weights or [1.0] * len(parts),
        _stack(result, infer, species) if infer.stack else None,
        _factors(result, species) if infer.prevalence else None,
    )


def parts_of(result: Result) -> list[Result]:
    """Return the results whose networks are run: the parts of a blend, or the result itself.

    Raises:
        UserError: A part is not found, or is a blend.
    """
    parts = [find_exactly(reference, BLEND) for reference in _infer(result).blend]
    for part in parts:
        part.refuse_blend()
    return parts or [result]


def _infer(result: Result) -> InferParams:
    return validate(InferParams, result.sections("infer")["infer"], f"{result.name}: infer")


def _load_networks(result: Result, device: torch.device) -> Networks[LoadedModel]:
    score = validate(ScoreParams, result.sections("seed", "augment", "predict"), result.name)
    front_end = validate(FrontEndParams, result.sections("audio", "features"), result.name)
    runner = TorchRunner(score, device)
    models = [
        load_model(result.output(path), device, score.predict.weights) for path in result.weights.values()
    ]
    digests = tuple(result.md5(path) for path in result.weights.values())
    return Networks(front_end, score, _infer(result), models, digests, runner)


def _stack(result: Result, infer: InferParams, species: list[str]) -> Stack:
    """Fit the stack again, on the recordings that it was fitted on."""
    folds, clips = read_folds(result.output(FOLDS)), read_clips(result.output(CLIPS))
    return TrainingScores(Path(), folds, clips, species).stack(infer)


def _factors(result: Result, species: list[str]) -> NDArray[np.float64]:
    path = result.output(PREVALENCE)
    table = typed(read_table(path, ["species", "factor"]), {"species": "str", "factor": "float64"}, path)
    return table.set_index("species")["factor"].loc[species].to_numpy()
