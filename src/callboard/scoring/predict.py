"""Prediction on whole recordings: the logits of overlapping windows.

Recordings are streamed: one batch of windows is in memory at a time, and only scores are kept.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from callboard.core import console as terminal
from callboard.core.errors import UserError
from callboard.core.machine import named_if_out_of_memory
from callboard.core.parts import consecutive
from callboard.core.threads import VARIABLE, ahead, n_workers
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
from callboard.scoring.window_scores import HEADS, WindowScores, join_scores

MAX_BATCHES_AT_ONCE = 8
"""Limit on batches that a CPU scores side by side, each with its own feature maps in memory."""

PART_FRAMES = 4_000_000
"""Size of a part: frames of windows times models, some minutes of work for two processors and a ResNet."""


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


class ScorePart(NamedTuple):
    """Recordings that some models score together."""

    models: Sequence[LoadedModel]
    """M models with the same species, clips and heads."""
    batches: WindowBatches
    first_window: int
    """Position of its first window among those of its set, on which test-time augmentation depends."""
    fold: int | None
    """Fold of the recordings, if each was scored by the model that holds it out."""


def plan_parts(
    models: Sequence[LoadedModel],
    cache: MelCache,
    recording_ids: Sequence[str],
    params: ScoreParams,
    fold: int | None = None,
) -> list[ScorePart]:
    """Divide recordings into parts of up to PART_FRAMES; without recordings, there is one empty part.

    Raises:
        UserError: A recording is not in the cache.
    """
    clip = models[0].clip
    everything = WindowBatches.plan(cache, recording_ids, clip, params.predict)
    n_windows = np.bincount(everything.recording, minlength=len(recording_ids))
    first_window = np.cumsum([0, *n_windows])
    frames_per_window = everything.clip_frames * len(models)
    return [
        ScorePart(
            models,
            WindowBatches.plan(cache, recording_ids[span], clip, params.predict),
            int(first_window[span.start]),
            fold,
        )
        for span in consecutive((n_windows * frames_per_window).tolist(), PART_FRAMES)
    ]


def plan_out_of_fold(
    models: Sequence[LoadedModel], cache: MelCache, folds: pd.DataFrame, params: ScoreParams
) -> list[ScorePart]:
    """Plan every recording of the folds table for the one model that was not trained on its fold.

    Args:
        models: One model per fold.
        cache: Frames of the recordings.
        folds: recording_id, fold; each recording once.
        params: `predict`.

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
        parts += plan_parts([loaded], cache, held_out, params, loaded.fold)
    return parts


def score_parts(
    parts: Sequence[ScorePart], params: ScoreParams, device: torch.device, *, shows_progress: bool = True
) -> Iterator[WindowScores]:
    """Score every window with every model, and yield the scores of each part; each recording is read once.

    On a CPU, batches are spread over CALLBOARD_WORKERS threads, which changes no number, unlike threads
    within an operation (`use_threads`). No batch has windows of two parts.

    Args:
        parts: Parts, in the order to score them.
        params: `predict`, and the parameters of its test-time augmentation.
        device: Device of the models.
        shows_progress: Whether to show it, by batches.
    """
    looks = TestTimeAugmentation(params.predict.tta, params.augment, params.seed)

    def score(job: tuple[ScorePart, WindowBatch]) -> ScoredBatch:
        part, batch = job
        image = to_unit(torch.from_numpy(batch.frames).to(device))
        images = looks(image, batch.place, part.first_window + batch.rows.start)
        with named_if_out_of_memory("prediction", f"lower predict.batch_size or set {VARIABLE}=1"):
            return batch.rows, *_run(part.models, images)

    n_at_once = min(n_workers(), MAX_BATCHES_AT_ONCE) if device.type == "cpu" else 1
    jobs = ((part, batch) for part in parts for batch in part.batches)
    scored = ahead(score, jobs, n_at_once, n_ahead=n_at_once + 1)
    n_batches = sum(len(part.batches) for part in parts)
    if shows_progress:
        scored = terminal.progress(scored, total=n_batches, label="predict", unit="batches")
    for part in parts:  # threads go on with the next part meanwhile
        yield _collect(part, islice(scored, len(part.batches)))


def score_recordings(
    models: Sequence[LoadedModel],
    cache: MelCache,
    recording_ids: Sequence[str],
    params: ScoreParams,
    device: torch.device,
) -> WindowScores:
    """Score recordings, in this order, with every model; see `score_parts`."""
    return join_scores(list(score_parts(plan_parts(models, cache, recording_ids, params), params, device)))


def score_out_of_fold(
    models: Sequence[LoadedModel],
    cache: MelCache,
    folds: pd.DataFrame,
    params: ScoreParams,
    device: torch.device,
) -> WindowScores:
    """Score recordings out of fold; see `plan_out_of_fold`."""
    return join_scores(list(score_parts(plan_out_of_fold(models, cache, folds, params), params, device)))


ScoredBatch = tuple[slice, dict[str, NDArray[np.float32]], NDArray[np.int32]]
"""Positions of a batch's windows in their part; logits by head and peaks in the window, as from `_run`."""


def _collect(part: ScorePart, scored: Iterable[ScoredBatch]) -> WindowScores:
    first, batches = part.models[0], part.batches
    shape = (len(batches.recording), len(part.models), len(first.species))
    heads = {name: np.empty(shape, dtype=np.float32) for name in HEADS}
    peak_frame = np.empty(shape, dtype=np.int32)
    for rows, logits, peak in scored:
        for name, values in logits.items():
            if np.isnan(values).any():
                fold = part.models[int(np.isnan(values).any(axis=(0, 2)).argmax())].fold
                raise UserError(f"the network of fold {fold} gives scores that are NaN; lower optim.lr")
            if name not in heads:  # heads of a frequency head, known only after the first batch
                heads[name] = np.empty(shape, dtype=np.float32)
            heads[name][rows] = values
        peak_frame[rows] = batches.start_frame[rows, None, None] + peak
    return WindowScores(
        recording_ids=batches.recording_ids,
        species=list(first.species),
        recording=batches.recording,
        start_frame=batches.start_frame,
        heads=heads,
        peak_frame=peak_frame,
        fold=None if part.fold is None else np.full(len(batches.recording_ids), part.fold, dtype=np.int64),
    )


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
