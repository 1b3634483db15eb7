"""Measure how much faster folds are trained side by side than one after the other.

    python benchmarks/side_by_side.py --jobs 2

Trains the folds of params.yaml in clones of this repository in a temporary folder, in turn: one after the
other with as many threads as jobs, one after the other with one thread, and side by side with one thread.
Prints the time from the first training to the end of the last one, with all overhead of copies and of DVC.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
THREADS = "train.threads={}"
SIDE_BY_SIDE = """
from callboard.experiments.jobs.options import JobOptions
from callboard.experiments.side_by_side import Planned, run_side_by_side
folds = Planned("folds", (), lambda: ["{threads}"], lambda overrides: 0)
run_side_by_side([folds], JobOptions(n_jobs={jobs}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=2, help="folds at a time; default %(default)s")
    parser.add_argument("--repeats", type=int, default=1, help="default %(default)s")
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        for _ in range(args.repeats):
            many = serial(Path(folder), args.jobs)
            one = serial(Path(folder), 1)
            side = side_by_side(Path(folder), args.jobs)
            print(
                f"one after the other: {many:.0f} s with {args.jobs} threads, {one:.0f} s with one; "
                f"{args.jobs} side by side: {side:.0f} s; ratios {many / side:.2f} and {one / side:.2f}",
                flush=True,
            )


def serial(folder: Path, n_threads: int) -> float:
    """Return the seconds that `dvc repro` takes for all folds."""
    clone = new_clone(folder)
    run(clone, sys.executable, "-m", "dvc", "exp", "run", "--set-param", THREADS.format(n_threads), "split")
    start = time.perf_counter()
    run(clone, sys.executable, "-m", "dvc", "repro", "train")
    return time.perf_counter() - start


def side_by_side(folder: Path, n_jobs: int) -> float:
    """Return the seconds that all folds take in copies, with what comes before them in DVC's cache."""
    clone = new_clone(folder)
    run(clone, sys.executable, "-m", "dvc", "repro", "split")
    start = time.perf_counter()
    run(clone, sys.executable, "-c", SIDE_BY_SIDE.format(threads=THREADS.format(1), jobs=n_jobs))
    return time.perf_counter() - start


def new_clone(folder: Path) -> Path:
    """Clone this repository, with an empty cache."""
    clone = folder / f"clone{len(list(folder.iterdir()))}"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    return clone


def run(clone: Path, *command: str) -> None:
    foreign = ("DVC_", "MLFLOW_", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "OMP_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    paths = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(clone / "src")}
    done = subprocess.run(
        command, cwd=clone, env=clean | paths, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}:\n{done.stdout[-3000:]}")


if __name__ == "__main__":
    main()
