"""Measure how long `callboard sync` takes for many results: into a missing database, and again.

Run from the project: `python benchmarks/sync.py`. Needs git and about 20 MB in the temporary folder.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
N_FOLDS, N_EPOCHS = 5, 20

sys.path.insert(0, str(ROOT / "src"))


def main() -> None:
    """Make a repository of toy results and time two synchronisations of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=int, default=100, help="number of results; default %(default)s")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_repository(root, args.results)
        os.environ["DVC_ROOT"] = str(root)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        for _ in range(2):
            command = [sys.executable, "-c", "from callboard.cli import main; main()", "sync"]
            environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
            subprocess.run(command, cwd=root, env=environment, check=True)


def make_repository(root: Path, n_results: int) -> None:
    """Make a baseline and `n_results` experiments on it by `git fast-import`."""
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main"], cwd=root, check=True)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["split"]["folds"] = list(range(N_FOLDS))
    params["pseudo"]["rounds"] = 0
    baseline = {
        "dvc.yaml": "stages: {}\n",
        "leaderboard.csv": (ROOT / "leaderboard.csv").read_text(encoding="utf-8").splitlines()[0] + "\n",
        "params.yaml": yaml.dump(params),
    }
    for name, text in baseline.items():
        (root / name).write_text(text, encoding="utf-8")
    stream = ["reset refs/heads/main", *commit("refs/heads/main", 0, baseline)]
    _import(root, stream)
    head = subprocess.run(["git", "rev-parse", "main"], cwd=root, capture_output=True, text=True, check=True)
    start = head.stdout.strip()
    stream = []
    for number in range(n_results):
        ref = f"refs/exps/{start[:2]}/{start[2:]}/toy{number:04d}"
        stream += commit(ref, number + 1, files_of(number, params), start)
    _import(root, stream)


def files_of(number: int, params: dict[str, Any]) -> dict[str, str]:
    """Return the files of a result's commit; its seed is its number."""
    params = params | {"seed": number}
    files = {
        "params.yaml": yaml.dump(params),
        "metrics/cv.json": f'{{"cv": {{"lwlrap": 0.{number:04d}, "fold_mean": 0.5, "macro_ap": 0.4}}}}',
        "metrics/lb.json": '{"lb": {"public": 0.6, "private": 0.5}}',
    }
    for fold in range(N_FOLDS):
        rows = [f"{epoch},0.001,{1 / (epoch + 1):.4f},0.5" for epoch in range(N_EPOCHS)]
        files[f"plots/train/r0-fold{fold}.csv"] = "\n".join(["epoch,lr,loss,val_lwlrap", *rows]) + "\n"
    return files | {"dvc.lock": yaml.dump({"schema": "2.0", "stages": lock_of(number, params)})}


def lock_of(number: int, params: dict[str, Any]) -> dict[str, Any]:
    """Return stages with realistic names, folds and parameters, so that reading them takes as long."""

    def stage(deps: list[str], outs: list[str], names: list[str]) -> dict[str, Any]:
        held = {"params": {"params.yaml": {name: params[name] for name in names}}} if names else {}
        return {
            "cmd": "python -m stages.x",
            "deps": [{"path": path, "hash": "md5", "md5": md5(path, number)} for path in deps],
            **held,
            "outs": [{"path": path, "hash": "md5", "md5": md5(path, number)} for path in outs],
        }

    trains = {
        f"train@{fold}": stage(
            ["data/clips.csv", "data/folds.csv"],
            [f"models/r0/fold{fold}.pt", f"plots/train/r0-fold{fold}.csv"],
            ["seed", "loss", "model", "train", "augment", "mixup", "optim", "sched"],
        )
        for fold in range(N_FOLDS)
    }
    return {
        "prepare": stage([], ["data/source"], ["data", "audio"]),
        "crop": stage(["data/source"], ["data/clips.csv"], ["clip", "features"]),
        "split": stage(["data/clips.csv"], ["data/folds.csv"], ["split"]),
        **trains,
        "predict": stage(["models/r0"], ["scores/r0"], ["predict"]),
        "evaluate": stage(["scores/r0/oof.npz"], ["scores/oof.csv", "metrics/cv.json"], ["evaluate"]),
        "infer": stage(["scores/r0/test.npz"], ["submission/submission.csv"], ["infer"]),
        "score": stage(["submission/submission.csv"], ["metrics/lb.json"], []),
    }


def md5(path: str, number: int) -> str:
    """Return the md5 of a toy output."""
    return hashlib.md5(f"{path}{number}".encode(), usedforsecurity=False).hexdigest()


def commit(ref: str, minute: int, files: dict[str, str], start: str = "") -> list[str]:
    """Return the lines of `git fast-import` for one commit."""
    when = f"toy <toy@example.org> {1_600_000_000 + 60 * minute} +0000"
    lines = [f"commit {ref}", f"committer {when}", "data 3", "toy"]
    lines += [f"from {start}"] if start else []
    for name, text in files.items():
        lines += [f"M 100644 inline {name}", f"data {len(text.encode())}", text]
    return [*lines, ""]


def _import(root: Path, stream: list[str]) -> None:
    command = ["git", "fast-import", "--quiet"]
    subprocess.run(command, cwd=root, input="\n".join(stream).encode(), check=True)


if __name__ == "__main__":
    main()
