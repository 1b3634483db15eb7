"""Prediction on whole recordings with torch: by the networks of all folds, or out of fold."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from callboard.core.errors import UserError
from callboard.core.threads import n_workers
from callboard.features.augment import Place
from callboard.features.frame_cache import MelCache
from callboard.features.normalisation import to_unit
from callboard.model.device import autocast, pick_device, use_threads
from callboard.model.heads import SedOutput
from callboard.model.weights import LoadedModel, load_model
from callboard.scoring.parts import (
    MAX_BATCHES_AT_ONCE,
    NetworkOutput,
    ScoreParams,
    ScorePart,
    plan_parts,
    score_parts,
)
from callboard.scoring.test_time_augmentation import TestTimeAugmentation
from callboard.scoring.window_batches import WindowBatch
from callboard.scoring.window_scores import WindowScores, join_scores


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


def plan_out_of_fold(
    models: Sequence[LoadedModel], cache: MelCache, folds: pd.DataFrame, params: ScoreParams
) -> list[ScorePart[LoadedModel]]:
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


class TorchRunner:
    """Runner of networks on a device of torch, with test-time augmentation.

    On a CPU, batches are spread over CALLBOARD_WORKERS threads, and `use_threads` sets those within an
    operation.
    """

    def __init__(self, params: ScoreParams, device: torch.device) -> None:
        """Set up the augmentation.

        Args:
            params: `predict`, and the parameters of its test-time augmentation.
            device: Device of the networks.
        """
        self._looks = TestTimeAugmentation(params.predict.tta, params.augment, params.seed)
        self._params, self._device = params, device

    def __reduce__(self) -> tuple[type["TorchRunner"], tuple[ScoreParams, torch.device]]:
        return TorchRunner, (self._params, self._device)  # augmentations cannot be pickled

    @property
    def n_at_once(self) -> int:
        """Number of batches that are run side by side."""
        return min(n_workers(), MAX_BATCHES_AT_ONCE) if self._device.type == "cpu" else 1

    def here(self, networks: Sequence[LoadedModel]) -> tuple[Sequence[LoadedModel], "TorchRunner"]:
        """Return networks and runner for the device of this machine, with one thread for each operation."""
        use_threads(1)
        device = pick_device()
        moved = [loaded._replace(model=loaded.model.to(device)) for loaded in networks]
        return moved, TorchRunner(self._params, device)

    def run(
        self, networks: Sequence[LoadedModel], batch: WindowBatch, first_window: int
    ) -> list[NetworkOutput]:
        """Return the output of each network, averaged over the images of test-time augmentation."""
        image = to_unit(torch.from_numpy(batch.frames).to(self._device))
        place = Place(torch.from_numpy(batch.start_frame), torch.from_numpy(batch.recording_frames))
        return _run(networks, self._looks(image, place, first_window))


def score_recordings(
    models: Sequence[LoadedModel],
    cache: MelCache,
    recording_ids: Sequence[str],
    params: ScoreParams,
    device: torch.device,
) -> WindowScores:
    """Score recordings, in this order, with every model."""
    return join_scores(
        list(score_parts(plan_parts(models, cache, recording_ids, params), TorchRunner(params, device)))
    )


def score_out_of_fold(
    models: Sequence[LoadedModel],
    cache: MelCache,
    folds: pd.DataFrame,
    params: ScoreParams,
    device: torch.device,
) -> WindowScores:
    """Score recordings out of fold; see `plan_out_of_fold`."""
    return join_scores(
        list(score_parts(plan_out_of_fold(models, cache, folds, params), TorchRunner(params, device)))
    )


@torch.inference_mode()
def _run(models: Sequence[LoadedModel], images: Iterable[Tensor]) -> list[NetworkOutput]:
    of_looks: list[list[SedOutput]] = []
    for image in images:
        with autocast(image):
            of_looks.append([loaded.model(image) for loaded in models])
    return [_on_cpu(_mean_output(outputs)) for outputs in zip(*of_looks, strict=True)]


def _on_cpu(output: SedOutput) -> NetworkOutput:
    attention, largest, segment = (
        values.cpu().numpy() for values in (output.attention, output.max, output.segment)
    )
    if output.frequency is None:
        return NetworkOutput(attention, largest, segment, None)
    frequency = output.frequency.attention.cpu().numpy(), output.frequency.max.cpu().numpy()
    return NetworkOutput(attention, largest, segment, frequency)


def _mean_output(outputs: Sequence[SedOutput]) -> SedOutput:
    """Average the outputs of several augmented images, field by field."""
    *columns, frequency = zip(*outputs, strict=True)
    means = [torch.stack(column).float().mean(dim=0) for column in columns]
    return SedOutput._make([*means, _mean_output(frequency) if all(frequency) else None])
