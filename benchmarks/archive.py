"""Score many short recordings on Ray, with a worker killed every minute, and compare with one process.

    python benchmarks/archive.py --recordings 20000 --kill-every 60

The networks are five of params.yaml, with random weights. Both runs include the start of everything but the
import of packages in this process. In the end, both folders of predictions must have the same tables. Then it
projects the rate to 100,000 h of sound in recordings of 60 s, which it measures with a few of that length.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from callboard.core.console import duration, peak_memory_mb
from callboard.data.archive import list_archive, plan_shards
from callboard.experiments.jobs.options import JobOptions
from callboard.model.detector import build_model
from callboard.model.device import use_threads
from callboard.model.weights import LoadedModel, WeightsParams
from callboard.params.base import Params, load_params
from callboard.params.features import FrontEndParams
from callboard.params.scoring import InferParams
from callboard.scoring.detector import Detector, Networks
from callboard.scoring.parts import ScoreParams
from callboard.scoring.predict import TorchRunner
from callboard.scoring.predictions import Predictions, Tally
from callboard.scoring.set_scores import PREDICTION_TABLES
from callboard.scoring.shard_engines import made_shards
from tests.toy_cluster import tasks_of_ray

N_FOLDS, N_SPECIES, RATE = 5, 24, 24000
PER_FOLDER = 500
FLOOR = 0.1
LONG_S, N_LONG, ARCHIVE_HOURS = 60, 64, 100_000


class OfInfer(Params):
    infer: InferParams


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recordings", type=int, default=20_000, help="default %(default)s")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each; default %(default)s")
    parser.add_argument("--kill-every", type=float, default=60.0, metavar="S", help="default %(default)s")
    parser.add_argument("--skip-one-process", action="store_true", help="compare with nothing")
    args = parser.parse_args()
    use_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_recordings(folder / "short", args.recordings, args.seconds)
        write_recordings(folder / "long", N_LONG, LONG_S)
        detector = random_detector()
        found = {}
        for name, options in (("one", JobOptions()), ("ray", JobOptions("ray", cpus=1))):
            if name == "ray" or not args.skip_one_process:
                found[name] = predict(options, detector, folder / "short", folder / name, args.kill_every)
        if len(found) == 2:
            print(f"Ray takes {found['ray'] / found['one']:.2f} of the time of one process")
            print("tables are equal" if are_equal(folder / "one", folder / "ray") else "TABLES DIFFER")
        seconds = predict(JobOptions(), detector, folder / "long", folder / "long_scores", 0)
        hours = ARCHIVE_HOURS * seconds / (N_LONG * LONG_S)
        print(f"{ARCHIVE_HOURS} h in recordings of {LONG_S} s would take this machine {hours:.0f} h")


def write_recordings(folder: Path, n_recordings: int, seconds: float) -> None:
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.standard_normal(round((seconds + 1) * RATE)).astype(np.float32)
    for number in range(n_recordings):
        path = folder / f"site{number // PER_FOLDER:03d}/{number:06d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        start = rng.integers(RATE)
        soundfile.write(path, noise[start : start + round(seconds * RATE)], RATE)


def random_detector() -> Detector:
    params, cpu = load_params(WeightsParams), torch.device("cpu")
    species = [str(number) for number in range(N_SPECIES)]
    torch.manual_seed(0)
    models = [
        LoadedModel(
            build_model(params.model.blank, N_SPECIES).eval().to(cpu), species, fold, params.clip, frozenset()
        )
        for fold in range(N_FOLDS)
    ]
    score = load_params(ScoreParams)
    networks = Networks(
        load_params(FrontEndParams),
        score,
        load_params(OfInfer).infer,
        models,
        tuple(map(str, range(N_FOLDS))),
        TorchRunner(score, cpu),
    )
    return Detector("random@0", species, [networks], [1.0], None, None)


def predict(options: JobOptions, detector: Detector, sounds: Path, output: Path, kill_every: float) -> float:
    """Print the pace, and return the seconds."""
    killer = Killer(kill_every if options.place == "ray" else 0)
    start = time.monotonic()
    files = list_archive([sounds])
    predictions = Predictions(output, detector, FLOOR)
    shards = list(plan_shards(predictions.missing(files)))
    with killer, made_shards(options, predictions, shards) as totals:
        tally = Tally.of(totals)
    seconds = time.monotonic() - start
    assert tally.n_recordings == len(files)
    assert not tally.n_skipped
    print(
        f"{output.name}: {len(files)} recordings in {seconds:.0f} s ({len(files) / seconds:.1f} a second), "
        f"{duration(tally.sound_s)} of sound, {killer.n_kills} kills, peak memory {peak_memory_mb():.0f} MB",
        flush=True,
    )
    return seconds


class Killer:
    """Kills a process of Ray that scores a shard, again and again."""

    def __init__(self, every_s: float) -> None:
        self.n_kills, self._every_s, self._end = 0, every_s, threading.Event()
        self._thread = threading.Thread(target=self._kill)

    def __enter__(self) -> None:
        if self._every_s:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._every_s:
            self._thread.join()

    def _kill(self) -> None:
        while not self._end.wait(self._every_s):
            if victims := tasks_of_ray("_score"):
                try:
                    random.choice(victims).kill()
                    self.n_kills += 1
                except psutil.NoSuchProcess:
                    continue


def are_equal(one: Path, other: Path) -> bool:
    return all(table(one / name).equals(table(other / name)) for name in PREDICTION_TABLES)


def table(folder: Path) -> pd.DataFrame:
    content = pd.read_parquet(folder)
    return content.sort_values([name for name in content if name != "score"], ignore_index=True)


if __name__ == "__main__":
    main()
