"""Networks over whole recordings: overlapping windows in, their logits out.

Recordings are streamed: one batch of windows is in memory at a time, and only scores are kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from callboard import terminal
from callboard.checkpoint import LoadedModel, load_model
from callboard.device import autocast
from callboard.errors import UserError
from callboard.image import normalise, to_unit
from callboard.mel_cache import MelCache
from callboard.params.scoring import PredictParams
from callboard.scores import HEADS, WindowScores, join_out_of_fold


def window_starts(n_frames: int, clip_frames: int, overlap_frames: int) -> NDArray[np.int64]:
    """First frames of windows that together cover a recording.

    Neighbours share `overlap_frames`; the last window is moved back to end with the recording, so that no
    frame stays unseen and none is padded. A recording shorter than a clip gets one window, to be padded.

    Raises:
        ValueError: the overlap leaves no step forward.
    """
    if not 0 <= overlap_frames < clip_frames:
        raise ValueError(f"overlap_frames must be in [0, clip_frames {clip_frames}), found {overlap_frames}")
    last = max(n_frames - clip_frames, 0)
    return np.append(np.arange(0, last, clip_frames - overlap_frames), last)


def load_fold_models(folder: Path, folds: Sequence[int], device: torch.device) -> list[LoadedModel]:
    """The models `fold<k>.pt` of one round, in order of their folds.

    Raises:
        UserError: a fold's weights are missing, there are weights of a fold that does not exist, a file holds
            another fold's weights, or the models disagree on species or clip length.
    """
    expected, found = {f"fold{k}.pt" for k in folds}, {path.name for path in folder.glob("*.pt")}
    if missing := sorted(expected - found):
        raise UserError(f"{folder}: {', '.join(missing)} missing; the folds are {sorted(folds)}")
    if extra := sorted(found - expected):
        raise UserError(
            f"{folder}: {', '.join(extra)} left over from other folds than {sorted(folds)}; delete it"
        )
    models = [load_model(folder / f"fold{k}.pt", device) for k in sorted(folds)]
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
    if loaded.clip.n_frames != first.clip.n_frames:
        raise UserError(
            f"{path}: trained on clips of {loaded.clip.n_frames} frames, but fold {first.fold} on "
            f"{first.clip.n_frames}; train again"
        )


def score_recordings(
    models: Sequence[LoadedModel],
    cache: MelCache,
    recording_ids: Sequence[str],
    params: PredictParams,
    device: torch.device,
) -> WindowScores:
    """Every window of every recording, scored by every model; each recording is read once for all models.

    Args:
        models: agreeing on species and clip length, M of them.
        cache: frames of the recordings.
        recording_ids: which recordings, in this order.
        params: the `predict` section.
        device: where the models are.
    """
    first = models[0]
    plan = _plan_windows(cache, recording_ids, first.clip.n_frames, params.overlap_frames)
    shape = (len(plan.recording), len(models), len(first.species))
    heads = {name: np.empty(shape, dtype=np.float32) for name in HEADS}
    peak_frame = np.empty(shape, dtype=np.int32)
    batches = _window_batches(cache, plan, first.clip.n_frames, params.batch_size)
    n_batches = -(-len(plan.recording) // params.batch_size)
    label = "predict" if len(models) > 1 else f"predict fold {first.fold}"
    for rows, frames in terminal.progress(batches, total=n_batches, label=label, unit="batches"):
        logits, peak = _run(models, frames, device)
        for name, values in zip(HEADS, logits, strict=True):
            heads[name][rows] = values
        peak_frame[rows] = plan.start_frame[rows, None, None] + peak
    return WindowScores(
        recording_ids=list(recording_ids),
        species=list(first.species),
        recording=plan.recording,
        start_frame=plan.start_frame,
        heads=heads,
        peak_frame=peak_frame,
        fold=None,
    )


def score_out_of_fold(
    models: Sequence[LoadedModel],
    cache: MelCache,
    folds: pd.DataFrame,
    params: PredictParams,
    device: torch.device,
) -> WindowScores:
    """Every recording of the folds table, scored by the one model that was not trained on its fold.

    Args:
        models: one per fold.
        cache: frames of the recordings.
        folds: recording_id, fold; each recording once.
        params: the `predict` section.
        device: where the models are.

    Raises:
        UserError: a model has trained on a recording that the table puts in its fold.
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


@dataclass(frozen=True)
class _WindowPlan:
    """Which windows to score, those of a recording together, recordings in order."""

    recording_ids: list[str]
    recording: NDArray[np.int32]
    """(N,) index into recording_ids."""
    start_frame: NDArray[np.int32]
    """(N,)."""


def _plan_windows(
    cache: MelCache, recording_ids: Sequence[str], clip_frames: int, overlap_frames: int
) -> _WindowPlan:
    starts = [
        window_starts(int(cache.n_frames[cache.row(recording_id)]), clip_frames, overlap_frames)
        for recording_id in recording_ids
    ]
    n_windows = [len(of_recording) for of_recording in starts]
    return _WindowPlan(
        recording_ids=list(recording_ids),
        recording=np.repeat(np.arange(len(recording_ids), dtype=np.int32), n_windows),
        start_frame=np.concatenate([np.empty(0, dtype=np.int64), *starts]).astype(np.int32),
    )


def _window_batches(
    cache: MelCache, plan: _WindowPlan, clip_frames: int, batch_size: int
) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
    """Rows of the plan and their frames (batch, frames, mels); batches run across recordings."""
    read = lru_cache(maxsize=1)(cache.read)  # a recording that continues in the next batch is not read again
    for first in range(0, len(plan.recording), batch_size):
        rows = slice(first, first + batch_size)
        recording, start_frame = plan.recording[rows], plan.start_frame[rows]
        pieces = [
            cut_windows(read(plan.recording_ids[row]), start_frame[recording == row], clip_frames)
            for row in np.unique(recording)
        ]
        yield rows, np.concatenate(pieces)


def cut_windows(
    frames: NDArray[np.uint8], start_frames: NDArray[np.integer], clip_frames: int
) -> NDArray[np.uint8]:
    """(windows, clip_frames, mels) of a recording (frames, mels); beyond its end there is 0, its quietest."""
    beyond_end = max(clip_frames - len(frames), 0)
    padded = np.pad(frames, ((0, beyond_end), (0, 0))) if beyond_end else frames
    windows: NDArray[np.uint8] = padded[start_frames[:, None] + np.arange(clip_frames)]
    return windows


@torch.inference_mode()
def _run(
    models: Sequence[LoadedModel], frames: NDArray[np.uint8], device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Logits (heads, batch, models, species); frame in the window of the peak (batch, models, species)."""
    image = normalise(to_unit(torch.from_numpy(frames).to(device)))
    logits: list[Tensor] = []
    peaks: list[Tensor] = []
    for loaded in models:
        with autocast(device):
            output = loaded.model(image)
        highest, segment = output.segment.max(dim=1)  # (batch, species)
        segment_frames = frames.shape[1] / output.segment.shape[1]
        logits.append(torch.stack([output.attention, output.max, highest]).float())
        peaks.append(((segment + 0.5) * segment_frames).int())
    return torch.stack(logits, dim=2).cpu().numpy(), torch.stack(peaks, dim=1).cpu().numpy()
