"""A finished result as a file, and as a model of its run in MLflow."""

import tomllib
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from mlflow.pyfunc import scoring_server
from packaging.requirements import Requirement

from callboard import Detector
from callboard.results.stored_runs import stored_runs
from callboard.scoring.detector_model import REQUIRED
from callboard.scoring.set_scores import PREDICTION_TABLES
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch compute as an exported detector does."""
    monkeypatch.setattr("callboard.model.device.has_bfloat16", lambda device: False)


@pytest.mark.slow
def test_a_file_predicts_as_its_result_does(workspace, callboard, capsys):
    printed = callboard("export", "exp0051", "detector.zip")
    path = workspace.root / "detector.zip"
    assert f"written to {path}" in printed
    assert "trained here from random weights" in printed
    callboard("predict", "exp0051", "data/source/test", "--floor", "0")
    callboard("predict", "detector.zip", "data/source/test", "--floor", "0")
    for name in PREDICTION_TABLES:
        a, b = (
            pd.read_parquet(workspace.root / "predictions" / made / name) for made in ("exp0051", "detector")
        )
        pd.testing.assert_frame_equal(a, b, check_exact=False, atol=1e-4, rtol=0)
    with pytest.raises(SystemExit):
        callboard("predict", "exp0051", "data/source/test", "--engine", "openvino")
    assert "torch runs the networks of exp0051" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        callboard("export", "exp0051", "detector")
    assert "'detector' must end with .zip" in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_of_the_run_is_registered_served_and_run_by_mlflow(workspace, callboard, monkeypatch):
    (before,) = stored_runs()
    address = callboard("export", "exp0051", "detector.zip", "--mlflow").split()[-1]
    assert stored_runs() == [before]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace.root}/mlflow.db")
    assert mlflow.register_model(address, "birds").run_id == before.run_id
    model = mlflow.pyfunc.load_model("models:/birds/1")
    assert model.metadata.run_id == before.run_id
    paths = sorted(map(str, (workspace.root / "data/source/test").glob("*.*")))[:3]
    found = model.predict(pd.DataFrame({"recording": [*paths, paths[0]]}))
    detector = Detector.load(workspace.root / "detector.zip")
    assert found["recording"].unique().tolist() == paths
    for path, rows in found.groupby("recording"):
        expected = detector.predict(path).recording
        assert np.array_equal(rows.drop(columns="recording"), expected)
    answer = TestClient(scoring_server.init(model)).post(
        "/invocations", json={"dataframe_records": [{"recording": paths[0]}]}
    )
    assert [row["score"] for row in answer.json()["predictions"]] == found["score"][
        : len(detector.species)
    ].tolist()
    assert sorted(model.metadata.signature.outputs.input_names()) == sorted(found.columns)
    with pytest.raises(ValueError, match=r"gone\.wav: no such file"):
        model.predict(pd.DataFrame({"recording": ["gone.wav"]}))


def test_a_model_requires_what_the_package_does() -> None:
    project = tomllib.loads(Path(ROOT, "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["detect"]]
    assert {Requirement(text).name for text in needed} | {"mlflow"} == set(REQUIRED)
