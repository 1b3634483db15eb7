import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from callboard.analysis.suspects.ranking import window_evidence
from callboard.analysis.thresholds.choice import (
    MIN_REACHING,
    THRESHOLD_COLUMNS,
    ThresholdState,
    can_be_chosen,
    choose_thresholds,
    threshold_table,
)
from callboard.analysis.thresholds.evidence import (
    SpeciesEvidence,
    best_evidence,
    evidence_of_boxes,
    judged_out_of_fold,
    verdict_evidence,
)
from callboard.analysis.thresholds.precision import (
    CANDIDATES,
    JudgedCells,
    PrecisionCurve,
    count_windows,
    fit_logistic,
    precision_curve,
    probability_at_share,
)
from callboard.core.errors import UserError
from callboard.data.verdicts import VERDICT_COLUMNS
from callboard.scoring.detections import read_thresholds
from callboard.scoring.metrics import COVERAGE
from tests.analysis.test_suspects import CLIP_FRAMES, FRAMES_PER_S, LABELS, SPECIES, scores
from tests.scoring.test_detections import WINDOWS, rows, write_predictions
from tests.toy_scoring import infer_params


def cells(score: Any, is_present: Any, unit: Any = None) -> JudgedCells:
    score = np.asarray(score, dtype=float)
    names = np.arange(len(score)) if unit is None else unit
    return JudgedCells(score, np.asarray(is_present, dtype=bool), np.asarray(names).astype(str))


def drawn(n: int, slope: float = 1.0, seed: int = 0, shift: float = 0.0) -> JudgedCells:
    """Cells whose probability is the score's, after a slope and a shift of the log odds."""
    rng = np.random.default_rng(seed)
    score = rng.uniform(0.02, 0.98, n)
    return cells(score, rng.random(n) < expit(slope * logit(score) + shift))


def windows_like(n: int = 4000, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.02, 0.98, n)


# the regression


@pytest.mark.parametrize("seed", [0, 1])
def test_the_regression_has_the_highest_penalised_likelihood(seed: int) -> None:
    one = drawn(30, slope=2.0, seed=seed)
    x, y = logit(one.score), one.is_present
    weight = np.random.default_rng(seed).integers(0, 4, 30).astype(float)

    def loss(coefficients: np.ndarray) -> float:
        odds = coefficients[0] + coefficients[1] * x
        information = weight * expit(odds) * expit(-odds)
        design = np.c_[np.ones(30), x]
        fisher = np.linalg.slogdet(design.T @ (information[:, None] * design))[1]
        return float(
            -(weight * np.where(y, -np.logaddexp(0, -odds), -np.logaddexp(0, odds))).sum() - fisher / 2
        )

    expected = minimize(loss, [0.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9}).x
    intercept, slope = fit_logistic(x, y, weight[None])
    assert [intercept[0], slope[0]] == pytest.approx(expected, abs=1e-4)


def test_with_many_cells_the_regression_is_that_of_scikit_learn() -> None:
    one = drawn(5000, slope=0.7, shift=-1.0)
    x = logit(one.score)
    expected = LogisticRegression(C=np.inf).fit(x[:, None], one.is_present)
    intercept, slope = fit_logistic(x, one.is_present, np.ones((1, 5000)))
    assert intercept[0] == pytest.approx(expected.intercept_[0], rel=0.01)
    assert slope[0] == pytest.approx(expected.coef_[0, 0], rel=0.01)


def test_a_score_that_separates_all_cells_has_a_finite_slope() -> None:
    x = np.array([-3.0, -2.5, -2.0, 1.0, 1.5, 2.0])
    weight = np.array([[1.0] * 6, [0, 0, 3, 3, 0, 0], [2, 2, 2, 0, 0, 0]])  # the last has only absent cells
    intercept, slope = fit_logistic(x, x > 0, weight)
    assert (slope[:2] > 0).all()
    assert np.isfinite([intercept, slope]).all()
    assert np.abs(slope).max() < 20


# precision above a threshold


def test_windows_are_counted_by_the_highest_candidate_that_they_reach() -> None:
    at = [float(CANDIDATES[7]), np.nextafter(CANDIDATES[7], 0), 0.0, 1.0]
    counts = count_windows(np.array(at))
    assert counts.sum() == 4
    assert {int(place) for place in np.flatnonzero(counts)} == {0, 7, 8, len(CANDIDATES)}


def test_precision_is_the_mean_probability_of_all_windows_that_reach_the_threshold() -> None:
    one, windows = drawn(300), windows_like()
    curve = precision_curve(one, count_windows(windows), are_drawn_by_score=True, n_bootstrap=10)
    intercept, slope = fit_logistic(logit(one.score), one.is_present, np.ones((1, 300)))
    probability = expit(intercept + slope * logit(windows))
    for threshold, precision, recall in zip(curve.threshold, curve.precision, curve.recall, strict=True):
        reaching = windows >= threshold
        assert precision == pytest.approx(probability[reaching].mean(), abs=0.003)
        assert recall == pytest.approx(probability[reaching].sum() / probability.sum(), abs=0.003)


def test_windows_decide_and_not_the_scores_that_were_judged() -> None:
    """Judged evenly over the scores, where most windows score low, precision is that of the windows."""
    rng = np.random.default_rng(3)
    windows = rng.beta(1, 6, 4000)
    truth = rng.random(4000) < windows
    curve = precision_curve(drawn(2000), count_windows(windows), are_drawn_by_score=True, n_bootstrap=50)
    place = int(np.searchsorted(curve.threshold, 0.2))
    actual = truth[windows >= curve.threshold[place]].mean()
    assert curve.low[place] - 0.03 < actual < curve.high[place] + 0.03
    assert actual < 0.5 < drawn(2000).is_present[drawn(2000).score >= 0.2].mean()


def test_boxes_do_not_tell_how_common_a_species_is() -> None:
    """As many present as absent boxes, where one window in 20 has the species: the share is found."""
    rng = np.random.default_rng(4)
    is_call = rng.random(6000) < 0.05
    windows = expit(np.where(is_call, rng.normal(1, 1, 6000), rng.normal(-2, 1, 6000)))
    boxes = cells(
        expit(np.r_[rng.normal(1, 1, 400), rng.normal(-2, 1, 400)]), np.r_[np.ones(400), np.zeros(400)]
    )
    curve = precision_curve(boxes, count_windows(windows), are_drawn_by_score=False, n_bootstrap=100)
    naive = precision_curve(boxes, count_windows(windows), are_drawn_by_score=True, n_bootstrap=100)
    for aim in (0.3, 0.5, 0.7):
        place = int(np.searchsorted(curve.threshold, aim))
        actual = is_call[windows >= curve.threshold[place]].mean()
        assert curve.precision[place] == pytest.approx(actual, abs=0.06)
        assert naive.precision[place] > actual + 0.1 or aim == 0.7
    assert curve.recall[int(np.searchsorted(curve.threshold, 0.5))] == pytest.approx(
        (windows[is_call] >= 0.5).mean(), abs=0.06
    )


def test_the_share_of_windows_is_that_of_the_em_algorithm() -> None:
    rng = np.random.default_rng(5)
    log_ratio, windows = rng.normal(0, 2, (3, len(CANDIDATES) + 1)), rng.integers(0, 9, len(CANDIDATES) + 1)
    ratio, share = np.exp(log_ratio), np.full(3, 0.5)
    for _ in range(3000):
        posterior = share[:, None] * ratio / (1 - share[:, None] + share[:, None] * ratio)
        share = posterior @ windows / windows.sum()
    found = probability_at_share(log_ratio, windows)
    assert found @ windows / windows.sum() == pytest.approx(share, abs=1e-6)


def test_cells_of_one_recording_are_drawn_together() -> None:
    """Twenty cells of a recording that agree are worth one: over cells the interval would be too narrow."""
    rng = np.random.default_rng(6)
    score = np.repeat(rng.uniform(0.1, 0.9, 20), 20)
    verdict = np.repeat(rng.random(20) < 0.6, 20)
    windows = count_windows(windows_like())

    def width(unit: np.ndarray) -> float:
        curve = precision_curve(
            cells(score, verdict, unit), windows, are_drawn_by_score=True, n_bootstrap=300
        )
        place = int(np.searchsorted(curve.threshold, 0.5))
        return float(curve.high[place] - curve.low[place])

    assert width(np.repeat(np.arange(20), 20)) > 2.5 * width(np.arange(400))


@pytest.mark.parametrize("are_drawn_by_score", [True, False])
def test_an_interval_is_over_what_units_that_are_repeated_would_give(are_drawn_by_score: bool) -> None:
    one, windows = drawn(40, seed=2), count_windows(windows_like())
    one = cells(one.score, one.is_present, np.arange(40) // 2)

    def curve(judged: JudgedCells, n_bootstrap: int) -> PrecisionCurve:
        return precision_curve(
            judged, windows, are_drawn_by_score=are_drawn_by_score, n_bootstrap=n_bootstrap, seed=3
        )

    found = curve(one, 20)
    units = np.random.default_rng(3).multinomial(20, np.full(20, 1 / 20), 20)
    unit_of_cell = np.unique(one.unit, return_inverse=True)[1]
    repeats = [np.repeat(np.arange(40), n_times[unit_of_cell]) for n_times in units]
    again = [curve(cells(one.score[rows], one.is_present[rows]), 1).precision for rows in repeats]
    ends = np.quantile(again, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], axis=0)
    assert found.low == pytest.approx(ends[0], abs=1e-4)
    assert found.high == pytest.approx(ends[1], abs=1e-4)


def test_the_lower_end_is_below_the_truth_as_often_as_it_says() -> None:
    windows = windows_like()
    truth = windows[windows >= 0.7].mean()  # the score is the probability
    below = []
    for seed in range(60):
        curve = precision_curve(
            drawn(60, seed=seed), count_windows(windows), are_drawn_by_score=True, n_bootstrap=200
        )
        below.append(curve.low[int(np.searchsorted(curve.threshold, 0.7))] < truth)
    assert np.mean(below) >= 0.9


# the choice


def evidence(one: JudgedCells, kind: Any = "verdicts", floor: float = 0.0) -> SpeciesEvidence:
    return SpeciesEvidence(kind, one, count_windows(windows_like()), floor)


def test_more_precision_never_takes_a_lower_threshold() -> None:
    one, asked = {"3": evidence(drawn(80, slope=2.0))}, (0.5, 0.7, 0.9, 0.9999)
    found = [choose_thresholds(one, precision)[0] for precision in asked]
    thresholds = [each.threshold or 2.0 for each in found]
    assert thresholds == sorted(set(thresholds))
    assert thresholds[0] < 0.5
    assert thresholds[-1] == 2.0  # not reached
    for each, precision in zip(found[:-1], asked, strict=False):
        assert each.place is not None
        assert each.curve is not None
        assert (each.curve.low[: each.place] < precision).all()
        assert each.curve.low[each.place] >= precision
        judged = each.evidence.cells
        assert (judged.score[judged.is_present] >= each.threshold).sum() >= MIN_REACHING


def test_boxes_and_verdicts_are_each_taken_as_they_were_drawn() -> None:
    judged = drawn(80, slope=2.0, shift=1.0)
    windows = count_windows(np.random.default_rng(1).beta(1, 6, 4000))  # mostly low
    precision = {}
    for kind in ("boxes", "verdicts"):
        (chosen,) = choose_thresholds({"3": SpeciesEvidence(kind, judged, windows)}, 0.7)
        expected = precision_curve(judged, windows, are_drawn_by_score=kind == "verdicts", n_bootstrap=2)
        assert chosen.curve is not None
        precision[kind] = chosen.curve.precision
        assert precision[kind] == pytest.approx(expected.precision, abs=1e-6)
    assert np.abs(precision["boxes"] - precision["verdicts"]).max() > 0.05


def test_no_threshold_is_below_the_floor_or_above_what_was_judged() -> None:
    good = cells(np.linspace(0.3, 0.6, 40), np.ones(40))
    (chosen,) = choose_thresholds({"3": evidence(good, floor=0.35)}, 0.5)
    assert chosen.threshold is not None
    assert 0.35 <= chosen.threshold < 0.36
    (chosen,) = choose_thresholds({"3": evidence(good, floor=0.7)}, 0.5)
    assert chosen.state is ThresholdState.NOT_REACHED


def test_the_floor_itself_and_the_fifth_highest_present_cell_can_be_a_threshold() -> None:
    good = cells(np.linspace(0.3, 0.6, 40), np.arange(40) > 3)
    floor = float(CANDIDATES[100])
    curve = precision_curve(good, count_windows(windows_like()), are_drawn_by_score=True, floor=floor)
    assert curve.threshold[0] == floor
    at = replace(curve, threshold=np.array([good.score[-MIN_REACHING], good.score[-MIN_REACHING] + 1e-9]))
    assert can_be_chosen(at, good).tolist() == [True, False]


def test_a_score_that_falls_with_presence_reaches_nothing() -> None:
    (chosen,) = choose_thresholds({"3": evidence(drawn(200, slope=-2.0))}, 0.1)
    assert chosen.state is ThresholdState.NOT_REACHED
    assert chosen.curve is not None
    assert chosen.curve.slope < 0


def half(n_present: int, n_absent: int) -> JudgedCells:
    return cells(np.linspace(0.9, 0.1, n_present + n_absent), np.arange(n_present + n_absent) < n_present)


@pytest.mark.parametrize(
    ("one", "kind", "is_enough"),
    [
        (half(10, 10), "boxes", True),
        (half(9, 30), "boxes", False),
        (half(30, 9), "boxes", False),
        (half(10, 9), "verdicts", False),
        (half(20, 0), "verdicts", True),
        (half(0, 20), "verdicts", True),
        (cells(np.linspace(0.1, 0.9, 40), np.arange(40) > 20, np.arange(40) % 9), "verdicts", False),
        (cells(np.linspace(0.1, 0.9, 40), np.arange(40) > 20, np.arange(40) % 10), "verdicts", True),
    ],
)
def test_too_few_cells_or_recordings_give_no_threshold(one: JudgedCells, kind: str, is_enough: bool) -> None:
    (chosen,) = choose_thresholds({"3": evidence(one, kind)}, 0.5)
    assert (chosen.state is not ThresholdState.TOO_FEW) == is_enough


def test_verdicts_replace_boxes_where_there_are_enough() -> None:
    boxes = {name: evidence(half(10, 10), "boxes") for name in ("3", "03")}
    verdicts = {"3": evidence(half(10, 10)), "03": evidence(half(10, 9))}
    assert [one.kind for one in best_evidence(boxes, verdicts, 20).values()] == ["verdicts", "boxes"]
    assert best_evidence({}, verdicts, 20) == verdicts  # of a blend
    assert best_evidence(boxes, {}, 20) == boxes


def test_the_table_is_one_that_detections_read(tmp_path: Path) -> None:
    chosen = choose_thresholds(
        {"3": evidence(drawn(80, slope=2.0)), "03": evidence(half(2, 2)), "17": evidence(half(0, 20))}, 0.7
    )
    table = threshold_table(chosen)
    assert table.columns.tolist() == THRESHOLD_COLUMNS
    assert table["state"].tolist() == ["reached", "too few", "not reached"]
    table.to_csv(tmp_path / "thresholds.csv", index=False)
    read = read_thresholds(str(tmp_path / "thresholds.csv"), ["3", "03", "17"], "exp1@0123")
    assert read == {"3": chosen[0].threshold}


# the evidence


def test_a_box_has_the_score_of_the_network_that_has_not_seen_its_recording() -> None:
    out_of_fold = window_evidence(scores(), "attention_max", CLIP_FRAMES, FRAMES_PER_S)
    folds = pd.DataFrame({"recording_id": ["055088446", "1e5", "NA"], "fold": [0, 1, 0]})
    found = evidence_of_boxes(LABELS, folds, out_of_fold)
    assert list(found) == SPECIES
    assert found["3"].cells.score == pytest.approx([0.1, 0.2])
    assert found["3"].cells.is_present.tolist() == [True, False]
    assert found["3"].cells.unit.tolist() == ["055088446", "NA"]
    assert found["03"].cells.score == pytest.approx([0.7, 0.9])
    assert found["3"].windows.sum() == 9
    assert found["3"].windows[CANDIDATES.searchsorted(0.7) :].sum() == 2  # 0.8 and 0.9

    grouped = evidence_of_boxes(LABELS, folds.assign(group=["bay", "hill", "bay"]), out_of_fold)
    assert grouped["3"].cells.unit.tolist() == ["bay", "bay"]


def test_scores_of_networks_that_saw_the_recordings_are_refused() -> None:
    detector: Any = SimpleNamespace(factors=None, species=SPECIES)
    seen = scores()
    object.__setattr__(seen, "fold", None)
    with pytest.raises(UserError, match="not out-of-fold"):
        judged_out_of_fold(seen, infer_params(), detector, CLIP_FRAMES, FRAMES_PER_S)


def test_boxes_have_the_scores_that_new_recordings_would_have() -> None:
    detector: Any = SimpleNamespace(factors=np.array([3.0, 1.0]), species=SPECIES[::-1])
    steps = infer_params(temperature=2.0)
    found = judged_out_of_fold(scores(), steps, detector, CLIP_FRAMES, FRAMES_PER_S)
    softened = expit(logit(np.array([0.1, 0.8, 0.9])) / 2)
    assert found.probability[:3, 0] == pytest.approx(softened, abs=1e-6)
    odds = 3 * np.exp(logit(np.array([0.2, 0.3, 0.1])) / 2)
    assert found.probability[:3, 1] == pytest.approx(odds / (1 + odds), abs=1e-6)


class Reviewed:
    """A folder of predictions, and the detector that made it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.detector: Any = SimpleNamespace(species=["3", "07", "x1"], key="k", reference="mine@0123")
        write_predictions(folder, rows(*WINDOWS))
        self.describe(key="k")

    def describe(self, **changes: object) -> None:
        about = json.loads((self.folder / "about.json").read_text()) | {"detector": "theirs@4567"} | changes
        (self.folder / "about.json").write_text(json.dumps(about))

    def judge(self, *verdicts: tuple[object, ...]) -> None:
        pd.DataFrame(verdicts, columns=VERDICT_COLUMNS).to_csv(self.folder / "verdicts.csv", index=False)


@pytest.fixture
def reviewed(tmp_path: Path) -> Reviewed:
    return Reviewed(tmp_path / "june")


def test_verdicts_are_cells_among_all_windows_of_the_predictions(reviewed: Reviewed) -> None:
    reviewed.judge(
        ("a.wav", 0, 2, "x1", 0.4, "absent"),
        ("a.wav", 1.5, 3.5, "x1", 0.9, "present"),
        ("a.wav", 3.5, 5.5, "x1", 0.5, "unsure"),
        ("a.wav", 1.5, 3.5, "07", 0.6, "present"),
    )
    found = verdict_evidence([reviewed.folder], reviewed.detector)
    assert found["x1"].cells.score.tolist() == [0.4, 0.9]
    assert found["x1"].cells.is_present.tolist() == [False, True]
    assert set(found["x1"].cells.unit) == {f"{reviewed.folder}/a.wav"}
    assert {name: one.windows.sum() for name, one in found.items()} == {"3": 0, "07": 1, "x1": 5}
    assert found["x1"].floor == 0.1


def test_several_folders_count_together(reviewed: Reviewed, tmp_path: Path) -> None:
    second = Reviewed(tmp_path / "july")
    for one in (reviewed, second):
        one.judge(("a.wav", 0, 2, "x1", 0.4, "absent"))
    second.describe(floor=0.3)
    found = verdict_evidence([second.folder, reviewed.folder], reviewed.detector)["x1"]
    assert found.cells.n_units == 2
    assert found.windows.sum() == 10
    assert found.floor == 0.3


def test_verdicts_of_a_folder_do_not_count_twice(reviewed: Reviewed, tmp_path: Path) -> None:
    reviewed.judge(("a.wav", 0, 2, "x1", 0.4, "absent"))
    (tmp_path / "link").symlink_to(reviewed.folder)
    with pytest.raises(UserError, match=r"--verdicts .*link: is given twice"):
        verdict_evidence([reviewed.folder, tmp_path / "link"], reviewed.detector)


def test_verdicts_on_other_scores_are_refused(reviewed: Reviewed, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"june.*verdicts\.csv: not found; `callboard review` writes it"):
        verdict_evidence([reviewed.folder], reviewed.detector)
    reviewed.judge(("a.wav", 0, 2, "x2", 0.4, "absent"))
    with pytest.raises(UserError, match=r"verdicts\.csv row 2: unknown species 'x2'"):
        verdict_evidence([reviewed.folder], reviewed.detector)
    reviewed.describe(key="different")
    with pytest.raises(UserError, match=r"june: has predictions of theirs@4567, not of mine@0123"):
        verdict_evidence([reviewed.folder], reviewed.detector)
    with pytest.raises(UserError, match=r"gone.*about\.json: not found; `callboard predict` writes it"):
        verdict_evidence([tmp_path / "gone"], reviewed.detector)


def test_verdicts_on_predictions_of_the_exported_detector_count(reviewed: Reviewed) -> None:
    reviewed.judge(("a.wav", 0, 2, "x1", 0.4, "absent"))
    reviewed.describe(key="that of the file", detector="mine@0123")
    assert len(verdict_evidence([reviewed.folder], reviewed.detector)["x1"].cells.score) == 1
