"""Measure how fast this machine's GPU trains folds of the full recipe, alone and several at a time on a card.

    python benchmarks/gpu.py                                                      # takes under 5 minutes
    python benchmarks/gpu.py --device cpu --recordings 20 --seconds 5 --folds 1   # its logic, without a GPU

The frames are noise, as many as those of the competition's training set; the network starts from random
weights. Bare: `train_step` on one fixed batch. Folds: steps as `fit` runs them, with gathering, augmentation,
targets and mixup on the device, in one process for each fold. Start-up is not timed. The projected minutes
are those of all epochs of all folds on one card, without validation. Needs an otherwise idle card.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.train import OURS, bare_steps, fold_data, our_steps, synchronise  # noqa: E402
from callboard.core.console import counted  # noqa: E402
from callboard.core.threads import VARIABLE, n_workers  # noqa: E402
from callboard.experiments.presets import read_preset, with_values  # noqa: E402
from callboard.model.device import DEVICES, computed_on, use_threads  # noqa: E402
from callboard.params.base import read_tree  # noqa: E402
from callboard.params.defaults import with_defaults  # noqa: E402
from callboard.training.fit import FitParams  # noqa: E402
from callboard.training.fold_data import FoldData  # noqa: E402
from callboard.training.sampling import batch_bounds  # noqa: E402

N_RECORDINGS = 4727
"""Recordings of the competition's training set."""

SHOWN = 1132 / 4727 * 4 / 5
"""Share of them that the training part of a fold shows: those with a confirmed box, in four of five folds."""

RECORDING_S = 60
N_WARM_UP, N_STEPS = 5, 5
"""Steps before the measurement, and between looks at the clock."""


class Recipe(NamedTuple):
    """What to train, on how much data."""

    params: FitParams
    n_folds: int
    n_frames: int
    """Frames of a recording."""
    n_mels: int
    n_recordings: int

    @property
    def n_shown(self) -> int:
        return max(round(self.n_recordings * SHOWN), 1)

    @property
    def clips_per_epoch(self) -> int:
        return self.n_shown + self.params.train.fp_per_epoch

    def clips_per_step(self, kind: str) -> float:
        """Return the clips of the bare step's batch, or the mean over an epoch's, whose last is shorter."""
        bounds = batch_bounds(self.n_shown, self.params.train.batch_size)
        return bounds[0].stop if kind == "bare" else self.n_shown / len(bounds)


class Measured(NamedTuple):
    """Measurement of one process."""

    clips_per_s: float
    used_gb: float
    """Memory in use on the whole card; NaN on a CPU."""


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    device = torch.device(args.device)
    if not DEVICES[args.device]():
        print(f"no {args.device} device here: torch {torch.__version__} finds none", file=sys.stderr)
        return 1
    recipe = read_recipe(args.preset, args.recordings)
    if args.child:
        answer(recipe, args.child, device, args.seconds)
        return 0
    print(f"{computed_on(device, recipe.n_mels)}; {counted(n_workers(), 'processor')}")
    for line in report(recipe, device, args.folds, lambda kind, n: run_processes(args, kind, n)):
        print(line, flush=True)
    return 0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=DEVICES, default="cuda", help="default: %(default)s")
    parser.add_argument(
        "--folds", type=int, nargs="+", default=[1, 2, 4], help="numbers of folds at a time; default 1 2 4"
    )
    parser.add_argument("--seconds", type=float, default=15, help="of each turn; default %(default)s")
    parser.add_argument("--recordings", type=int, default=N_RECORDINGS, help="default %(default)s")
    parser.add_argument(
        "--preset", type=Path, default=ROOT / "presets/rfcx.yaml", help="recipe; default %(default)s"
    )
    parser.add_argument("--child", choices=TURNS, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def read_recipe(preset: Path, n_recordings: int) -> Recipe:
    """Return params.yaml with the values of a preset, but with random weights, which train as fast."""
    values = read_preset(preset) | {"model.pretrained": False}
    tree = with_defaults(with_values(read_tree(ROOT / "params.yaml"), values))
    return Recipe(
        params=FitParams.model_validate({name: tree[name] for name in FitParams.model_fields}),
        n_folds=len(tree["split"]["folds"]),
        n_frames=RECORDING_S * tree["audio"]["sample_rate"] // tree["features"]["hop_length"] + 1,
        n_mels=tree["features"]["n_mels"],
        n_recordings=n_recordings,
    )


def noise(recipe: Recipe) -> FoldData:
    """Return a fold with frames of all recordings, of which an epoch shows `n_shown`."""
    shape = recipe.n_recordings * recipe.n_frames, recipe.n_mels
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    first = np.linspace(0, recipe.n_recordings - 1, recipe.n_shown).astype(np.int64) * recipe.n_frames
    return fold_data(frames, first, np.full(recipe.n_shown, recipe.n_frames))


TURNS: dict[str, Callable[..., Iterator[Any]]] = {"bare": bare_steps, "folds": our_steps}


def steps_of(recipe: Recipe, kind: str, device: torch.device) -> Iterator[Any]:
    """Return the steps of a turn after those that warm up."""
    use_threads(recipe.params.train.threads)
    steps = TURNS[kind](recipe.params, noise(recipe), [], device)
    for _ in range(N_WARM_UP):
        next(steps)
    synchronise(device)
    return steps


def measure(clips_per_step: float, steps: Iterator[Any], device: torch.device, seconds: float) -> Measured:
    """Take steps for some seconds."""
    start, n_steps = time.perf_counter(), 0
    while (elapsed_s := time.perf_counter() - start) < seconds or not n_steps:
        for _ in range(N_STEPS):
            next(steps)
        synchronise(device)
        n_steps += N_STEPS
    free, total = torch.cuda.mem_get_info() if device.type == "cuda" else (math.nan, math.nan)
    return Measured(n_steps * clips_per_step / elapsed_s, (total - free) / 1e9)


def answer(recipe: Recipe, kind: str, device: torch.device, seconds: float) -> None:
    """Measure when told to on standard input, and stay until it ends, so that others see the memory."""
    try:
        steps = steps_of(recipe, kind, device)
        print("ready", flush=True)
        if sys.stdin.readline():
            print(json.dumps(measure(recipe.clips_per_step(kind), steps, device, seconds)), flush=True)
    except RuntimeError as error:  # a card too full for the process itself raises no OutOfMemoryError
        if "out of memory" not in str(error):
            raise
        print("out of memory", flush=True)
    sys.stdin.read()
    os._exit(0)  # does not wait for loading threads


def run_processes(args: argparse.Namespace, kind: str, n: int) -> list[Measured] | None:
    """Measure in `n` processes at once; None if memory does not suffice."""
    own = {VARIABLE: str(max(n_workers() // n, 1))} | OURS
    same = ("device", "seconds", "recordings", "preset")
    options = [text for name in same for text in (f"--{name}", str(getattr(args, name)))]
    command = [sys.executable, __file__, "--child", kind, *options]
    with ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(
                    command, env=os.environ | own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(n)
        ]
        if not all(line == "ready\n" for line in said_by(children)):
            return None
        for child in children:
            assert child.stdin
            child.stdin.write("go\n")
            child.stdin.flush()
        lines = said_by(children)
    return None if "out of memory\n" in lines else [Measured(*json.loads(line)) for line in lines]


def said_by(children: Sequence["subprocess.Popen[str]"]) -> list[str]:
    """Return a line of each child; the end of one that failed ends this process."""
    lines = [child.stdout.readline() for child in children if child.stdout]
    if not all(lines):
        for child in children:
            child.kill()
        sys.exit("a process failed")
    return lines


def report(
    recipe: Recipe,
    device: torch.device,
    numbers: Sequence[int],
    run: Callable[[str, int], list[Measured] | None],
) -> Iterator[str]:
    """Yield lines about the bare step, about numbers of folds at a time, and about the best of these."""
    train = recipe.params.train
    yield (
        f"{recipe.params.model.backbone}, batches of {train.batch_size}, {recipe.clips_per_epoch} clips an "
        f"epoch, {counted(recipe.n_folds, 'fold')} of {counted(train.epochs, 'epoch')}"
    )
    if not (bare := run("bare", 1)):
        yield "bare step: memory does not suffice"
        return
    yield f"bare step: {bare[0].clips_per_s:.0f} clips/s"
    rates: dict[int, float] = {}
    for n in numbers:
        if not (found := run("folds", n)):
            yield f"{counted(n, 'fold')} at a time: memory does not suffice"
            break
        rates[n] = sum(one.clips_per_s for one in found)
        memory = f", {found[-1].used_gb / n:.1f} GB of the card each" if device.type == "cuda" else ""
        yield (
            f"{counted(n, 'fold')} at a time: {rates[n]:.0f} clips/s in all, "
            f"{rates[n] / bare[0].clips_per_s:.2f} of the bare step{memory}"
        )
    if rates:
        best = max(rates, key=lambda n: rates[n])
        minutes = recipe.n_folds * train.epochs * recipe.clips_per_epoch / rates[best] / 60
        yield (
            f"best: {counted(best, 'fold')} at a time on a card (--gpus-per-job {1 / best:g}); "
            f"the full recipe takes {minutes:.1f} minutes of the card"
        )


if __name__ == "__main__":
    sys.exit(main())
