import shlex
from pathlib import Path

import numpy as np
import pytest

from callboard.errors import UserError
from callboard.finished import find_finished
from callboard.results import SUBMISSION
from callboard.scores import load_scores, recording_scores
from callboard.submission import read_score_table, score_table, write_score_table
from stages import infer
from tests.test_scores import window_scores
from tests.toy_git import ToyRepository
from tests.toy_models import PARAMS_YAML
from tests.toy_scoring import infer_params

ARGV = shlex.split(
    "--scores test.npz --sample sample_submission.csv --skipped skipped.csv "
    "--submission submission/submission.csv"
)

COLUMNS = ["recording_id", "ssp0", "ssp1", "ssp2", "ssp3"]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS_YAML)
    window_scores().save(tmp_path / "test.npz")
    write_sample(["r2", "r0", "r1"])
    write_skipped([])
    return tmp_path


def write_sample(recording_ids):
    table = score_table(recording_ids, [f"sp{i}" for i in range(4)], np.full((len(recording_ids), 4), 0.5))
    write_score_table(table, Path("sample_submission.csv"))


def write_skipped(recording_ids):
    rows = [f"{recording_id},test,silent\n" for recording_id in recording_ids]
    Path("skipped.csv").write_text("".join(["recording_id,subset,reason\n", *rows]))


def test_the_submission_holds_pooled_scores_in_the_order_of_the_sample(workspace, capsys):
    infer.main(ARGV)
    submission = read_score_table(workspace / "submission/submission.csv")
    assert submission.columns.tolist() == COLUMNS
    assert submission["recording_id"].tolist() == ["r2", "r0", "r1"]
    params = infer_params()
    expected = recording_scores(load_scores(workspace / "test.npz"), params)[[2, 0, 1]]
    np.testing.assert_allclose(submission[COLUMNS[1:]], expected, rtol=1e-5)
    assert capsys.readouterr().out.startswith(
        "infer: 3 recordings × 4 species, attention_max head, max over windows"
    )


def test_recordings_without_scores_stop_the_stage(workspace):
    write_sample(["r0", "r1", "r2", "r3"])
    with pytest.raises(UserError, match="1 of 4 recordings have no scores, first r3"):
        infer.main(ARGV)
    assert not (workspace / "submission").exists()


def test_recordings_that_crop_skipped_are_left_out_and_counted(workspace, capsys):
    write_sample(["r0", "r1", "r2", "r3"])
    write_skipped(["r3"])
    infer.main(ARGV)
    submission = read_score_table(workspace / "submission/submission.csv")
    assert submission["recording_id"].tolist() == ["r0", "r1", "r2"]
    assert "infer: 1 recordings that crop skipped are left out" in capsys.readouterr().out


def test_an_empty_test_set_gives_a_header_and_says_so(workspace, capsys):
    window_scores(()).save(workspace / "test.npz")
    write_sample([])
    infer.main(ARGV)
    assert (workspace / "submission/submission.csv").read_text() == ",".join(COLUMNS) + "\n"
    assert "lists no recordings" in capsys.readouterr().out


def test_a_blend_is_the_mean_of_finished_submissions_and_reads_no_own_scores(
    workspace, tmp_path_factory, monkeypatch, capsys
):
    repository = ToyRepository(tmp_path_factory.mktemp("main") / "main")
    monkeypatch.setenv("DVC_ROOT", str(repository.root))
    for name, score in (("exp0021", 0.2), ("exp0025", 0.6)):
        table = score_table(["r0", "r1", "r2"], [f"sp{i}" for i in range(4)], np.full((3, 4), score))
        repository.experiment(name, {SUBMISSION: repository.cache_table(table)})
    references = [find_finished(name).reference for name in ("exp0021", "exp0025")]
    text = PARAMS_YAML.replace("blend: []", f"blend: [{', '.join(references)}]")
    (workspace / "params.yaml").write_text(text)
    (workspace / "test.npz").unlink()
    infer.main(ARGV)
    submission = read_score_table(workspace / "submission/submission.csv")
    assert submission["recording_id"].tolist() == ["r2", "r0", "r1"]
    np.testing.assert_allclose(submission[COLUMNS[1:]], 0.4)
    assert f"3 recordings × 4 species, blend of {', '.join(references)}" in capsys.readouterr().out
