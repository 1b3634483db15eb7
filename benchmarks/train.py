"""Compare the training loop with the usual loop and with the bare model step, in alternation.

    PYTHONPATH=src python benchmarks/train.py [--cache data/mel/train] [--rounds 5]

Ours: BatchSource and train_step, as `fit` runs them. Theirs: a DataLoader with two processes over float32
.npy files, one per recording, each item loaded whole, cropped, augmented and stacked to three channels; the
same backbone, head, loss and batch size in float32 NCHW. Bare: train_step on one fixed batch. Every turn is a
separate process, ours set up as by the train stage; start-up is not timed.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil  # type: ignore[import-untyped]
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from callboard.core.threads import n_workers
from callboard.features.frame_cache import EncodedRecording, MelCache, write_cache
from callboard.features.normalisation import MEAN, STD
from callboard.model.device import (
    describe_device,
    keep_freed_memory,
    pick_device,
)
from callboard.model.heads import AttentionHead, SedOutput
from callboard.params.base import read_tree
from callboard.training.batches import BatchSource, on_device
from callboard.training.fit import FitParams, Learner, build_learner, train_step
from callboard.training.fold_data import CONFIRMED, Annotations, FoldData
from callboard.training.losses.terms import Loss
from callboard.training.mixup import MIXUP, draw_mixing
from callboard.training.targets import Targets

ROOT = Path(__file__).resolve().parent.parent
N_SPECIES = 24
CALL_FRAMES = 60
N_WARM_UP = 3


class Setting(NamedTuple):
    """A model and an amount of data to train it on."""

    name: str
    n_frames: int
    n_mels: int
    n_recordings: int
    n_steps: int
    change: Callable[[FitParams], FitParams]
    """Function from the committed parameters to those of this setting."""


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
    if args.child:
        take_turn(args)
        return
    device = pick_device()
    print(f"{describe_device(device)}, {torch.get_num_threads()} threads, {n_workers()} loading threads")
    for name in args.settings:
        setting, params = SETTINGS[name], params_of(name)
        print(f"{setting.name}, batches of {params.train.batch_size}")
        with tempfile.TemporaryDirectory() as temporary:
            folder = args.cache or make_cache(Path(temporary), setting)
            write_npy(MelCache.open(folder), Path(temporary))
            report(measure(name, folder, Path(temporary), args.rounds), params.train.batch_size)


def params_of(setting: str) -> FitParams:
    tree = read_tree(ROOT / "params.yaml")
    committed = FitParams.model_validate({name: tree[name] for name in FitParams.model_fields})
    return SETTINGS[setting].change(committed)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, help="folder with packs and index.csv; default: noise")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each loop; default %(default)s")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--child", choices=TURNS, help=argparse.SUPPRESS)
    parser.add_argument("--npy", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def make_cache(folder: Path, setting: Setting) -> Path:
    rng = np.random.default_rng(0)
    shape = setting.n_frames, setting.n_mels
    recordings = (
        EncodedRecording(f"r{i}", rng.integers(0, 256, shape, dtype=np.uint8), -80.0, 0.0)
        for i in range(setting.n_recordings)
    )
    write_cache(folder, recordings, setting.n_mels)
    return folder


def write_npy(cache: MelCache, folder: Path) -> None:
    for recording_id in cache.recording_ids:
        np.save(folder / f"{recording_id}.npy", cache.read(recording_id).astype(np.float32) / 255)


def fold_data(
    frames: NDArray[np.uint8], first_frame: NDArray[np.int64], n_frames: NDArray[np.int64]
) -> FoldData:
    """Build the data of a fold with one TP annotation in every recording.

    Args:
        frames: (total_frames, mels).
        first_frame: (recordings,) first frame of each recording in `frames`.
        n_frames: (recordings,) length of each recording.
    """
    rng = np.random.default_rng(1)
    n = len(n_frames)
    start = rng.integers(0, n_frames - CALL_FRAMES)[:, None]
    species = rng.integers(0, N_SPECIES, (n, 1))
    low, high = np.zeros((n, 1), dtype=np.int64), np.full((n, 1), frames.shape[1])
    verdict, none = np.full((n, 1), CONFIRMED), np.zeros(n, dtype=np.int64)
    return FoldData(
        frames=frames,
        first_frame=first_frame,
        n_frames=n_frames,
        annotations=Annotations(
            start, start + CALL_FRAMES, low, high, species, verdict, none + 1, none, none, none
        ),
        n_tp_annotations=np.bincount(species[:, 0], minlength=N_SPECIES),
        class_species=np.arange(N_SPECIES),
        validation=none[:0],
        is_present=np.zeros((0, N_SPECIES), dtype=bool),
    )


Measurement = dict[str, float]
"""step_s and cpu_s: seconds and seconds of processor time per step."""


def measure(setting: str, cache: Path, npy: Path, n_rounds: int) -> dict[str, list[Measurement]]:
    """Run the turns in separate processes, one after another."""
    found: dict[str, list[Measurement]] = {name: [] for name in TURNS}
    for _ in range(n_rounds):
        for name in TURNS:
            options = ["--child", name, "--settings", setting, "--cache", str(cache), "--npy", str(npy)]
            environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"} | ENVIRONMENTS[name]
            done = subprocess.run(
                [sys.executable, __file__, *options], env=environment, stdout=subprocess.PIPE, check=True
            )
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    return found


def take_turn(args: argparse.Namespace) -> None:
    name = args.settings[0]
    device, params, cache = pick_device(), params_of(name), MelCache.open(args.cache)
    data = fold_data(cache.frames, cache.offsets, cache.n_frames)
    paths = [args.npy / f"{i}.npy" for i in cache.recording_ids]
    steps = iter(TURNS[args.child](params, data, paths, device))
    for _ in range(N_WARM_UP):
        next(steps)
    synchronise(device)
    start, start_cpu = time.perf_counter(), cpu_time_s()
    for _ in range(SETTINGS[name].n_steps):
        next(steps)
    synchronise(device)
    step_s = (time.perf_counter() - start) / SETTINGS[name].n_steps
    print(json.dumps({"step_s": step_s, "cpu_s": (cpu_time_s() - start_cpu) / SETTINGS[name].n_steps}))
    os._exit(0)  # does not wait for loading processes


def cpu_time_s() -> float:
    """Return the processor time of this process and its loading processes."""
    this = psutil.Process()
    used = (process.cpu_times() for process in [this, *this.children()])
    return float(sum(times.user + times.system for times in used))


def report(found: dict[str, list[Measurement]], batch_size: int) -> None:
    for name, turns in found.items():
        step_s, cpu_s = (np.median([turn[key] for turn in turns]) for key in ("step_s", "cpu_s"))
        cpu_ms = 1000 * cpu_s / batch_size
        print(f"{name:>8}: {batch_size / step_s:7.1f} clips/s, {cpu_ms:.1f} ms of processor time per clip")
    for slow, label in (("theirs", "ours / theirs"), ("bare", "ours / bare")):
        speed, cpu = (ratio(found[slow], found["ours"], key) for key in ("step_s", "cpu_s"))
        print(f"  {label}: {speed} in clips/s, {cpu} in processor time (steadier when busy)")


def ratio(slow: list[Measurement], quick: list[Measurement], key: str) -> str:
    """Format the ratios of turns that follow each other: the median, and each."""
    ratios = [a[key] / b[key] for a, b in zip(slow, quick, strict=True)]
    return f"{np.median(ratios):.2f} ({', '.join(f'{r:.2f}' for r in ratios)})"


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def learner_and_loss(params: FitParams, data: FoldData, device: torch.device) -> tuple[Learner, Loss]:
    loss = Loss(params.loss, torch.as_tensor(data.n_tp_annotations, device=device))
    return build_learner(params, 0, N_SPECIES, device), loss


def our_steps(params: FitParams, data: FoldData, paths: list[Path], device: torch.device) -> Iterator[Any]:
    keep_freed_memory()
    learner, loss = learner_and_loss(params, data, device)
    source = BatchSource(on_device(data, device), params, 0, device, n_workers())
    learner.model.train()
    for batch in itertools.chain.from_iterable(source.epoch(epoch) for epoch in itertools.count()):
        yield train_step(learner, loss, batch, MIXUP[params.mixup.mode])


def bare_steps(params: FitParams, data: FoldData, paths: list[Path], device: torch.device) -> Iterator[Any]:
    keep_freed_memory()
    learner, loss = learner_and_loss(params, data, device)
    batch = next(BatchSource(data, params, 0, device, 1).epoch(0))
    learner.model.train()
    while True:
        yield train_step(learner, loss, batch, MIXUP[params.mixup.mode])


class PlainModel(nn.Module):
    """The usual model: three equal channels, NCHW."""

    def __init__(self, params: FitParams) -> None:
        super().__init__()
        backbone = timm.create_model(
            params.model.backbone, num_classes=0, global_pool="", **params.model.backbone_args
        )
        self.backbone = backbone
        self.head = AttentionHead(backbone.num_features, N_SPECIES, params.model)

    def forward(self, image: Tensor) -> SedOutput:
        output: SedOutput = self.head(self.backbone(image))
        return output


class PlainDataset(Dataset[tuple[Tensor, ...]]):
    """The usual dataset: each item is a recording, read from its .npy and augmented alone."""

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


def their_steps(params: FitParams, data: FoldData, paths: list[Path], device: torch.device) -> Iterator[Any]:
    model = PlainModel(params).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=params.optim.lr)
    loss = Loss(params.loss, torch.as_tensor(data.n_tp_annotations, device=device))
    rng = np.random.default_rng(0)
    loader = DataLoader(PlainDataset(params, data, paths), params.train.batch_size, num_workers=2)
    for columns in loader:
        image, clip, frame = (column.to(device) for column in columns)
        mixing = draw_mixing(params.mixup, len(image), rng, device)
        band = clip.new_zeros((len(clip), 0, N_SPECIES))  # no term of the committed loss uses it
        targets = mixing.blend_targets(Targets(clip, frame, clip, frame, band, band))
        total, _ = loss(model(mixing.blend(image)), targets)
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield total.item()


TURNS: dict[str, Callable[[FitParams, FoldData, list[Path], torch.device], Iterator[Any]]] = {
    "ours": our_steps,
    "theirs": their_steps,
    "bare": bare_steps,
}

OURS = {"OMP_WAIT_POLICY": "PASSIVE"}
ENVIRONMENTS: dict[str, dict[str, str]] = {"ours": OURS, "theirs": {}, "bare": OURS}

if __name__ == "__main__":
    main()
