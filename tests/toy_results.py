"""Finished workspaces by hand, and an MLflow database to record them in."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from callboard.core.compute import Compute, as_cells
from callboard.results.git import files_in
from callboard.results.leaderboard import read_ledger, with_reported
from callboard.results.result import Result, read_result

CODE = {"path": "src/callboard/training/losses/terms.py", "hash": "md5", "md5": "code1", "size": 1}


def entry(deps: dict[str, str], outs: dict[str, str], params: dict[str, Any] | None = None) -> dict[str, Any]:
    stage: dict[str, Any] = {"cmd": "python -m stages.x"}
    stage["deps"] = [{"path": path, "hash": "md5", "md5": md5} for path, md5 in deps.items()]
    if params:
        stage["params"] = {"params.yaml": params}
    stage["outs"] = [{"path": path, "hash": "md5", "md5": md5} for path, md5 in outs.items()]
    return stage


def lock_stages(neg_mask: str = "none") -> dict[str, Any]:
    train = {
        f"train@{fold}": entry(
            {"data/folds.csv": "f1", "src/callboard/training/losses/terms.py": "code1"},
            {f"models/r0/fold{fold}.pt": f"w{fold}-{neg_mask}", f"plots/train/r0-fold{fold}.csv": f"c{fold}"},
            {"seed": 1, "loss": {"neg_mask": neg_mask}},
        )
        for fold in (0, 1)
    }
    return {
        "prepare": entry({}, {"data/source": "d1.dir"}, {"data": {"source": "demo"}}),
        "crop": entry({"data/source": "d1.dir"}, {"data/clips.csv": "clips1"}),
        "split": entry(
            {"data/source": "d1.dir", "data/clips.csv": "clips1"},
            {"data/folds.csv": "f1"},
            {"split": {"folds": [0, 1]}},
        ),
        **train,
        "predict": entry({"models/r0": "m1.dir"}, {"scores/r0": f"s1-{neg_mask}.dir"}),
        "evaluate": entry({"scores/r0/oof.npz": "o1"}, {"metrics/cv.json": "cv1", "scores/oof.csv": "oof1"}),
        "infer": entry(
            {"scores/r0/test.npz": "t1"}, {"submission/submission.csv": f"sub-{neg_mask}"}, {"infer": {}}
        ),
        "score": entry({"submission/submission.csv": f"sub-{neg_mask}"}, {"metrics/lb.json": "lb1"}),
    }


def write_workspace(folder: Path, neg_mask: str = "none") -> Path:
    tree = {
        "seed": 1,
        "data": {"source": "demo", "root": None},
        "split": {"folds": [0, 1]},
        "loss": {"neg_mask": neg_mask},
        "pseudo": {"rounds": 0},
    }
    for name in ("metrics", "plots/train"):
        (folder / name).mkdir(parents=True)
    (folder / "params.yaml").write_text(yaml.dump(tree))
    (folder / "dvc.lock").write_text(yaml.dump({"schema": "2.0", "stages": lock_stages(neg_mask)}))
    (folder / "metrics/cv.json").write_text('{"cv": {"lwlrap": 0.7123456, "macro_ap": null}}')
    (folder / "metrics/lb.json").write_text('{"lb": {"public": 0.65, "private": 0.64}}')
    (folder / "leaderboard.csv").write_text("submission_md5,public,private,date,note\n")
    for fold in (0, 1):
        curve = f"epoch,lr,loss,val_lwlrap\n0,0.001,2.{fold},\n1,0.0005,1.{fold},0.5\n"
        (folder / f"plots/train/r0-fold{fold}.csv").write_text(curve)
    return folder


def record_compute(folder: Path, fold: int, compute: Compute) -> None:
    """Add what computed its epochs to a fold's curve, as train writes it."""
    path = folder / f"plots/train/r0-fold{fold}.csv"
    cells = as_cells(compute)
    header, *lines = path.read_text().splitlines()
    lines = [",".join((header, *cells)), *(",".join((line, *cells.values())) for line in lines)]
    path.write_text("\n".join(lines) + "\n")


def result_in(folder: Path) -> Result:
    result = read_result(files_in(folder), str(folder))
    return with_reported(result, read_ledger(folder / "leaderboard.csv"))


@pytest.fixture
def workspace(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return write_workspace(tmp_path / "copy")


def runs(folder: Path, kind: str = "cv") -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("callboard")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], f"tags.`callboard.kind` = '{kind}'"))
