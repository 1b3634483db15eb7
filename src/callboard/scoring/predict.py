"""Prediction on whole recordings: the logits of overlapping windows.

Recordings are streamed: one batch of windows is in memory at a time, and only scores are kept.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from callboard.core import console as terminal
from callboard.core.errors import UserError
from callboard.core.threads import ahead, n_workers
from callboard.features.frame_cache import MelCache
from callboard.features.normalisation import to_unit
from callboard.model.device import autocast
from callboard.model.heads import SedOutput
from callboard.model.weights import LoadedModel, load_model
from callboard.params.base import DEFAULT_SEED, Params, Seed
from callboard.params.scoring import PredictParams
from callboard.params.training import AugmentParams
from callboard.scoring.test_time_augmentation import TestTimeAugmentation
from callboard.scoring.window_batches import WindowBatch, WindowBatches
from callboard.scoring.window_scores import HEADS, WindowScores, join_out_of_fold

MAX_BATCHES_AT_ONCE = 8
"""Limit on batches that a CPU scores side by side, each with its own feature maps in memory."""


class ScoreParams(Params):
    """The parameters that scores depend on, apart from networks and recordings."""

    seed: Seed = DEFAULT_SEED
    augment: AugmentParams
    predict: PredictParams


def load_fold_models(
    folder: Path, folds: Sequence[int], device: torch.device, weights: str = "last"
) -> list[LoadedModel]:
    """Load the models `fold<k>.pt` of one round, in order of their folds.

    Args:
        folder: Folder of the round.
        folds: All folds.
        device: Device of the models.
        weights: Which of each model's weights to load: a value of `predict.weights`.

    Raises:
        UserError: A fold's file is missing, has a different fold's weights or lacks the requested weights,
            or the models differ in species or clips.
    """
    expected, found = {f"fold{k}.pt" for k in folds}, {path.name for path in folder.glob("*.pt")}
    if missing := sorted(expected - found):
        raise UserError(f"{folder}: {', '.join(missing)} missing; the folds are {sorted(folds)}")
    if extra := sorted(found - expected):  # DVC leaves them there when split.folds gets shorter
        print(f"{folder}: {', '.join(extra)} left over from other folds than {sorted(folds)}, not used")
    models = [load_model(folder / f"fold{k}.pt", device, weights) for k in sorted(folds)]
    for fold, loaded in zip(sorted(folds), models, strict=True):
        _refuse_odd_one(folder / f"fold{fold}.pt", fold, loaded, models[0])
    return models


def _refuse_odd_one(path: Path, fold: int, loaded: LoadedModel, first: LoadedModel) -> None:
    if loaded.fold != fold:
        raise UserError(f"{path}: holds the weights of fold {loaded.fold}, not of fold {fold}")
    if loaded.species != first.species:
        raise UserError(
            f"{path}: trained on species {loaded.species}, but fold {first.fold} on {first.species}; "
            "train again"
        )
    if loaded.clip != first.clip:
        raise UserError(
            f"{path}: trained on clips of {loaded.clip}, but fold {first.fold} of {first.clip}; train again"
        )


def score_recordings(
    models: Sequence[LoadedModel],
    cache: MelCache,
    recording_ids: Sequence[str],
    params: ScoreParams,
    device: torch.device,
) -> WindowScores:
    """Score every window of every recording with every model; each recording is read once for all models.

    On a CPU, batches are spread over CALLBOARD_WORKERS threads, which changes no number, unlike threads
    within an operation (`use_threads`).

    Args:
        models: M models with the same species, clips and heads.
        cache: Frames of the recordings.
        recording_ids: Recordings to score, in this order.
        params: `predict`, and the parameters of its test-time augmentation.
        device: Device of the models.
    """
    first = models[0]
    batches = WindowBatches.plan(cache, recording_ids, first.clip, params.predict)
    looks = TestTimeAugmentation(params.predict.tta, params.augment, params.seed)
    shape = (len(batches.recording), len(models), len(first.species))
    heads = {name: np.empty(shape, dtype=np.float32) for name in HEADS}
    peak_frame = np.empty(shape, dtype=np.int32)
    label = "predict" if len(models) > 1 else f"predict fold {first.fold}"

    def score(batch: WindowBatch) -> tuple[slice, dict[str, NDArray[np.float32]], NDArray[np.int32]]:
        image = to_unit(torch.from_numpy(batch.frames).to(device))
        return batch.rows, *_run(models, looks(image, batch.place, batch.rows.start))

    n_at_once = min(n_workers(), MAX_BATCHES_AT_ONCE) if device.type == "cpu" else 1
    scored = ahead(score, batches, n_at_once, n_ahead=n_at_once + 1)
    for rows, logits, peak in terminal.progress(scored, total=len(batches), label=label, unit="batches"):
        for name, values in logits.items():
            if name not in heads:  # heads of a frequency head, known only after the first batch
                heads[name] = np.empty(shape, dtype=np.float32)
            heads[name][rows] = values
        peak_frame[rows] = batches.start_frame[rows, None, None] + peak
    return WindowScores(
        recording_ids=list(recording_ids),
        species=list(first.species),
        recording=batches.recording,
        start_frame=batches.start_frame,
        heads=heads,
        peak_frame=peak_frame,
        fold=None,
    )


def score_out_of_fold(
    models: Sequence[LoadedModel],
    cache: MelCache,
    folds: pd.DataFrame,
    params: ScoreParams,
    device: torch.device,
) -> WindowScores:
    """Score every recording of the folds table with the one model that was not trained on its fold.

    Args:
        models: One model per fold.
        cache: Frames of the recordings.
        folds: recording_id, fold; each recording once.
        params: `predict`, and the parameters of its test-time augmentation.
        device: Device of the models.

    Raises:
        UserError: A model has trained on a recording that the table puts in its fold.
    """
    parts = []
    for loaded in models:
        held_out = folds.loc[folds["fold"] == loaded.fold, "recording_id"].tolist()
        if seen := sorted(set(held_out) - loaded.held_out):
            raise UserError(
                f"the model of fold {loaded.fold} has trained on {len(seen)} recordings that the folds table "
                f"now holds out, first {seen[0]}; train again"
            )
        parts.append((score_recordings([loaded], cache, held_out, params, device), loaded.fold))
    return join_out_of_fold(parts)


@torch.inference_mode()
def _run(
    models: Sequence[LoadedModel], images: Iterable[Tensor]
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int32]]:
    """Return each head's logits and the peak's frame in the window, both (batch, models, species)."""
    of_looks: list[list[SedOutput]] = []
    for image in images:
        with autocast(image):
            of_looks.append([loaded.model(image) for loaded in models])
    of_models = [_mean_output(outputs) for outputs in zip(*of_looks, strict=True)]
    peaks = [
        ((output.segment.max(dim=1).indices + 0.5) * (image.shape[1] / output.segment.shape[1])).int()
        for output in of_models
    ]
    heads = [_by_head(output) for output in of_models]
    logits = {name: torch.stack([head[name] for head in heads], dim=1).cpu().numpy() for name in heads[0]}
    return logits, torch.stack(peaks, dim=1).cpu().numpy()


def _mean_output(outputs: Sequence[SedOutput]) -> SedOutput:
    """Average the outputs of several augmented images, field by field."""
    *columns, frequency = zip(*outputs, strict=True)
    means = [torch.stack(column).float().mean(dim=0) for column in columns]
    return SedOutput._make([*means, _mean_output(frequency) if all(frequency) else None])


def _by_head(output: SedOutput) -> dict[str, Tensor]:
    """Return the logits (batch, species) to keep, by head; with those of a frequency head if there is one."""
    heads = {"attention": output.attention, "max": output.max, "segment_max": output.segment.amax(dim=1)}
    if output.frequency is not None:
        heads |= {"frequency_attention": output.frequency.attention, "frequency_max": output.frequency.max}
    return heads
