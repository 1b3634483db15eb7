import numpy as np
import pandas as pd
import pytest

from callboard.core.errors import UserError
from callboard.data.score_tables import fill_submission, read_score_table, score_table, write_score_table

SPECIES = ["0", "07", "x"]


@pytest.fixture
def scores():
    return score_table(["r1", "r2", "055088446"], SPECIES, np.arange(9).reshape(3, 3) / 10)


def sample_of(ids, species=SPECIES):
    return score_table(ids, species, np.full((len(ids), len(species)), 0.5))


def test_a_submission_has_the_rows_and_columns_of_the_sample_in_its_order(scores):
    sample = sample_of(["055088446", "r1"], ["x", "0", "07"])
    submission = fill_submission(sample, scores)
    assert submission.columns.tolist() == ["recording_id", "sx", "s0", "s07"]
    assert submission["recording_id"].tolist() == ["055088446", "r1"]
    np.testing.assert_allclose(submission[["sx", "s0", "s07"]], [[0.8, 0.6, 0.7], [0.2, 0.0, 0.1]])


def test_an_empty_sample_gives_a_header_only(scores, tmp_path):
    write_score_table(fill_submission(sample_of([]), scores), tmp_path / "submission.csv")
    assert (tmp_path / "submission.csv").read_text() == "recording_id,s0,s07,sx\n"


def test_recordings_without_scores_are_refused(scores):
    with pytest.raises(UserError, match="2 of 3 recordings have no scores, first r7"):
        fill_submission(sample_of(["r8", "r1", "r7"]), scores)


def test_columns_that_do_not_match_are_refused(scores):
    with pytest.raises(UserError, match=r"without scores: \['s7'\], not in the sample: \['s07'\]"):
        fill_submission(sample_of(["r1"], ["0", "7", "x"]), scores)


def test_written_scores_come_back_with_text_ids_and_in_the_same_order_of_size(tmp_path):
    small = score_table(["007", "1e5"], SPECIES, np.array([[1e-9, 2e-9, 3e-7], [0.1234567, 1, 0]]))
    write_score_table(small, tmp_path / "scores.csv")
    read = read_score_table(tmp_path / "scores.csv")
    assert read["recording_id"].tolist() == ["007", "1e5"]
    np.testing.assert_allclose(read[["s0", "s07", "sx"]], small[["s0", "s07", "sx"]], rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,s0\nr1,0.5\n", r"missing column\(s\) recording_id; found id, s0"),
        ("recording_id,s0\nr1,0.5\nr1,0.4\n", "row 3: recording r1 is repeated"),
        ("recording_id,s0,s1\nr1,0.5,0.1\nr2,0.5,\n", "row 3: s1 must be a number, found ''"),
        ("recording_id,s0\n\nr1,inf\n", "row 3: s0 must be a number"),
        ("recording_id,s0,s0\nr1,1,0\n", r"column\(s\) s0 given twice"),
        ("recording_id,s0\nr1,inf\n", "row 2: s0 must be a number, found 'inf'"),
    ],
)
def test_a_bad_score_table_is_refused(tmp_path, text, message):
    path = tmp_path / "submission.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_score_table(path)


def test_ids_that_differ_only_as_text_are_different_recordings():
    scores = score_table(["7"], SPECIES, np.zeros((1, 3)))
    assert isinstance(scores, pd.DataFrame)
    with pytest.raises(UserError, match="first 007"):
        fill_submission(sample_of(["007"]), scores)
