"""Compare inference of recordings with a plain loop, in alternation; measure peak memory.

    PYTHONPATH=src python benchmarks/infer.py [--repeats 3]

Theirs: each fold's model separately goes through all recordings, loads each from a float32 .npy, cuts it into
windows, stacks them to three channels and scores them in float32, NCHW, 8 at a time. Ours: score_recordings
and recording_scores. Networks (with our first convolution spread over three channels), windows and pooling
are the same; the scores of both are compared. Memory is that of 20 and of 200 recordings.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from callboard.core.console import peak_memory_mb
from callboard.features import normalisation as image
from callboard.features.frame_cache import EncodedRecording, MelCache, write_cache
from callboard.features.windows import plan_windows
from callboard.model.detector import SedModel, build_model
from callboard.model.device import (
    describe_device,
    pick_device,
)
from callboard.model.weights import LoadedModel
from callboard.params.model import ModelParams
from callboard.params.scoring import InferParams, PredictParams
from callboard.params.training import AugmentParams, ClipParams
from callboard.scoring.parts import ScoreParams
from callboard.scoring.predict import score_recordings
from callboard.scoring.window_scores import recording_scores

INFER = InferParams(
    head="attention_max",
    window_agg="max",
    fold_agg="mean",
    fold_weights=[],
    temperature=1.0,
    smoothing=[],
    blend=[],
    blend_weights=[],
    stack=False,
    prevalence=0.0,
)
N_SPECIES = 24


@dataclass(frozen=True)
class Case:
    """Networks and recordings of one size."""

    backbone_args: dict[str, object]
    clip_frames: int
    n_mels: int
    recording_frames: int
    n_models: int
    n_recordings: int
    score: ScoreParams


def score_params(overlap_frames: int) -> ScoreParams:
    augment = AugmentParams(
        p=0.0,
        stage="before_norm",
        time_mask=0,
        freq_mask=0,
        gamma=None,
        brightness_contrast=0.0,
        freq_crop=None,
        freq_crop_p=0.0,
    )
    predict = PredictParams(overlap_frames=overlap_frames, batch_size=128, weights="last", tta=0)
    return ScoreParams(seed=0, augment=augment, predict=predict)


SMALL = {"layers": [1] * 4, "channels": [16, 32, 64, 128], "stem_type": "deep", "stem_width": 8}
CASES = {
    "committed params.yaml, 64 mels, clips of 256, 20 s": Case(
        SMALL, 256, 64, 1251, 5, 16, score_params(overlap_frames=26)
    ),
    "ResNet-18, 128 mels, clips of 512, 60 s": Case(
        {}, 512, 128, 3751, 2, 4, score_params(overlap_frames=51)
    ),
}
MEMORY_CASE = Case(SMALL, 512, 128, 3751, 1, 200, score_params(overlap_frames=51))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each; default %(default)s")
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak_of is not None:
        report_peak(args.folder, args.peak_of)
        return
    print(f"{describe_device(pick_device())}, {torch.get_num_threads()} threads")
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            print(name)
            compare(case, Path(folder), args.repeats)
    with tempfile.TemporaryDirectory() as folder:
        show_memory(Path(folder))


def compare(case: Case, folder: Path, repeats: int) -> None:
    write_recordings(case, folder)
    models = make_models(case)
    three_channel = [spread_over_three_channels(loaded.model) for loaded in models]
    paths = {
        "ours": lambda: ours(case, models, MelCache.open(folder)),
        "theirs": lambda: theirs(case, three_channel, folder),
    }
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    scores: dict[str, NDArray[np.float32]] = {}
    for repeat in range(repeats + 1):
        for name, path in paths.items():
            start = time.perf_counter()
            scores[name] = path()
            if repeat:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    for name, found in seconds.items():
        rates = [case.n_recordings / one for one in found]
        each = " ".join(f"{rate:.1f}" for rate in rates)
        print(f"{name:>8}: {np.median(rates):6.1f} recordings/s by {case.n_models} models (median of {each})")
    ratios = [theirs / ours for theirs, ours in zip(seconds["theirs"], seconds["ours"], strict=True)]
    print(f"   ratio: {np.median(ratios):6.2f} (pairs: {' '.join(f'{ratio:.2f}' for ratio in ratios)})")
    print(f"  scores: at most {np.abs(scores['ours'] - scores['theirs']).max():.4f} apart")


def ours(case: Case, models: list[LoadedModel], cache: MelCache) -> NDArray[np.float32]:
    return recording_scores(
        score_recordings(models, cache, cache.recording_ids, case.score, pick_device()), INFER
    )


def theirs(case: Case, models: list[SedModel], folder: Path) -> NDArray[np.float32]:
    of_models = []
    for model in models:
        of_recordings = []
        for path in sorted(folder.glob("r*.npy")):
            log_mel = np.load(path)
            overlap_frames = case.score.predict.overlap_frames
            starts = plan_windows(np.array([len(log_mel)]), case.clip_frames, overlap_frames).start_frame
            windows = np.stack([log_mel[start : start + case.clip_frames] for start in starts])
            of_recordings.append(plain_scores(model, windows))
        of_models.append(np.stack(of_recordings))
    return np.mean(of_models, axis=0)


def plain_scores(model: SedModel, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    images = torch.from_numpy(np.stack([windows] * 3, axis=1))  # (windows, channels, frames, mels)
    images = ((images - image.MEAN) / image.STD).to(pick_device())
    scores = []
    with torch.no_grad():
        for batch in images.split(8):
            output = model.head(model.backbone(batch))
            scores.append(((output.attention.sigmoid() + output.max.sigmoid()) / 2).cpu().numpy())
    return np.concatenate(scores).max(axis=0)


def make_models(case: Case) -> list[LoadedModel]:
    params = ModelParams(
        backbone="resnet18",
        backbone_args=case.backbone_args,
        pretrained=False,
        weights=None,
        head_bias=False,
        attention="softmax",
        segment_source="class",
        cbam=False,
        frequency_head=False,
    )
    clip = ClipParams(mode="event", n_frames=case.clip_frames, offsets=[1], mel_rows=None)
    species = [str(number) for number in range(N_SPECIES)]
    torch.manual_seed(0)
    networks = [build_model(params, N_SPECIES).to(pick_device()).eval() for _ in range(case.n_models)]
    return [LoadedModel(network, species, fold, clip, frozenset()) for fold, network in enumerate(networks)]


def spread_over_three_channels(model: SedModel) -> SedModel:
    """Return the same network for images of three equal channels, in torch's default memory format."""
    copy = deepcopy(model).to(memory_format=torch.contiguous_format)
    name, first = next((name, part) for name, part in copy.named_modules() if isinstance(part, nn.Conv2d))
    spread = nn.Conv2d(3, first.out_channels, first.kernel_size, first.stride, first.padding, bias=False)
    spread.weight = nn.Parameter(first.weight.repeat(1, 3, 1, 1) / 3)
    parent, _, attribute = name.rpartition(".")
    setattr(copy.get_submodule(parent), attribute, spread)
    return copy


def write_recordings(case: Case, folder: Path) -> None:
    """Write the same recordings as a cache and as a float32 .npy each, on the cache's scale."""
    rng = np.random.default_rng(0)
    names = [f"r{number:03d}" for number in range(case.n_recordings)]
    shape = (case.recording_frames, case.n_mels)
    frames = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in names]
    write_cache(
        folder,
        (EncodedRecording(name, one, -80.0, 0.0) for name, one in zip(names, frames, strict=True)),
        case.n_mels,
    )
    for name, one in zip(names, frames, strict=True):
        np.save(folder / f"{name}.npy", one.astype(np.float32) / 255)


def show_memory(folder: Path) -> None:
    write_recordings(MEMORY_CASE, folder)
    for n_recordings in (20, 200):
        command = [sys.executable, __file__, "--peak-of", str(n_recordings), "--folder", str(folder)]
        peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        print(f"peak memory of {n_recordings:>3} recordings of 60 s: {float(peak):.0f} MB")


def report_peak(folder: Path, n_recordings: int) -> None:
    cache = MelCache.open(folder)
    score_recordings(
        make_models(MEMORY_CASE),
        cache,
        cache.recording_ids[:n_recordings],
        MEMORY_CASE.score,
        pick_device(),
    )
    print(peak_memory_mb())


if __name__ == "__main__":
    main()
