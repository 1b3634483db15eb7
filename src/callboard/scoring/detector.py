"""A detector: the networks of a finished result, with all that turns recordings into its scores.

A recording gets the score that the pipeline would give it in the test set. `infer.prevalence`, which adapts
scores to a set, keeps the factors that were estimated on the test set.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from callboard.core.errors import UserError
from callboard.core.parts import part_key
from callboard.data.annotations import read_table, typed
from callboard.data.clips import read_clips
from callboard.data.folds import read_folds
from callboard.features.frame_cache import MelCache
from callboard.model.weights import LoadedModel, load_model
from callboard.params.base import validate
from callboard.params.features import FrontEndParams
from callboard.params.references import BLEND
from callboard.params.scoring import InferParams
from callboard.results.lookup import find_exactly
from callboard.results.result import CLIPS, FOLDS, PREVALENCE, Result
from callboard.scoring.predict import ScoreParams, plan_parts, score_parts
from callboard.scoring.prevalence import with_odds_times
from callboard.scoring.scored_sets import TrainingScores
from callboard.scoring.stacking import Stack
from callboard.scoring.window_scores import Probabilities, join_scores, recording_scores, window_means


class SetScores(NamedTuple):
    """Probabilities for R recordings, and for their N windows in the order of the recordings."""

    of_recordings: Probabilities
    """(R, species)."""
    of_windows: Probabilities
    """(N, species)."""
    recording: NDArray[np.int32]
    """(N,) index of the recording, ascending."""
    start_s: NDArray[np.float64]
    """(N,) seconds from the start of the recording."""
    end_s: NDArray[np.float64]
    """(N,) likewise; of the last window of a short recording, beyond its end."""


@dataclass(frozen=True)
class Networks:
    """The networks of a result that is not a blend."""

    front_end: FrontEndParams
    score: ScoreParams
    infer: InferParams
    models: list[LoadedModel]
    digests: tuple[str, ...]
    """md5 of each network's file."""
    factors: NDArray[np.float64] | None = None
    """(species,) factors of odds, in the order of the detector, of a part of a blend that was rescaled."""

    @property
    def key(self) -> str:
        """Digest of all that its scores depend on, code aside."""
        sections = (self.front_end, self.score, self.infer)
        factors = [] if self.factors is None else [f"{self.factors.tolist()}"]
        return part_key(*(section.model_dump_json() for section in sections), *self.digests, *factors)

    def on(self, device: torch.device) -> "Networks":
        """Return them on a device."""
        models = [loaded._replace(model=loaded.model.to(device)) for loaded in self.models]
        return replace(self, models=models)

    def scores(
        self, cache: MelCache, recording_ids: Sequence[str], species: Sequence[str], device: torch.device
    ) -> SetScores:
        """Score some recordings, of which there can be none.

        Args:
            cache: Frames that `front_end` made.
            recording_ids: Recordings of the cache.
            species: Species of the result, in order.
            device: Device of the networks.
        """
        if self.models[0].clip.mode == "full":  # a window is a recording, not as long as the longest of them
            caches = [cache.only(recording_id) for recording_id in recording_ids] or [cache.only()]
        else:
            caches = [cache.only(*recording_ids)]
        parts = [
            part for each in caches for part in plan_parts(self.models, each, each.recording_ids, self.score)
        ]
        scored = score_parts(parts, self.score, device, shows_progress=False)
        scores = join_scores(list(scored))
        order = [self.models[0].species.index(name) for name in species]
        end_frame = np.concatenate([part.batches.start_frame + part.batches.clip_frames for part in parts])
        of_recordings, of_windows = (
            found if self.factors is None else with_odds_times(found, self.factors)
            for found in (
                recording_scores(scores, self.infer)[:, order],
                window_means(scores, self.infer)[:, order],
            )
        )
        return SetScores(
            of_recordings,
            of_windows,
            scores.recording,
            scores.start_frame / self.front_end.frames_per_s,
            end_frame / self.front_end.frames_per_s,
        )


@dataclass(frozen=True)
class Detector:
    """The networks of a result, or of the parts of a blend, and how their scores become one."""

    reference: str
    """`name@key` of the result."""
    species: list[str]
    parts: list[Networks]
    weights: list[float]
    """Weight of each part in the mean."""
    stack: Stack | None
    """Combination of the parts, instead of a mean."""
    factors: NDArray[np.float64] | None
    """(species,) factors of odds."""

    @property
    def key(self) -> str:
        """Digest of all that its scores depend on, code aside."""
        return part_key(
            *(part.key for part in self.parts), ",".join(self.species), f"{self.weights}", *self._fitted()
        )

    @property
    def band_hz(self) -> tuple[float, float]:
        """Lowest and highest frequency that a part analyses."""
        bands = [part.front_end.band_hz for part in self.parts]
        return min(low for low, _ in bands), max(high for _, high in bands)

    def _fitted(self) -> list[str]:
        stacked = [] if self.stack is None else [self.stack.weights, self.stack.bias]
        factors = [] if self.factors is None else [self.factors]
        return [f"{values.tolist()}" for values in (*stacked, *factors)]

    def on(self, device: torch.device) -> "Detector":
        """Return the detector with its networks on a device."""
        return replace(self, parts=[part.on(device) for part in self.parts])

    def combined(self, scores: Sequence[SetScores]) -> SetScores:
        """Combine the scores of all parts; the windows are those of the first part.

        A window gets from a part with other windows the score of that one whose middle is the nearest.
        """
        first = scores[0]
        aligned = [first.of_windows, *(_at_windows_of(first, other) for other in scores[1:])]
        return first._replace(
            of_recordings=self._combine(np.array([each.of_recordings for each in scores])),
            of_windows=self._combine(np.array(aligned)),
        )

    def _combine(self, parts: Probabilities) -> Probabilities:
        """Return (rows, species) of (parts, rows, species)."""
        if self.stack is not None:
            scores = self.stack.scores(parts)
        else:
            scores = np.average(parts, axis=0, weights=self.weights)
        return scores if self.factors is None else with_odds_times(scores, self.factors)


def _at_windows_of(first: SetScores, other: SetScores) -> Probabilities:
    rows = np.empty(len(first.recording), np.int64)
    for recording in range(len(first.of_recordings)):
        wanted, found = first.recording == recording, np.flatnonzero(other.recording == recording)
        middles, others = ((each.start_s + each.end_s) / 2 for each in (first, other))
        rows[wanted] = found[np.abs(middles[wanted, None] - others[found]).argmin(axis=1)]
    return other.of_windows[rows]


def load_detector(result: Result, device: torch.device) -> Detector:
    """Load the detector of a finished result, with its networks on a device.

    Raises:
        UserError: A file is not in DVC's cache, or the parts of a blend are not of the same species.
    """
    infer = _infer(result)
    results = [find_exactly(reference, BLEND) for reference in infer.blend] or [result]
    for part in results if infer.blend else []:
        part.refuse_blend()
    parts = [_load_networks(part, device) for part in results]
    species = parts[0].models[0].species
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


def _infer(result: Result) -> InferParams:
    return validate(InferParams, result.sections("infer")["infer"], f"{result.name}: infer")


def _load_networks(result: Result, device: torch.device) -> Networks:
    score = validate(ScoreParams, result.sections("seed", "augment", "predict"), result.name)
    front_end = validate(FrontEndParams, result.sections("audio", "features"), result.name)
    models = [
        load_model(result.output(path), device, score.predict.weights) for path in result.weights.values()
    ]
    digests = tuple(result.md5(path) for path in result.weights.values())
    return Networks(front_end, score, _infer(result), models, digests)


def _stack(result: Result, infer: InferParams, species: list[str]) -> Stack:
    """Fit the stack again, on the recordings that it was fitted on."""
    folds, clips = read_folds(result.output(FOLDS)), read_clips(result.output(CLIPS))
    return TrainingScores(Path(), folds, clips, species).stack(infer)


def _factors(result: Result, species: list[str]) -> NDArray[np.float64]:
    path = result.output(PREVALENCE)
    table = typed(read_table(path, ["species", "factor"]), {"species": "str", "factor": "float64"}, path)
    return table.set_index("species")["factor"].loc[species].to_numpy()
