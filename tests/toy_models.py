"""Networks small enough to build and run in a test, and random recordings for them."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from callboard.data.annotations import write_species
from callboard.data.clips import DTYPES, write_clips
from callboard.data.folds import write_folds
from callboard.data.score_tables import score_table, write_score_table
from callboard.features.frame_cache import EncodedRecording, MelCache, write_cache
from callboard.model.class_axis import species_classes
from callboard.model.detector import SedModel, build_model
from callboard.model.heads import SedOutput
from callboard.model.weights import LoadedModel, WeightsParams, save_model
from callboard.params.model import ModelParams
from callboard.params.training import ClipParams
from tests.toy_training import PARAMS

N_MELS = 32
SPECIES = ["3", "07", "x1"]
TRAIN = {f"{i:03d}": 150 for i in range(12)}
TOY_FOLDS = [list(TRAIN)[fold::3] for fold in range(3)]
CLIP = ClipParams(mode="event", n_frames=64, offsets=[16], mel_rows=None)
MODEL = ModelParams(
    backbone="resnet18",
    backbone_args={"layers": [1] * 4, "channels": [8] * 4, "stem_type": "deep", "stem_width": 4},
    pretrained=False,
    weights=None,
    head_bias=True,
    attention="softmax",
    segment_source="class",
    cbam=False,
    frequency_head=False,
)


def tiny_network(seed: int) -> SedModel:
    """A network with random weights."""
    torch.manual_seed(seed)
    return build_model(MODEL, len(SPECIES)).eval()


def save_fold(
    folder: Path,
    fold: int,
    network: SedModel | None = None,
    *,
    species: list[str] = SPECIES,
    clip: ClipParams = CLIP,
    name: str | None = None,
    averages: Mapping[str, SedModel] | None = None,
) -> None:
    """Weights of one fold, as train writes them."""
    path = folder / (name or f"fold{fold}.pt")
    params = WeightsParams(model=MODEL, clip=clip)
    axis = species_classes(toy_clips(), species)
    save_model(path, network or tiny_network(fold), params, axis, fold, TOY_FOLDS[fold], averages)


class BandLoudness(nn.Module):
    """A network to follow by eye: a species' logit in a segment is the mean of its mel row over 16 frames."""

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, image: Tensor) -> SedOutput:
        """Image (batch, frames, mels) to its rows' loudness."""
        bands = image[:, :, : len(SPECIES)]
        segments = bands.unflatten(1, (-1, 16)).mean(dim=2) + self.offset  # (batch, segments, species)
        return SedOutput(
            segments.mean(dim=1), segments.amax(dim=1), segments, torch.ones_like(segments), segments
        )


def loudness_model(fold: int, offset: float = 0.0) -> LoadedModel:
    """A loaded model with the network above."""
    everything = frozenset("abcde")
    return LoadedModel(BandLoudness(offset), SPECIES, fold, CLIP, everything)  # type: ignore[arg-type]


def random_cache(folder: Path, n_frames: dict[str, int], seed: int = 0) -> MelCache:
    """A cache of recordings with random frames, given as id: length."""
    rng = np.random.default_rng(seed)
    recordings = (
        EncodedRecording(name, rng.integers(0, 256, (length, N_MELS), dtype=np.uint8), -80.0, 0.0)
        for name, length in n_frames.items()
    )
    write_cache(folder, recordings, N_MELS)
    return MelCache.open(folder)


TRAINING_SECTIONS = ("clip", "mixup", "model", "loss", "optim", "sched", "train")
TEST = {f"t{i}": 100 + i for i in range(4)}
PARAMS_YAML = """\
seed: 1
augment:
  p: 0.5
  stage: before_norm
  time_mask: 20
  freq_mask: 8
  gamma: 2.0
  brightness_contrast: 0.5
  freq_crop: null
  freq_crop_p: 0.5
predict: {overlap_frames: 8, batch_size: 16, weights: last, tta: 0}
infer:
  head: attention_max
  window_agg: max
  fold_agg: mean
  fold_weights: []
  temperature: 1.0
  smoothing: []
  blend: []
  blend_weights: []
  stack: false
  prevalence: 0.0
evaluate: {n_bootstrap: 100}
pseudo:
  rounds: 1
  source: train
  isolation: recording
  head: attention_max
  threshold: 0.99
  negative_threshold: null
  min_votes: 1
  labels: hard
  temperature: 1.0
  power: 1.0
  n_frames: 32
"""
PARAMS_YAML += "".join(f"{name}: {json.dumps(PARAMS[name])}\n" for name in TRAINING_SECTIONS)


def random_out_of_fold(seed: int) -> pd.DataFrame:
    """Scores of all training recordings as evaluate writes them."""
    scores = np.random.default_rng(seed).random((len(TRAIN), len(SPECIES)))
    table = score_table(list(TRAIN), SPECIES, scores)
    table.insert(1, "fold", np.arange(len(TRAIN)) % 3)
    return table


def write_workspace(folder: Path) -> None:
    """What the stages after train read: 12 annotated recordings in 3 folds, 4 test ones, 3 networks."""
    (folder / "params.yaml").write_text(PARAMS_YAML)
    source = folder / "data" / "source"
    (source / "hidden").mkdir(parents=True)
    write_species(SPECIES, source / "species.csv")
    write_score_table(
        score_table(list(TEST), SPECIES, np.full((len(TEST), 3), 0.5)), source / "sample_submission.csv"
    )
    random_cache(folder / "data" / "mel" / "train", TRAIN)
    random_cache(folder / "data" / "mel" / "test", TEST, seed=1)
    random_cache(folder / "data" / "mel" / "external", {})
    clips = toy_clips()
    write_clips(clips, folder / "data" / "clips.csv")
    folds = pd.DataFrame({"recording_id": list(TRAIN), "fold": np.arange(len(TRAIN)) % 3})
    write_folds(folds, folder / "data" / "folds.csv")
    for fold in range(3):
        save_fold(folder / "models" / "r0", fold)


def toy_clips() -> pd.DataFrame:
    """One TP annotation per recording, species in turn, and an FP one of another species in every second."""
    rows = [(name, "tp", SPECIES[i // 3 % 3], 20, 40) for i, name in enumerate(TRAIN)]
    rows += [(name, "fp", SPECIES[(i // 3 + 1) % 3], 60, 90) for i, name in enumerate(TRAIN) if i % 2]
    columns = ["recording_id", "label_type", "species_id", "start_frame", "stop_frame"]
    clips = pd.DataFrame(rows, columns=columns).assign(clip_id=range(len(rows)), songtype_id="1")
    boxes = {"low_mel": 0, "high_mel": N_MELS}
    return clips.assign(**boxes).reindex(columns=list(DTYPES)).astype(DTYPES)
