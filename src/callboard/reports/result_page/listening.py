"""Scores of a network along one recording; the only part of a report that needs torch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from callboard.core.errors import UserError
from callboard.features.frame_cache import MelCache
from callboard.features.normalisation import normalise, to_unit
from callboard.model.device import autocast, pick_device
from callboard.model.weights import LoadedModel, load_model
from callboard.params.scoring import PredictParams
from callboard.results.result import Result
from callboard.scoring.window_batches import WindowBatches


@dataclass(frozen=True)
class Tracks:
    """Scores per frame of a recording, each the mean over the windows that cover the frame."""

    framewise: NDArray[np.float64]
    """(frames, species) probability of the class logits."""
    segmentwise: NDArray[np.float64]
    """(frames, species) probability of the logits that the segment loss sees; often the same."""
    attention: NDArray[np.float64]
    """(frames, species) weight of the frame's segment in its window."""


class Listener:
    """The networks of the last round, each applied only to recordings that it has not trained on."""

    def __init__(self, files: dict[int, Path], weights: str = "last") -> None:
        """Load the networks.

        Args:
            files: Fold to its weights.
            weights: Which weights of a file to load, named as in `predict.weights`.

        Raises:
            UserError: a file is not a network of this project.
        """
        self.device = pick_device()
        self.models = {fold: load_model(path, self.device, weights) for fold, path in files.items()}

    def hear(self, recording_id: str, fold: int, cache: MelCache, params: PredictParams) -> Tracks:
        """Score a recording by the network of its fold, without test-time masks.

        Raises:
            UserError: the network of the fold is missing, or it has trained on the recording.
        """
        if fold not in self.models:
            raise UserError(f"the network of fold {fold} is missing")
        if recording_id not in self.models[fold].held_out:
            raise UserError(f"the network of fold {fold} has trained on {recording_id}")
        return hear(self.models[fold], recording_id, cache, params, self.device)


@torch.inference_mode()
def hear(
    loaded: LoadedModel, recording_id: str, cache: MelCache, params: PredictParams, device: torch.device
) -> Tracks:
    """Score one recording by one network, in the windows of the `predict` stage."""
    batches = WindowBatches.plan(cache, [recording_id], loaded.clip, params)
    n_frames = int(batches.n_frames[0])
    shape = (n_frames, len(loaded.species))
    sums = [np.zeros(shape) for _ in range(3)]
    n_windows = np.zeros((n_frames, 1))
    for batch in batches:
        image = normalise(to_unit(torch.from_numpy(batch.frames).to(device)))
        with autocast(image):
            output = loaded.model(image)
        fields = (output.framewise.sigmoid(), output.segment.sigmoid(), output.attention_weights)
        stretched = [stretch(field.float().cpu().numpy(), batches.clip_frames) for field in fields]
        for window, start in enumerate(batch.start_frame):
            span = slice(start, min(start + batches.clip_frames, n_frames))
            n_windows[span] += 1
            for total, field in zip(sums, stretched, strict=True):
                total[span] += field[window, : span.stop - start]
    return Tracks(*(total / n_windows for total in sums))


def stretch(segments: NDArray[np.float32], n_frames: int) -> NDArray[np.float32]:
    """Repeat segments, (batch, segments, species), over their share of frames, (batch, frames, species)."""
    of_frame = np.arange(n_frames) * segments.shape[1] // n_frames
    stretched: NDArray[np.float32] = segments[:, of_frame]
    return stretched


def read_listener(result: Result) -> Listener:
    """Load the networks that a result was scored by.

    Raises:
        UserError: the result is a blend, or a network is not in the cache.
    """
    result.refuse_blend()
    files = {fold: result.output(path) for fold, path in result.weights.items()}
    return Listener(files, result.params.get("predict.weights", "last"))


def held_out_by(result: Result) -> dict[str, tuple[int, frozenset[str]]]:
    """Map the path of each weights file to its fold and the recordings that the network has not seen.

    Raises:
        UserError: the result is a blend, or a network is not in the cache.
    """
    paths, listener = result.weights, read_listener(result)
    return {paths[fold]: (model.fold, model.held_out) for fold, model in listener.models.items()}
