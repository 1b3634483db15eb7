from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from callboard.cli import main
from callboard.results.result import SUBMISSION
from tests.conftest import Workspace


@pytest.fixture
def callboard(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    """Run the command in a finished workspace, and return what it printed."""
    monkeypatch.chdir(workspace.root)
    monkeypatch.setenv("DVC_ROOT", str(workspace.root))
    monkeypatch.setenv("CALLBOARD_DEVICE", "cpu")

    def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["callboard", *arguments])
        main()
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_recordings_of_the_test_set_get_the_scores_of_the_submission(workspace, callboard, capsys):
    printed = callboard(capsys, "predict", "exp0051", "data/source/test")
    assert "8 of 8 recordings scored now" in printed
    output = workspace.root / "predictions/exp0051"
    assert str(output) in printed
    found = pd.read_parquet(output / "recordings")
    found["recording"] = [Path(name).stem for name in found["recording"]]
    wide = found.pivot(index="recording", columns="species", values="score").add_prefix("s")
    expected = pd.read_csv(workspace.root / SUBMISSION, index_col="recording_id", dtype={"recording_id": str})
    assert np.array_equal(wide.loc[expected.index, expected.columns], expected)
    assert "0 of 8 recordings scored now" in callboard(capsys, "predict", "exp0051", "data/source/test")


@pytest.mark.slow
def test_a_wrong_argument_is_one_sentence(workspace, callboard, capsys):
    for arguments, said in (
        (["exp051", "data/source/test"], "no result is called 'exp051'; the nearest are exp0051"),
        (["exp0051", "gone"], "gone: folder does not exist"),
        (["exp0051", "data/source/test", "--output", "params.yaml"], "params.yaml"),
        (["exp0051", "stages"], "no recordings"),
    ):
        with pytest.raises(SystemExit) as ended:
            callboard(capsys, "predict", *arguments)
        assert ended.value.code == 1
        assert said in capsys.readouterr().err
        assert not (workspace.root / "predictions").exists()
