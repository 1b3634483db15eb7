import json

import numpy as np
import pytest
from scipy.special import expit

from callboard.core.errors import UserError
from callboard.data.score_tables import read_score_table, score_table, write_score_table
from callboard.scoring.evaluation import score_submission
from stages import score

ARGV = ["submission.csv", "hidden", "metrics/lb.json", "--without", "without"]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hidden").mkdir()
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "steps.csv").write_text("step\n")
    scores = np.array([[0.9, 0.1, 0.2], [0.1, 0.5, 0.9], [0.3, 0.2, 0.1]])
    write_score_table(score_table(["t0", "t1", "t2"], ["a", "b", "c"], scores), tmp_path / "submission.csv")
    return tmp_path


def write_truth(workspace, text):
    (workspace / "hidden" / "test_labels.csv").write_text("recording_id,usage,sa,sb,sc\n" + text)


def test_public_and_private_are_written_and_told(workspace, capsys):
    write_truth(workspace, "t2,private,0,1,0\nt0,public,1,0,0\nt1,public,0,1,0\n")
    score.main(ARGV)
    assert json.loads((workspace / "metrics/lb.json").read_text()) == {"lb": {"public": 0.75, "private": 0.5}}
    line = capsys.readouterr().out
    assert line.startswith("score: LB LWLRAP public 0.7500, LB LWLRAP private 0.5000, 3 recordings")


def test_without_the_truth_there_is_nothing_to_score(workspace, capsys):
    score.main(ARGV)
    assert json.loads((workspace / "metrics/lb.json").read_text()) == {"lb": {}}
    assert capsys.readouterr().out.startswith("score: nothing to score")


def test_a_truth_of_other_recordings_is_refused(workspace):
    write_truth(workspace, "t0,public,1,0,0\nt1,public,0,1,0\n")
    with pytest.raises(UserError, match="1 recordings are not in the truth, first t2"):
        score.main(ARGV)


def test_recordings_without_scores_are_counted(workspace, capsys):
    write_truth(workspace, "t2,private,0,1,0\nt0,public,1,0,0\nt1,public,0,1,0\nbroken,public,1,0,0\n")
    score.main(ARGV)
    assert json.loads((workspace / "metrics/lb.json").read_text()) == {"lb": {"public": 0.75, "private": 0.5}}
    assert "3 recordings (1 without scores left out)" in capsys.readouterr().out


def test_a_submission_with_a_hole_is_refused(workspace):
    (workspace / "submission.csv").write_text("recording_id,sa,sb,sc\nt0,0.1,,0.2\n")
    with pytest.raises(UserError, match="row 2: sb must be a number, found ''"):
        score.main(ARGV)


def test_a_submission_of_very_sure_scores_is_scored_as_in_memory(workspace):
    rng = np.random.default_rng(0)
    table = score_table([f"t{i}" for i in range(40)], ["a", "b", "c"], expit(rng.uniform(12, 34, (40, 3))))
    write_score_table(table, workspace / "submission.csv")
    rows = [f"t{i},{('public', 'private')[i % 2]},{i % 3 == 0:d},1,0\n" for i in range(40)]
    write_truth(workspace, "".join(rows))
    score.main(ARGV)
    in_memory = score_submission(table, read_score_table(workspace / "hidden" / "test_labels.csv"))
    written = json.loads((workspace / "metrics/lb.json").read_text())["lb"]
    assert written == {usage: round(value, 5) for usage, value in in_memory.items()}


def test_the_gain_of_a_step_is_the_score_with_it_minus_that_without(workspace, capsys):
    write_truth(workspace, "t2,private,0,1,0\nt0,public,1,0,0\nt1,public,0,1,0\n")
    (workspace / "without" / "steps.csv").write_text("step\nsmoothing\nprevalence\n")
    wrong = np.array([[0.1, 0.9, 0.2], [0.1, 0.5, 0.9], [0.3, 0.9, 0.1]])
    for step, scores in (("smoothing", wrong), ("prevalence", 1 - wrong)):
        table = score_table(["t0", "t1", "t2"], ["a", "b", "c"], scores)
        write_score_table(table, workspace / "without" / f"{step}.csv")
    score.main(ARGV)
    lb = json.loads((workspace / "metrics/lb.json").read_text())["lb"]
    assert lb == {
        "public": 0.75,
        "private": 0.5,
        "gain_smoothing_public": round(0.75 - (1 / 3 + 1 / 2) / 2, 5),
        "gain_smoothing_private": -0.5,
        "gain_prevalence_public": round(0.75 - (1 + 1 / 2) / 2, 5),
        "gain_prevalence_private": round(0.5 - 1 / 3, 5),
    }
    assert "gain_smoothing_private -0.5000" in capsys.readouterr().out
