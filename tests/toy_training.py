"""A fold small enough to train in a test: each species is a bright band of mel rows for 20 frames."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from callboard.annotations import write_species
from callboard.batches import FoldData, select_fold
from callboard.clips import DTYPES, read_clips, write_clips
from callboard.folds import read_folds, write_folds
from callboard.mel_cache import EncodedRecording, MelCache, write_cache
from callboard.params.loss import LossParams
from callboard.training import FitParams

SPECIES = ["a", "07", "2e1"]
N_MELS = 32
N_FRAMES = 150
CALL_FRAMES = 20
CPU = torch.device("cpu")

LOSS: dict[str, Any] = {
    "neg_mask": "none",
    "pos_weight": True,
    "focal_gamma": 2.0,
    "attention": {"weight": 1.0, "kind": "bce_focal", "focal_weighted": True},
    "max": {"weight": 0.5, "kind": "bce", "focal_weighted": False},
    "pseudo": {"weight": 1.0, "threshold": 0.7, "weighted": True},
    "segment": {"weight": 0.5, "weighted": True},
}

PARAMS: dict[str, Any] = {
    "seed": 7,
    "clip": {"mode": "event", "n_frames": 64, "offsets": [16, 32]},
    "augment": {
        "p": 0.5,
        "stage": "before_norm",
        "time_mask": 20,
        "freq_mask": 8,
        "gamma": 2.0,
        "brightness_contrast": 0.5,
    },
    "mixup": {"mode": "input", "alpha": 0.1, "frame_targets": True},
    "model": {
        "backbone": "resnet18",
        "backbone_args": {"layers": [1] * 4, "channels": [8] * 4, "stem_type": "deep", "stem_width": 4},
        "pretrained": False,
        "head_bias": False,
        "attention": "softmax",
        "segment_source": "class",
    },
    "loss": LOSS,
    "optim": {"name": "adam", "lr": 0.003, "weight_decay": 0.0},
    "sched": {"name": "cosine", "t_max": 3, "eta_min": 0.0},
    "train": {"epochs": 3, "batch_size": 4, "fp_per_epoch": 2, "select": "last", "validate_every": 2},
}


def changed(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The tree with leaves replaced, given as {"mixup.mode": "none"}."""
    result = {name: changed(value, {}) if isinstance(value, dict) else value for name, value in tree.items()}
    for path, value in changes.items():
        *sections, leaf = path.split(".")
        section = result
        for name in sections:
            section = section[name]
        section[leaf] = value
    return result


def fit_params(**changes: Any) -> FitParams:
    """The toy's params; `mixup__mode="none"` changes mixup.mode."""
    return FitParams.model_validate(changed(PARAMS, {k.replace("__", "."): v for k, v in changes.items()}))


def loss_params(**changes: Any) -> LossParams:
    """The loss section, changed in the same way."""
    return LossParams.model_validate(changed(LOSS, {k.replace("__", "."): v for k, v in changes.items()}))


def annotation(recording_id: str, label_type: str, species_id: str, start: int, stop: int) -> dict[str, Any]:
    """One row of a table of clips; what training does not read is 0."""
    row = dict.fromkeys(DTYPES, 0) | {"songtype_id": "1", "start_frame": start, "stop_frame": stop}
    return row | {"recording_id": recording_id, "label_type": label_type, "species_id": species_id}


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
        span = f"r{i:02d}", start, start + CALL_FRAMES
        if i < 12:
            frames[start : start + CALL_FRAMES, species * 10 : species * 10 + 8] += 120
            annotations.append(annotation(span[0], "tp", SPECIES[species], *span[1:]))
        if i >= 11:
            annotations.append(annotation(span[0], "fp", SPECIES[species - 1], *span[1:]))
        recordings.append(EncodedRecording(span[0], frames, -80.0, 0.0))
    write_cache(root / "mel", recordings, N_MELS)
    write_clips(clips_table(*annotations), root / "clips.csv")
    ids = [recording.recording_id for recording in recordings]
    write_folds(pd.DataFrame({"recording_id": ids, "fold": np.arange(16) % 4 % 3}), root / "folds.csv")
    write_species(SPECIES, root / "species.csv")


def load_fold(root: Path, fold: int = 0) -> FoldData:
    """A fold of what `write_fold_inputs` wrote."""
    clips, folds = read_clips(root / "clips.csv"), read_folds(root / "folds.csv")
    return select_fold(MelCache.open(root / "mel"), clips, folds, fold, SPECIES)
