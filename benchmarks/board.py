"""Measure how long `callboard board` takes with many results, at first and again.

    python benchmarks/board.py --runs 500

Makes a workspace in a temporary folder: a git repository, an MLflow database with that many results of 110
parameters, each with five folds and their curves, and tables of scores in DVC's cache.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from callboard.params.defaults import flatten  # noqa: E402
from callboard.results.committed import key_of  # noqa: E402
from callboard.results.result import CLIPS, OUT_OF_FOLD, SUBMISSION  # noqa: E402
from tests.toy_git import ToyRepository  # noqa: E402

N_PARAMS, N_FOLDS, N_EPOCHS = 110, 5, 20
N_RECORDINGS, N_SPECIES = 240, 12
CURVES = ("loss", "lr", "val_lwlrap")
N_BASES, N_TABLES = 25, 60
"""Number of start commits and of different tables of scores; more would only take longer to make."""

INSERT_POINT = "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)"
INSERT_LATEST = (
    "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, 0, 0, ?)"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=500, help="number of results; default %(default)s")
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        os.environ["DVC_ROOT"] = folder
        make_workspace(Path(folder), args.runs)
        for what in ("first", "again", "once more"):
            print(f"{what}: {seconds(Path(folder)):.2f} s for {args.runs} results", flush=True)


def seconds(folder: Path) -> float:
    """Return the wall time of the command, including the start of Python."""
    code = "from callboard.cli import main; main()"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code, "board"],
        cwd=folder,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


def make_workspace(folder: Path, n_runs: int) -> None:
    """Make results that each start from one of the commits and change two parameters and the seed.

    The first are the results of these commits, so that all others have a base and a verdict.
    """
    rng = np.random.default_rng(0)
    repository = ToyRepository(folder)
    tables = [repository.cache_table(scores(rng)) for _ in range(N_TABLES)]
    clips = repository.cache(truth(rng).to_csv(index=False).encode())
    tree = {"seed": 1, "infer": {"blend": []}} | {f"p{k}": {"x": k} for k in range(N_PARAMS - 2)}
    commits = [
        repository.experiment(
            f"base{k}", {CLIPS: clips, OUT_OF_FOLD: tables[k], SUBMISSION: f"s{k}"}, tree | {"p1": {"x": -k}}
        )
        for k in range(N_BASES)
    ]
    shutil.copy(ROOT / "experiments.yaml", folder)
    (folder / "dvc.yaml").write_text("stages: {}\n")
    fill_database(folder / "mlflow.db", n_runs, commits, flatten(tree), tables, clips)


def scores(rng: np.random.Generator) -> pd.DataFrame:
    table = pd.DataFrame(rng.random((N_RECORDINGS, N_SPECIES)), columns=[f"s{k}" for k in range(N_SPECIES)])
    table.insert(0, "recording_id", [f"r{k:03}" for k in range(N_RECORDINGS)])
    return table


def truth(rng: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "recording_id": [f"r{k:03}" for k in range(N_RECORDINGS)],
            "species_id": rng.integers(N_SPECIES, size=N_RECORDINGS).astype(str),
            "label_type": "tp",
        }
    )


def fill_database(
    path: Path, n_runs: int, commits: list[str], params: dict[str, str], tables: list[str], clips: str
) -> None:
    """Write rows by SQL, since MLflow's client would take a quarter of an hour."""
    import sqlite3

    from mlflow import MlflowClient

    keys = [key_of(commit) for commit in commits]  # the first results are the bases of the others
    experiment = MlflowClient(f"sqlite:///{path}").create_experiment("callboard")
    rng = np.random.default_rng(1)
    with sqlite3.connect(path) as connection:
        for number in range(n_runs):
            run_id, start = f"{number:032x}", 1_700_000_000_000 + number * 60_000
            own = params | {"p1.x": str(-(number % N_BASES)), "p2.x": str(number // 50), "seed": str(number)}
            tags = {
                "callboard.key": keys[number] if number < N_BASES else f"{number:016x}",
                "callboard.kind": "cv",
                "callboard.oof_md5": tables[number % N_TABLES],
                "callboard.clips_md5": clips,
                "callboard.submission_md5": f"s{number}",
                "callboard.data_md5": "d",
                "git.commit": commits[number % N_BASES],
                "dvc.exp_name": f"exp{number:04}",
            }
            add_run(connection, experiment, run_id, f"exp{number:04}", start)
            connection.executemany(
                "INSERT INTO params VALUES (?, ?, ?)", [(key, text, run_id) for key, text in own.items()]
            )
            connection.executemany(
                "INSERT INTO tags VALUES (?, ?, ?)", [(key, text, run_id) for key, text in tags.items()]
            )
            metrics = {
                "cv.lwlrap": rng.random(),
                "cv.lwlrap_low": 0.4,
                "cv.lwlrap_high": 0.5,
                "lb.public": rng.random(),
            }
            add_metrics(connection, run_id, start, metrics)
            for fold in range(N_FOLDS):
                child = f"f{fold}{number:030x}"
                add_run(connection, experiment, child, f"r0-fold{fold}", start)
                connection.execute("INSERT INTO tags VALUES ('callboard.kind', 'fold', ?)", (child,))
                add_metrics(connection, child, start, dict.fromkeys(CURVES, 0.5))
                curve = [
                    (name, 0.5, start + epoch, child, epoch, 0)
                    for name in CURVES
                    for epoch in range(N_EPOCHS)
                ]
                connection.executemany(
                    INSERT_POINT,
                    curve,
                )


def add_run(connection, experiment: str, run_id: str, name: str, start: int) -> None:
    connection.execute(
        "INSERT INTO runs (run_uuid, name, source_type, status, start_time, lifecycle_stage, experiment_id) "
        "VALUES (?, ?, 'UNKNOWN', 'FINISHED', ?, 'active', ?)",
        (run_id, name, start, int(experiment)),
    )


def add_metrics(connection, run_id: str, start: int, metrics: dict[str, float]) -> None:
    connection.executemany(
        INSERT_LATEST,
        [(key, float(value), start, run_id) for key, value in metrics.items()],
    )


if __name__ == "__main__":
    main()
