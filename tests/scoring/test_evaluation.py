import json

import numpy as np
import pandas as pd
import pytest

from callboard.core.errors import UserError
from callboard.data.score_tables import score_table
from callboard.scoring.evaluation import cross_validate, pool_out_of_fold, score_submission, write_metrics
from callboard.scoring.metrics import lwlrap
from callboard.scoring.window_scores import HEADS, WindowScores
from tests.toy_scoring import infer_params

INFER = infer_params(head="max")
SPECIES = ["a", "b", "c"]


def out_of_fold_scores(logits, fold):
    """One window per recording r0, r1, …; the same logits in every head."""
    values = np.array(logits, dtype=np.float32)[:, None]
    return WindowScores(
        recording_ids=[f"r{i}" for i in range(len(values))],
        species=SPECIES,
        recording=np.arange(len(values), dtype=np.int32),
        start_frame=np.zeros(len(values), dtype=np.int32),
        heads=dict.fromkeys(HEADS, values),
        peak_frame=np.zeros(values.shape, dtype=np.int32),
        fold=np.array(fold),
    )


@pytest.fixture
def window_scores():
    return out_of_fold_scores([[3, 1, 0], [0, 1, 3], [2, 3, 1], [1, 2, 0]], [0, 1, 0, 1])


@pytest.fixture
def folds():
    return pd.DataFrame({"recording_id": ["r3", "r1", "r2", "r0"], "fold": [1, 1, 0, 0]})


@pytest.fixture
def clips():
    """r0: a. r1: b, and c rejected. r2: a and b, and b rejected in another box. r3: c rejected, no TP row."""
    rows = [
        ("r0", "a", "tp"), ("r1", "b", "tp"), ("r1", "c", "fp"), ("r2", "a", "tp"), ("r2", "b", "tp"),
        ("r2", "b", "fp"), ("r3", "c", "fp"),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["recording_id", "species_id", "label_type"])


def test_pooled_scores_follow_the_folds_table(window_scores, folds):
    oof = pool_out_of_fold(window_scores, folds, INFER)
    assert oof.recording_ids == ["r3", "r1", "r2", "r0"]
    assert oof.fold.tolist() == [1, 1, 0, 0]
    np.testing.assert_allclose(oof.scores[3], 1 / (1 + np.exp([-3.0, -1.0, 0.0])), rtol=1e-5)


def test_scores_by_a_model_that_trained_on_the_recording_are_refused(window_scores, folds):
    moved = folds.assign(fold=[1, 0, 0, 0])
    with pytest.raises(UserError, match="leak: r1 is in fold 0 but was scored by the model of fold 1"):
        pool_out_of_fold(window_scores, moved, INFER)


def test_scores_of_other_recordings_are_refused(window_scores, folds):
    with pytest.raises(UserError, match="cover different recordings: 1 differ, first r0"):
        pool_out_of_fold(window_scores, folds.iloc[:3], INFER)


def test_scores_of_all_models_are_refused(window_scores, folds):
    with pytest.raises(UserError, match="not out-of-fold"):
        pool_out_of_fold(WindowScores(**{**vars(window_scores), "fold": None}), folds, INFER)


def test_cv_counts_the_recordings_with_tp_rows(window_scores, folds, clips):
    cross_validation = cross_validate(pool_out_of_fold(window_scores, folds, INFER), clips)
    np.testing.assert_array_equal(
        cross_validation.is_present, [[0, 1, 0], [1, 1, 0], [1, 0, 0]]
    )  # r1, r2, r0
    np.testing.assert_array_equal(cross_validation.is_labeled, [[0, 1, 1], [1, 1, 0], [1, 0, 0]])
    summary = cross_validation.summary(n_bootstrap=0, seed=0)
    assert summary["n_recordings"] == 3
    assert summary["lwlrap"] == pytest.approx((1 / 2 + 1 + 1 + 1) / 4)
    assert summary["fold_mean"] == pytest.approx((1 + 1 / 2) / 2)
    assert summary["fold_sd"] == pytest.approx(np.std([1, 1 / 2], ddof=1))
    assert summary["lrap"] == pytest.approx((1 + 1 / 2) / 2)
    assert summary["lwlrap_known"] == pytest.approx(1 / 2)  # r1 alone has present and rejected species
    assert summary["macro_ap"] == pytest.approx((1 + 5 / 6) / 2)  # b ties r1 with r0: 1/2 + 1/2 × 2/3
    assert np.isnan(summary["lwlrap_low"])


def test_the_interval_holds_cv_and_depends_on_the_seed_alone(folds):
    rng = np.random.default_rng(0)
    n = 80
    scores = out_of_fold_scores(rng.normal(size=(n, 3)), np.arange(n) % 2)
    table = pd.DataFrame({"recording_id": scores.recording_ids, "fold": scores.fold})
    clips = pd.DataFrame(
        {"recording_id": scores.recording_ids, "species_id": rng.choice(SPECIES, n), "label_type": "tp"}
    )
    cross_validation = cross_validate(pool_out_of_fold(scores, table, INFER), clips)
    summary = cross_validation.summary(200, seed=1)
    assert summary["lwlrap_low"] < summary["lwlrap"] < summary["lwlrap_high"]
    assert summary["lwlrap"] == lwlrap(cross_validation.is_present, cross_validation.scores)
    assert cross_validation.summary(200, seed=1) == pytest.approx(summary, rel=0, abs=0, nan_ok=True)


def test_the_species_table_has_every_species_in_class_order(window_scores, folds, clips):
    table = cross_validate(pool_out_of_fold(window_scores, folds, INFER), clips).species_table()
    assert table["species"].tolist() == SPECIES
    assert table["n_tp"].tolist() == [2, 2, 0]
    assert np.isnan(table["ap"].iloc[2])


def test_metrics_are_rounded_and_undefined_ones_are_null(tmp_path):
    path = tmp_path / "metrics" / "cv.json"
    write_metrics({"lwlrap": 0.123456789, "low": float("nan"), "n": 3}, "cv", path)
    assert json.loads(path.read_text()) == {"cv": {"lwlrap": 0.12346, "low": None, "n": 3}}
    write_metrics({}, "lb", path)
    assert json.loads(path.read_text()) == {"lb": {}}


@pytest.fixture
def submission():
    return score_table(["r1", "r2", "055088446"], SPECIES, np.arange(9).reshape(3, 3) / 10)


def truth_of(ids, usage, labels):
    table = score_table(ids, SPECIES, np.array(labels, dtype=float))
    table.insert(1, "usage", usage)
    return table


def test_public_and_private_are_scored_apart_by_hand(submission):
    truth = truth_of(
        ["r2", "055088446", "r1"], ["private", "public", "public"], [[1, 0, 0], [0, 0, 1], [1, 1, 0]]
    )
    # r1 ranks c, b, a: pairs b (1/2) and a (2/3); 055088446 has c on top (1); r2 has a last (1/3)
    assert score_submission(submission, truth) == pytest.approx(
        {"public": (1 + 1 / 2 + 2 / 3) / 3, "private": 1 / 3}
    )


def test_a_part_without_any_species_has_no_score(submission):
    truth = truth_of(["r1", "r2", "055088446"], ["public"] * 3, [[1, 0, 0]] * 3)
    lb = score_submission(submission, truth)
    assert lb["public"] == pytest.approx(1 / 3)
    assert np.isnan(lb["private"])


def test_recordings_without_scores_are_left_out(submission):
    truth = truth_of(
        ["r1", "r2", "055088446"], ["public", "public", "private"], [[0, 0, 1], [1, 0, 0], [0, 0, 1]]
    )
    lb = score_submission(submission.iloc[[2, 0]], truth)
    assert lb == {"public": 1.0, "private": 1.0}


def test_a_submission_without_recordings_is_refused(submission):
    with pytest.raises(UserError, match="submission: no recordings, the truth has 1"):
        score_submission(submission.iloc[:0], truth_of(["r1"], ["public"], [[1, 0, 0]]))


def test_scores_beyond_single_precision_still_rank(folds, clips):
    sure = out_of_fold_scores([[20, 18, 22], [18, 22, 20], [24, 22, 20], [0, 0, 0]], [0, 1, 0, 1])
    cross_validation = cross_validate(pool_out_of_fold(sure, folds, INFER), clips)
    # r0 has its species a on the second rank, r1 and r2 theirs on top
    assert cross_validation.summary(0, seed=0)["lwlrap"] == pytest.approx((1 / 2 + 3) / 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda truth: truth.iloc[:2], "1 recordings are not in the truth, first 055088446"),
        (lambda truth: truth.drop(columns="sc"), "are not those of the truth"),
        (lambda truth: truth.assign(usage="hidden"), r"usage must be one of .*found \['hidden'\]"),
    ],
)
def test_a_submission_that_does_not_fit_the_truth_is_refused(submission, change, message):
    truth = truth_of(["r1", "r2", "055088446"], ["public"] * 3, [[1, 0, 0]] * 3)
    with pytest.raises(UserError, match=message):
        score_submission(submission, change(truth))
