"""The training loop beside the loop people write and beside the bare model step, in turns in one run.

    python benchmarks/train.py [--cache data/mel/train] [--rounds 5]

Ours: BatchSource and train_step, as `fit` runs them. Theirs: a DataLoader with two processes over float32
.npy files, one per recording, each item loaded whole, cropped, augmented and stacked to three channels; the
same backbone, head, loss and batch size in float32 NCHW. Bare: train_step on one fixed batch. Start-up is not
timed.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from callboard.batches import Annotations, BatchSource, FoldData
from callboard.device import describe, pick_device
from callboard.image import MEAN, STD
from callboard.losses import Loss, Targets, count_to_weights
from callboard.mel_cache import EncodedRecording, MelCache, write_cache
from callboard.mixup import MIXUP, draw_mixing
from callboard.model import AttentionHead, SedOutput
from callboard.params.base import read_tree
from callboard.training import FitParams, Learner, build_learner, train_step
from callboard.workers import n_workers

ROOT = Path(__file__).resolve().parent.parent
N_SPECIES = 24
CALL_FRAMES = 60


class Setting(NamedTuple):
    """What is trained, and on how much."""

    name: str
    n_frames: int
    n_mels: int
    n_recordings: int
    n_steps: int
    change: Callable[[FitParams], FitParams]
    """From the committed params."""


def as_committed(params: FitParams) -> FitParams:
    return params


def full_size(params: FitParams) -> FitParams:
    return params.model_copy(
        update={
            "model": params.model.model_copy(update={"backbone_args": {}}),
            "clip": params.clip.model_copy(update={"n_frames": 512, "offsets": [32, 64, 128, 256]}),
            "train": params.train.model_copy(update={"batch_size": 16}),
        }
    )


SETTINGS = {
    "committed": Setting("committed model, 64 mels x 256 frames", 1250, 64, 256, 16, as_committed),
    "resnet18": Setting("resnet18, 128 mels x 512 frames", 3751, 128, 64, 3, full_size),
}


def main() -> None:
    args = parse_arguments()
    device = pick_device()
    print(f"{describe(device)}, {torch.get_num_threads()} threads, {n_workers()} loading threads")
    tree = read_tree(ROOT / "params.yaml")
    committed = FitParams.model_validate({name: tree[name] for name in FitParams.model_fields})
    for setting in (SETTINGS[name] for name in args.settings):
        params = setting.change(committed)
        print(f"{setting.name}, batches of {params.train.batch_size}")
        with tempfile.TemporaryDirectory() as temporary:
            cache = MelCache.open(args.cache) if args.cache else make_cache(Path(temporary), setting)
            turns = make_turns(params, cache, Path(temporary), device)
            report(take_turns(turns, setting.n_steps, args.rounds), params.train.batch_size)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, help="folder with mel.npy and index.csv; noise if not given")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each loop")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    return parser.parse_args()


def make_cache(folder: Path, setting: Setting) -> MelCache:
    rng = np.random.default_rng(0)
    shape = setting.n_frames, setting.n_mels
    recordings = (
        EncodedRecording(f"r{i}", rng.integers(0, 256, shape, dtype=np.uint8), -80.0, 0.0)
        for i in range(setting.n_recordings)
    )
    write_cache(folder, recordings, setting.n_mels)
    return MelCache.open(folder)


def fold_data(cache: MelCache) -> FoldData:
    """One TP annotation in every recording."""
    rng = np.random.default_rng(1)
    n = len(cache)
    start = rng.integers(0, cache.n_frames - CALL_FRAMES)[:, None]
    species = rng.integers(0, N_SPECIES, (n, 1))
    is_fp, none = np.zeros((n, 1), dtype=bool), np.zeros(n, dtype=np.int64)
    return FoldData(
        frames=cache.frames,
        first_frame=cache.offsets,
        n_frames=cache.n_frames,
        annotations=Annotations(start, start + CALL_FRAMES, species, is_fp, none + 1, none),
        n_tp_annotations=np.bincount(species[:, 0], minlength=N_SPECIES),
        validation=none[:0],
        is_present=np.zeros((0, N_SPECIES), dtype=bool),
    )


Turn = Callable[[int], float]
"""Runs a number of steps; seconds per step."""


def make_turns(params: FitParams, cache: MelCache, folder: Path, device: torch.device) -> dict[str, Turn]:
    data = fold_data(cache)
    return {
        "ours": our_turn(params, data, device),
        "theirs": their_turn(params, data, cache, folder, device),
        "bare": bare_turn(params, data, device),
    }


def take_turns(turns: dict[str, Turn], n_steps: int, n_rounds: int) -> dict[str, list[float]]:
    step_s: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(n_rounds):
        for name, turn in turns.items():
            step_s[name].append(turn(n_steps))
    return step_s


def report(step_s: dict[str, list[float]], batch_size: int) -> None:
    for name, times in step_s.items():
        print(f"{name:>8}: {batch_size / np.median(times):7.1f} clips/s")
    print(f"  ours / theirs {ratio(step_s['theirs'], step_s['ours'])}")
    print(f"    ours / bare {ratio(step_s['bare'], step_s['ours'])}")


def ratio(slow: list[float], quick: list[float]) -> str:
    """Of neighbours in time: the median, and all of them."""
    ratios = np.array(slow) / np.array(quick)
    return f"{np.median(ratios):.2f} ({', '.join(f'{r:.2f}' for r in ratios)})"


def timed(steps: Iterable[Any], n_steps: int, device: torch.device) -> float:
    """Seconds per step, after two that are not timed."""
    iterator = iter(steps)
    for _ in range(2):
        next(iterator)
    synchronise(device)
    start = time.perf_counter()
    for _ in range(n_steps):
        next(iterator)
    synchronise(device)
    return (time.perf_counter() - start) / n_steps


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def learner_and_loss(params: FitParams, data: FoldData, device: torch.device) -> tuple[Learner, Loss]:
    loss = Loss(params.loss, count_to_weights(data.n_tp_annotations).to(device))
    return build_learner(params, 0, N_SPECIES, device), loss


def our_turn(params: FitParams, data: FoldData, device: torch.device) -> Turn:
    learner, loss = learner_and_loss(params, data, device)
    source = BatchSource(data, params, 0, device, n_workers())
    learner.model.train()

    def steps() -> Iterator[Any]:
        for batch in itertools.chain.from_iterable(source.epoch(epoch) for epoch in itertools.count()):
            yield train_step(learner, loss, batch, MIXUP[params.mixup.mode])

    return lambda n_steps: timed(steps(), n_steps, device)


def bare_turn(params: FitParams, data: FoldData, device: torch.device) -> Turn:
    learner, loss = learner_and_loss(params, data, device)
    batch = next(BatchSource(data, params, 0, device, 1).epoch(0))
    learner.model.train()

    def steps() -> Iterator[Any]:
        while True:
            yield train_step(learner, loss, batch, MIXUP[params.mixup.mode])

    return lambda n_steps: timed(steps(), n_steps, device)


class PlainModel(nn.Module):
    """Three equal channels, NCHW."""

    def __init__(self, params: FitParams) -> None:
        super().__init__()
        self.backbone = timm.create_model(
            params.model.backbone, num_classes=0, global_pool="", **params.model.backbone_args
        )
        self.head = AttentionHead(self.backbone.num_features, N_SPECIES, params.model)

    def forward(self, image: Tensor) -> SedOutput:
        output: SedOutput = self.head(self.backbone(image))
        return output


class PlainDataset(Dataset[tuple[Tensor, ...]]):
    """One recording per item, from a .npy of its own, changed on its own."""

    def __init__(self, params: FitParams, data: FoldData, paths: list[Path]) -> None:
        self.clip_frames = params.clip.n_frames
        self.offsets = params.clip.offsets
        self.augment = params.augment
        self.annotations = data.annotations
        self.paths = paths

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng(index)
        index %= len(self.paths)
        image = np.load(self.paths[index])  # (frames, mels)
        first, stop = (int(column[index, 0]) for column in self.annotations[:2])
        start = max((first + stop) // 2 - int(rng.choice(self.offsets)), 0)
        start = min(start, len(image) - self.clip_frames)
        clip = self.change(image[start : start + self.clip_frames], rng)
        frame = np.zeros((self.clip_frames, N_SPECIES), dtype=np.float32)
        frame[max(first - start, 0) : stop - start, self.annotations.species[index, 0]] = 1
        channels = (np.stack([clip] * 3) - MEAN) / STD
        return (
            torch.from_numpy(channels.astype(np.float32)),
            torch.from_numpy(frame.max(axis=0)),
            torch.from_numpy(frame),
        )

    def change(self, clip: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        if rng.random() < self.augment.brightness_contrast:
            clip = np.clip(clip * rng.uniform(0.8, 1.2) + rng.uniform(-0.2, 0.2), 0, 1)
        if rng.random() < self.augment.p:
            clip = np.clip(clip**2, 0, 1)
            for axis, bound in enumerate((self.augment.time_mask, self.augment.freq_mask)):
                start = rng.integers(clip.shape[axis] - bound)
                np.moveaxis(clip, axis, 0)[start : start + rng.integers(bound)] = 0
        return clip


def their_turn(
    params: FitParams, data: FoldData, cache: MelCache, folder: Path, device: torch.device
) -> Turn:
    paths = [folder / f"{recording_id}.npy" for recording_id in cache.recording_ids]
    for recording_id, path in zip(cache.recording_ids, paths, strict=True):
        np.save(path, cache.read(recording_id).astype(np.float32) / 255)
    model = PlainModel(params).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=params.optim.lr)
    loss = Loss(params.loss, count_to_weights(data.n_tp_annotations).to(device))
    dataset = PlainDataset(params, data, paths)

    rng = np.random.default_rng(0)

    def steps() -> Iterator[Any]:
        loader = DataLoader(dataset, params.train.batch_size, shuffle=False, num_workers=2)
        for columns in loader:
            image, clip, frame = (column.to(device) for column in columns)
            mixing = draw_mixing(params.mixup, len(image), rng)
            targets = mixing.blend_targets(Targets(clip, frame, clip, frame))
            total, _ = loss(model(mixing.blend(image)), targets)
            optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            yield total.item()

    return lambda n_steps: timed(steps(), n_steps, device)


if __name__ == "__main__":
    main()
