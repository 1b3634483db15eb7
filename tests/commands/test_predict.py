from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from callboard.results.result import SUBMISSION


@pytest.mark.slow
def test_recordings_of_the_test_set_get_the_scores_of_the_submission(workspace, callboard):
    printed = callboard("predict", "exp0051", "data/source/test")
    assert "8 of 8 recordings scored now" in printed
    output = workspace.root / "predictions/exp0051"
    assert str(output) in printed
    found = pd.read_parquet(output / "recordings")
    found["recording"] = [Path(name).stem for name in found["recording"]]
    wide = found.pivot(index="recording", columns="species", values="score").add_prefix("s")
    expected = pd.read_csv(workspace.root / SUBMISSION, index_col="recording_id", dtype={"recording_id": str})
    assert np.array_equal(wide.loc[expected.index, expected.columns], expected)
    assert "0 of 8 recordings scored now" in callboard("predict", "exp0051", "data/source/test")


@pytest.mark.slow
def test_a_wrong_argument_is_one_sentence(workspace, refused):
    for arguments, said in (
        (["exp051", "data/source/test"], "no result is called 'exp051'; the nearest are exp0051"),
        (["exp0051", "gone"], "gone: folder does not exist"),
        (["exp0051", "data/source/test", "--output", "params.yaml"], "params.yaml"),
        (["exp0051", "stages"], "no recordings"),
    ):
        assert said in refused("predict", *arguments)
        assert not (workspace.root / "predictions").exists()
