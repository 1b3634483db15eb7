"""What a report gathers: mistakes, shares, calibration, leaks; by hand and against other routes."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve

from callboard.data.clips import DTYPES
from callboard.pseudo.provenance import trace_rounds
from callboard.reports.result_page.evidence import (
    lost_points,
    precision_at_present,
    reliability,
    weigh,
    wilson_interval,
    worst_recordings,
)
from callboard.reports.result_page.figures import draw_curves
from callboard.reports.result_page.leaks import (
    fold_checks,
    fold_grid,
    lineage_checks,
    network_checks,
    pseudo_checks,
    score_checks,
)
from callboard.reports.result_page.page import Figures, Text
from callboard.reports.result_page.sections import (
    RECORDING_KINDS,
    cv_against_lb,
    pseudo_counts,
    species_table,
)
from callboard.reports.text import species_label
from callboard.scoring.metrics import lwlrap, precision_sums

FOLDS = pd.DataFrame({"recording_id": ["a", "b", "c", "d"], "fold": ["0", "0", "1", "1"]})


def clips_table(rows):
    table = pd.DataFrame(rows, columns=["recording_id", "label_type", "species_id"])
    return table.reindex(columns=list(DTYPES)).assign(clip_id=range(len(table)), t_min=1.0, t_max=2.0)


def evidence():
    """a: right; b: 7 behind x; c: 7 behind both; d: nothing confirmed, x rejected."""
    clips = clips_table(
        [
            ("a", "tp", "3"),
            ("b", "tp", "7"),
            ("b", "fp", "x"),
            ("c", "tp", "7"),
            ("c", "fp", "7"),
            ("d", "fp", "x"),
        ]
    )
    out_of_fold = pd.DataFrame(
        {
            "recording_id": ["a", "b", "c", "d"],
            "fold": [0.0, 0.0, 1.0, 1.0],
            "s3": [0.9, 0.1, 0.8, 0.2],
            "s7": [0.2, 0.5, 0.1, 0.3],
            "sx": [0.1, 0.6, 0.7, 0.4],
        }
    )
    return weigh(clips, FOLDS, out_of_fold)


# where points are lost


def test_the_worst_recordings_by_hand():
    worst = worst_recordings(evidence(), 6)
    assert [(mistake.recording_id, mistake.missed, mistake.wrong) for mistake in worst] == [
        ("c", "7", "3"),
        ("b", "7", "x"),
    ]
    assert [mistake.lost for mistake in worst] == pytest.approx([(1 - 1 / 3) / 3, (1 - 1 / 2) / 3])
    assert [mistake.rank for mistake in worst] == [3, 2]
    assert [mistake.is_rejected for mistake in worst] == [False, True]
    assert [mistake.fold for mistake in worst] == [1, 0]


def test_equally_bad_recordings_come_by_id_and_no_more_than_asked_for():
    found = evidence()
    same = weigh(found.clips, FOLDS, found.out_of_fold.assign(s3=0.5, s7=0.5, sx=0.5))
    assert [mistake.recording_id for mistake in worst_recordings(same, 2)] == ["a", "b"]


def random_case(n_recordings=60, n_species=7):
    generator = np.random.default_rng(1)
    is_present = generator.random((n_recordings, n_species)) < 0.3
    return is_present, generator.integers(0, 9, is_present.shape) / 8  # with ties


def test_precisions_of_cells_sum_to_those_of_recordings():
    is_present, scores = random_case()
    sums, _ = precision_sums(is_present, scores)
    cells = precision_at_present(is_present, scores)
    assert np.nansum(cells, axis=1)[is_present.any(axis=1)] == pytest.approx(sums)
    assert (np.isfinite(cells) == is_present).all()


def test_lost_points_are_what_lwlrap_lacks_to_one():
    found = evidence()
    assert lost_points(found).sum() == pytest.approx(1 - lwlrap(found.is_present, found.scores))


def test_the_species_table_has_counts_and_shares_of_the_loss():
    table = species_table(evidence()).set_index("species")
    assert table["n_tp"].to_dict() == {"3": 1, "7": 2, "x": 0}
    assert table["lost"].to_dict() == pytest.approx({"3": 0.0, "7": 1.0, "x": 0.0})
    assert np.isnan(table.loc["x", "ap"])
    assert next(iter(table.index)) == "3"


# calibration


def test_bins_are_those_of_scikit_learn():
    is_present, _ = random_case(400)
    scores = np.random.default_rng(2).random(is_present.shape)
    found = reliability(scores, is_present, ~is_present)
    share, mean = calibration_curve(is_present.ravel(), scores.ravel(), n_bins=10, strategy="uniform")
    assert found.share_present == pytest.approx(share)
    assert found.mean_score == pytest.approx(mean)
    assert found.count.sum() == scores.size


def test_only_judged_cells_count():
    found = evidence()
    bins = reliability(found.scores, found.is_present, found.is_absent, n_bins=2)
    # present: 0.9, 0.5, 0.1; absent: 0.6 of b, 0.4 of d; 7 in c was confirmed as well as rejected
    assert bins.count.tolist() == [3, 2]
    assert bins.share_present == pytest.approx([2 / 3, 1 / 2])
    with pytest.raises(ValueError, match="no cell is judged"):
        reliability(found.scores, found.is_present & False, found.is_absent & False)


def test_the_interval_is_wilsons():
    from scipy.stats import binomtest

    low, high = wilson_interval(np.array([0.0, 0.3, 1.0]), np.array([5, 10, 20]))
    for k, (hits, n) in enumerate([(0, 5), (3, 10), (20, 20)]):
        expected = binomtest(hits, n).proportion_ci(method="wilson")
        assert (low[k], high[k]) == pytest.approx((expected.low, expected.high))


# leaks


def test_nothing_speaks_against_a_sound_result():
    found = evidence()
    checks = fold_checks(FOLDS, found.clips, {"t"}) + score_checks(found.out_of_fold, FOLDS)
    assert [check.violations for check in checks] == [[]] * 6


def violated(checks):
    return {name for check in checks for name in check.violations}


def test_a_recording_in_two_folds_is_found():
    twice = pd.concat([FOLDS, pd.DataFrame({"recording_id": ["a"], "fold": ["1"]})])
    assert violated(fold_checks(twice, evidence().clips, ())) == {"a"}


def test_a_group_in_two_folds_is_found():
    whole = FOLDS.assign(group=["x", "x", "y", "y"])
    (check,) = [one for one in fold_checks(whole, evidence().clips, ()) if "group" in one.claim]
    assert (check.counted, check.violations) == ("2 groups", [])
    apart = FOLDS.assign(group=["x", "y", "y", "y"])
    assert violated(fold_checks(apart, evidence().clips, ())) == {"y in ['0', '1'], such as b and c"}


def test_a_recording_without_fold_and_a_test_recording_with_one_are_found():
    without = FOLDS[FOLDS["recording_id"] != "c"]
    assert violated(fold_checks(without, evidence().clips, ())) == {"c"}
    assert violated(fold_checks(FOLDS, evidence().clips, {"d", "t"})) == {"d"}


def test_scores_of_another_fold_twice_or_not_at_all_are_found():
    scores = evidence().out_of_fold
    assert violated(score_checks(scores.assign(fold=[0, 1, 1, 1]), FOLDS)) == {"b (scored in fold 1)"}
    assert violated(score_checks(pd.concat([scores, scores.head(1)]), FOLDS)) == {"a"}
    assert violated(score_checks(scores.tail(3), FOLDS)) == {"a"}


def test_a_network_that_has_seen_its_own_fold_is_found():
    held_out = {"models/r0/fold0.pt": (0, {"a", "b"}), "models/r0/fold1.pt": (1, {"c"})}
    (message,) = violated(network_checks(held_out, FOLDS))
    assert message == "models/r0/fold1.pt has trained on 1 recordings of fold 1, first d"


@pytest.mark.parametrize(
    ("recording_id", "teacher", "is_sound"),
    [
        ("a", "r0/fold0", True),
        ("a", "r0/fold1", False),  # has trained on it
        ("a", "r0/folds0-1", True),  # nested
        ("a", "r0/folds1-2", False),
        ("a", "r0", False),  # so have all others of the round
        ("t", "r0", True),  # a test recording
        ("a", "r1/fold0", False),  # a student that labels its own training
        ("t", "somebody", False),
    ],
)
def test_a_teacher_labels_what_it_has_not_trained_on(recording_id, teacher, is_sound):
    pseudo = pd.DataFrame({"recording_id": [recording_id], "teacher": [teacher]})
    assert all(check.holds for check in pseudo_checks(1, pseudo, FOLDS)) == is_sound


def test_votes_without_isolation_are_one_violation_with_their_number():
    table = pd.DataFrame({"recording_id": ["a", "b", "t"], "teacher": "r0", "votes": 2})
    held_out = {"r0/fold0": {"a", "b"}, "r0/fold1": {"c", "d"}}
    folds = FOLDS.astype({"fold": int})
    meant, strict = (
        lineage_checks(trace_rounds({1: table}, folds, held_out, isolation))
        for isolation in ("none", "recording")
    )
    assert [check.counted for check in meant] == [
        "3 pseudo-labels, 1 teacher",
        "2 pseudo-labels of training recordings",
    ]
    assert violated(meant) == {"NOT isolated: 2 of 2 labels had a vote of a model trained on the recording"}
    assert len(violated(strict)) == 2


def test_a_nested_teacher_that_was_trained_on_its_student_s_fold_is_found():
    table = pd.DataFrame({"recording_id": "a", "teacher": "r0/folds0-2", "votes": 1, "student": ["2", "1"]})
    held_out = {"r0/folds0-2": {"a", "b"}}
    checks = lineage_checks(trace_rounds({1: table}, FOLDS.astype({"fold": int}), held_out, "nested"))
    (message,) = violated(checks)
    assert "r0/folds0-2 had trained on fold 1, which the student is validated on" in message


# counts


def test_pseudo_labels_are_counted_by_species_and_kind_of_recording():
    pseudo = pd.DataFrame({"recording_id": ["a", "d", "t", "t"], "species_id": ["3", "3", "7", "7"]})
    counts = pseudo_counts(pseudo, evidence())
    assert list(counts.columns) == list(RECORDING_KINDS)
    assert counts.to_numpy().tolist() == [[1, 1, 0], [0, 0, 2], [0, 0, 0]]


def test_each_fold_is_counted():
    rows = fold_grid(evidence()).rows
    assert rows == [["fold 0", "2", "2", "0", "2", "1"], ["fold 1", "2", "1", "1", "1", "2"]]


# pictures


@pytest.mark.parametrize(("n_results", "kind"), [(1, Text), (2, Text), (3, Figures)])
def test_cv_against_lb_is_drawn_of_three_results(n_results, kind):
    rows = [
        SimpleNamespace(data_md5="d", metrics={"cv.lwlrap": 0.5 + 0.1 * k, "lb.public": 0.4 + 0.1 * k})
        for k in range(n_results)
    ]
    [block] = cv_against_lb(SimpleNamespace(row=rows[0], rows=rows))
    assert isinstance(block, kind)
    assert f"{n_results} with public LB" in getattr(block, "text", "3 with public LB")


def test_curves_beside_each_other_have_the_same_axes():
    low, high = ([{"epoch": k, "loss": loss / k} for k in range(1, n)] for loss, n in ((1.0, 4), (7.0, 9)))
    texts = [
        re.findall(r">([^<>]+)</text>", draw_curves({"fold 0": one}, "loss", "loss", "x", [low, high]))
        for one in (low, high)
    ]
    assert texts[0] == texts[1]
    assert "8" in texts[0]


@pytest.mark.parametrize(("species_id", "label"), [("7", "species 7"), ("E. coqui", "E. coqui")])
def test_a_named_species_is_called_by_its_name(species_id, label):
    assert species_label(species_id) == label
