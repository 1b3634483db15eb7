"""A fold small enough to train in a test: each species is a bright band of mel rows for 20 frames."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from callboard.data.annotations import write_species
from callboard.data.clips import DTYPES, read_clips, write_clips
from callboard.data.folds import read_folds, write_folds
from callboard.features.frame_cache import EncodedRecording, MelCache, TrainingCache, write_cache
from callboard.model.class_axis import CLASSES
from callboard.params.loss import LossParams
from callboard.training.fit import FitParams
from callboard.training.fold_data import CONFIRMED, REJECTED, Annotations, FoldData, select_fold

SPECIES = ["a", "07", "2e1"]
N_MELS = 32
N_FRAMES = 150
CALL_FRAMES = 20
CPU = torch.device("cpu")

LOSS: dict[str, Any] = {
    "neg_mask": "none",
    "pos_mask": "none",
    "pos_weight": True,
    "focal_gamma": 2.0,
    "attention": {"weight": 1.0, "kind": "bce_focal", "focal_weighted": True},
    "max": {"weight": 0.5, "kind": "bce", "focal_weighted": False},
    "pseudo": {"weight": 1.0, "threshold": 0.7, "kind": "bce", "weighted": True},
    "position": {"weight": 0.0, "kind": "bce"},
    "segment": {"weight": 0.5, "weighted": True},
    "frequency": {"weight": 0.0},
    "labeled": {
        "weight": 0.0,
        "positives": "sum",
        "negatives": "sum",
        "focal_gamma": 0.0,
        "class_weights": "none",
    },
    "smoothing": {"target": "none", "mode": "uniform", "eps": 0.2},
}

PARAMS: dict[str, Any] = {
    "seed": 7,
    "clip": {"mode": "event", "n_frames": 64, "offsets": [16, 32], "mel_rows": None},
    "augment": {
        "p": 0.5,
        "stage": "before_norm",
        "time_mask": 20,
        "freq_mask": 8,
        "gamma": 2.0,
        "brightness_contrast": 0.5,
        "freq_crop": None,
        "freq_crop_p": 0.5,
    },
    "mixup": {"mode": "input", "alpha": 0.1, "frame_targets": True},
    "model": {
        "backbone": "resnet18",
        "backbone_args": {"layers": [1] * 4, "channels": [8] * 4, "stem_type": "deep", "stem_width": 4},
        "pretrained": False,
        "weights": None,
        "head_bias": False,
        "attention": "softmax",
        "segment_source": "class",
        "cbam": False,
        "frequency_head": False,
    },
    "loss": LOSS,
    "optim": {"name": "adam", "lr": 0.003, "weight_decay": 0.0},
    "sched": {"name": "cosine", "t_max": 3, "eta_min": 0.0, "factor": 0.5, "patience": 1},
    "train": {
        "epochs": 3,
        "batch_size": 4,
        "init_from": None,
        "items": "annotations",
        "skip_unlabeled": True,
        "labels": "tp",
        "classes": "species",
        "fp_per_epoch": 2,
        "pseudo_weight": 1.0,
        "labeled_share": None,
        "ema_decay": 0.0,
        "swa_epochs": 0,
        "select": "last",
        "validate_every": 2,
    },
}


def changed(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The tree with leaves replaced, given as {"mixup.mode": "none"}."""
    result = {name: changed(value, {}) if isinstance(value, dict) else value for name, value in tree.items()}
    for path, value in changes.items():
        *sections, leaf = path.split(".")
        section = result
        for name in sections:
            section = section.setdefault(name, {})
        section[leaf] = value
    return result


def fit_params(**changes: Any) -> FitParams:
    """The toy's params; `mixup__mode="none"` changes mixup.mode."""
    return FitParams.model_validate(changed(PARAMS, {k.replace("__", "."): v for k, v in changes.items()}))


def loss_params(**changes: Any) -> LossParams:
    """The loss section, changed in the same way."""
    return LossParams.model_validate(changed(LOSS, {k.replace("__", "."): v for k, v in changes.items()}))


def annotation(
    recording_id: str,
    label_type: str,
    species_id: str,
    start: int,
    stop: int,
    mels: tuple[int, int] = (0, 0),
    songtype_id: str = "1",
) -> dict[str, Any]:
    """One row of a table of clips; what training does not read is 0."""
    ids = {"recording_id": recording_id, "species_id": species_id, "songtype_id": songtype_id}
    spans = dict(zip(("start_frame", "stop_frame", "low_mel", "high_mel"), (start, stop, *mels), strict=True))
    return dict.fromkeys(DTYPES, 0) | ids | spans | {"label_type": label_type}


def clips_table(*annotations: dict[str, Any]) -> pd.DataFrame:
    """Rows of `annotation` as a table."""
    return pd.DataFrame(annotations, columns=list(DTYPES)).astype(DTYPES)


def write_fold_inputs(root: Path) -> None:
    """16 recordings in 3 folds, as crop and split write them: 12 with a call, 5 with an FP annotation."""
    rng = np.random.default_rng(0)
    recordings, annotations = [], []
    for i in range(16):
        frames = rng.integers(40, 80, (N_FRAMES, N_MELS), dtype=np.uint8)
        species, start = i % 3, int(rng.integers(0, N_FRAMES - CALL_FRAMES))
        name, stop, mels = f"r{i:02d}", start + CALL_FRAMES, (species * 10, species * 10 + 8)
        if i < 12:
            frames[start:stop, slice(*mels)] += 120
            annotations.append(annotation(name, "tp", SPECIES[species], start, stop, mels))
        if i >= 11:
            annotations.append(annotation(name, "fp", SPECIES[species - 1], start, stop, mels))
        recordings.append(EncodedRecording(name, frames, -80.0, 0.0))
    write_cache(root / "mel", recordings, N_MELS)
    write_clips(clips_table(*annotations), root / "clips.csv")
    ids = [recording.recording_id for recording in recordings]
    write_folds(pd.DataFrame({"recording_id": ids, "fold": np.arange(16) % 4 % 3}), root / "folds.csv")
    write_species(SPECIES, root / "species.csv")


def load_fold(root: Path, fold: int = 0, **changes: Any) -> FoldData:
    """A fold of what `write_fold_inputs` wrote; `changes` as those of `choose_fold`."""
    return choose_fold(root, read_clips(root / "clips.csv"), fold, **changes)


def choose_fold(
    root: Path,
    clips: pd.DataFrame,
    fold: int = 0,
    *,
    folds: pd.DataFrame | None = None,
    classes: str = "species",
    labels: str = "tp",
    test: MelCache | None = None,
) -> FoldData:
    """A fold of other annotations of the same recordings, and of `test` ones."""
    folds = read_folds(root / "folds.csv") if folds is None else folds
    cache = TrainingCache(MelCache.open(root / "mel"), *[test] * (test is not None))
    return select_fold(cache, clips, folds, fold, CLASSES[classes](clips, SPECIES), labels)


def random_fold(seed: int, n_recordings: int = 6, n_species: int = 4, n_mels: int = 12) -> FoldData:
    """Recordings of 20 to 500 frames with random annotations and random frames.

    Each has 3 TP, 4 FP, 3 pseudo-labels (a hard and two soft ones) and 3 negatives; the last two kinds have
    no mel rows. Negatives of a species never touch.
    """
    rng = np.random.default_rng(seed)
    n_frames = rng.integers(20, 500, n_recordings)
    verdict = np.tile([*[CONFIRMED] * 3, *[REJECTED] * 4, 1.0, 0.6, 0.3, *[0.0] * 3], (n_recordings, 1))
    start = rng.integers(0, n_frames[:, None], verdict.shape)
    stop = np.minimum(start + rng.integers(1, 60, start.shape), n_frames[:, None])
    low = rng.integers(0, n_mels, start.shape)
    high = np.minimum(low + rng.integers(1, 5, start.shape), n_mels)
    low[verdict <= 1] = high[verdict <= 1] = 0
    species = rng.integers(0, n_species, start.shape)
    n_long = rng.integers(60, 150, (n_recordings, 3))  # long enough that they hold whole clips
    stop[:, 10:] = np.minimum(start[:, 10:] + n_long, n_frames[:, None])
    species[:, 10:] = rng.permuted(np.tile(np.arange(n_species), (n_recordings, 1)), axis=1)[:, :3]
    return FoldData(
        frames=rng.integers(0, 256, (n_frames.sum(), n_mels), dtype=np.uint8),
        first_frame=np.cumsum(n_frames) - n_frames,
        n_frames=n_frames,
        annotations=Annotations(
            *(start, stop, low, high, species, verdict), *(np.full(n_recordings, n) for n in (3, 4, 3, 3))
        ),
        n_tp_annotations=np.ones(n_species, dtype=np.int64),
        class_species=np.arange(n_species),
        validation=np.arange(0),
        is_present=np.zeros((0, n_species), dtype=bool),
    )
