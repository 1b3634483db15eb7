"""What `import callboard` offers to a notebook, on a finished toy workspace."""

import ast
import doctest
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import callboard
from callboard.features import log_mel
from callboard.reports import notebook
from callboard.scoring import metrics
from tests.conftest import Workspace


@pytest.fixture
def inside(finished: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The working directory is a finished workspace."""
    monkeypatch.chdir(finished.root)
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return finished


def run_examples(module: ModuleType, at_least: int) -> None:
    result = doctest.testmod(module, verbose=False)
    assert result.failed == 0
    assert result.attempted >= at_least, module.__name__


@pytest.mark.parametrize("module", [metrics, log_mel], ids=lambda module: module.__name__)
def test_examples_without_a_workspace_are_true(module: ModuleType) -> None:
    run_examples(module, 1)


@pytest.mark.slow
def test_examples_in_a_workspace_are_true(inside: Workspace) -> None:
    run_examples(notebook, 8)


@pytest.mark.slow
def test_the_board_has_the_numbers_that_the_stages_wrote(inside: Workspace) -> None:
    (row,) = callboard.board().to_dict("records")
    for file in ("cv", "lb"):
        written = json.loads(inside.read(f"metrics/{file}.json"))[file]
        assert row[f"{file}.{'lwlrap' if file == 'cv' else 'public'}"] == pytest.approx(
            written["lwlrap" if file == "cv" else "public"], abs=1e-5
        )
    assert row["train.epochs"] == "2"


@pytest.mark.slow
def test_scores_and_truth_give_cv_in_a_row_by_row_computation(inside: Workspace) -> None:
    name = callboard.board().index[0]
    scores, truth = callboard.oof_scores(name), callboard.oof_truth(name)
    assert scores.index.equals(truth.index)
    assert scores.columns.equals(truth.columns)
    precisions = []
    for recording in scores.index:
        of_recording, present = scores.loc[recording], truth.loc[recording]
        for species in present.index[present]:
            above = of_recording >= of_recording[species]
            precisions.append((above & present).sum() / above.sum())
    assert np.mean(precisions) == pytest.approx(callboard.board()["cv.lwlrap"].iloc[0], abs=1e-5)


@pytest.mark.slow
def test_parameters_are_python_objects(inside: Workspace) -> None:
    found = callboard.parameters("HEAD")
    assert found["split.folds"] == [0, 1]
    assert found["data.root"] is None
    assert found["optim.lr"] == 0.002
    assert found["loss.neg_mask"] == "none"


@pytest.mark.slow
def test_an_unknown_name_is_refused_as_by_the_commands(inside: Workspace) -> None:
    for function in (callboard.parameters, callboard.oof_scores, callboard.oof_truth):
        with pytest.raises(callboard.UserError, match="no result is called 'exp9999'"):
            function("exp9999")
    with pytest.raises(callboard.UserError, match="no result is called 'exp9999'"):
        callboard.compare("HEAD", "exp9999")


def test_everything_that_is_exported_exists_and_nothing_heavy_is_imported_for_it() -> None:
    stub = ast.parse(Path(callboard.__file__).with_suffix(".pyi").read_text("utf-8"))
    typed = {f"{node.module}.{node.names[0].name}" for node in stub.body if isinstance(node, ast.ImportFrom)}
    assert typed == {f"callboard.{home}.{name}" for name, home in callboard._HOMES.items()}
    assert all(getattr(callboard, name) for name in callboard.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lwrap'"):
        callboard.lwrap  # noqa: B018
    code = "import callboard, sys; sys.exit(str({'pandas', 'numpy', 'torch', 'mlflow'} & sys.modules.keys()))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr
    assert printed.strip() == "set()"
