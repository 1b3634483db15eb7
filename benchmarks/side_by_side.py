"""Measure how much faster folds are trained side by side than one after the other.

    python benchmarks/side_by_side.py --jobs 2
    python benchmarks/side_by_side.py --seeds 2

Trains the folds of params.yaml, with one seed or several, in clones of this repository in a temporary folder,
in turn: one after the other with as many threads as jobs, one after the other with one thread, and side by
side with one thread. Prints the time from the first training to the end of the last one, with all overhead of
copies and of DVC. No ratio can exceed what the machine gives: that of bare trainings, without copies or DVC,
one alone against several at once, is printed first.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

ROOT = Path(__file__).parent.parent
SIDE_BY_SIDE = """
from callboard.experiments.jobs.options import JobOptions
from callboard.experiments.side_by_side import Planned, run_side_by_side
overrides = {overrides}
folds = [Planned(f"seed{{seed}}", (), overrides[seed].copy, lambda *_: 0) for seed in range(len(overrides))]
run_side_by_side(folds, JobOptions(n_jobs={jobs}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=2, help="folds at a time; default %(default)s")
    parser.add_argument(
        "--seeds", type=int, default=1, help="times all folds are trained; default %(default)s"
    )
    parser.add_argument("--repeats", type=int, default=1, help="default %(default)s")
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        bare = bare_ratio(Path(folder), args.jobs)
        print(f"{args.jobs} bare trainings at once do {bare:.2f} times the work of one", flush=True)
        for _ in range(args.repeats):
            many = serial(Path(folder), args.seeds, args.jobs)
            one = serial(Path(folder), args.seeds, 1)
            side = side_by_side(Path(folder), args.seeds, args.jobs)
            print(
                f"one after the other: {many:.0f} s with {args.jobs} threads, {one:.0f} s with one; "
                f"{args.jobs} side by side: {side:.0f} s; ratios {many / side:.2f} and {one / side:.2f}",
                flush=True,
            )


def overrides(seed: int, n_threads: int) -> list[str]:
    """Return overrides of params.yaml."""
    return [f"seed={seed}", f"train.threads={n_threads}"]


def serial(folder: Path, n_seeds: int, n_threads: int) -> float:
    """Return the seconds that `dvc repro` takes for all folds."""
    clone, seconds = new_clone(folder), 0.0
    for seed in range(n_seeds):
        settings = [text for override in overrides(seed, n_threads) for text in ("--set-param", override)]
        run(clone, sys.executable, "-m", "dvc", "exp", "run", *settings, "split")
        start = time.perf_counter()
        run(clone, sys.executable, "-m", "dvc", "repro", "train")
        seconds += time.perf_counter() - start
    return seconds


def side_by_side(folder: Path, n_seeds: int, n_jobs: int) -> float:
    """Return the seconds that all folds take in copies, with what comes before them in DVC's cache."""
    clone = new_clone(folder)
    run(clone, sys.executable, "-m", "dvc", "repro", "split")
    of_seeds = [overrides(seed, 1) for seed in range(n_seeds)]
    start = time.perf_counter()
    run(clone, sys.executable, "-c", SIDE_BY_SIDE.format(overrides=of_seeds, jobs=n_jobs))
    return time.perf_counter() - start


def bare_ratio(folder: Path, n_jobs: int) -> float:
    """Return how much more several trainings at once do than one alone, one thread each."""
    clone = new_clone(folder)
    run(clone, sys.executable, "-m", "dvc", "repro", "split")
    command = yaml.safe_load((clone / "dvc.yaml").read_text())["stages"]["train"]["cmd"].split()
    trainings = [[word.replace("${item.fold}", str(fold)) for word in command] for fold in range(n_jobs)]
    seconds = []
    for at_once in (trainings[:1], trainings):
        start = time.perf_counter()
        with ThreadPoolExecutor(len(at_once)) as pool:
            list(pool.map(lambda words: run(clone, *words), at_once))
        seconds.append(time.perf_counter() - start)
    return n_jobs * seconds[0] / seconds[1]


def new_clone(folder: Path) -> Path:
    """Clone this repository, with an empty cache."""
    clone = folder / f"clone{len(list(folder.iterdir()))}"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    return clone


def run(clone: Path, *command: str, keep: Sequence[str] = ()) -> None:
    """Run a command in a clone, without variables that belong to other commands, except those to keep."""
    foreign = ("DVC_", "MLFLOW_", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "OMP_")
    clean = {
        name: value for name, value in os.environ.items() if name in keep or not name.startswith(foreign)
    }
    paths = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(clone / "src")}
    done = subprocess.run(
        command, cwd=clone, env=clean | paths, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}:\n{done.stdout[-3000:]}")


if __name__ == "__main__":
    main()
