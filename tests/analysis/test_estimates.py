import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from callboard.analysis.cv_estimates import (
    ESTIMATES,
    Scored,
    estimates_of,
    expected_shares,
    prevalence_weighted,
    scored,
    share_weighted,
    species_precisions,
)
from callboard.core.errors import UserError
from callboard.data.score_tables import read_score_table, write_score_table
from callboard.results.cv_metrics import CV_NAMES
from callboard.results.dvc_cache import DamagedFileError, cached_file, cached_in_folder
from callboard.results.lookup import find
from callboard.results.result import CLIPS, OUT_OF_FOLD, SUBMISSION
from callboard.results.result import SUBMISSIONS_WITHOUT as WITHOUT
from callboard.results.rows import BoardRow
from callboard.scoring.evaluation import CrossValidation
from callboard.scoring.metrics import lwlrap
from callboard.scoring.prevalence import estimate_prevalence, with_odds_times
from tests.reports.test_result_page import ToyResult
from tests.toy_git import ToyRepository

SPECIES = ["3", "7", "9"]
COLUMNS = ["s3", "s7", "s9"]


def toy_tables(seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Out-of-fold scores of 12 recordings in two folds, clips, and scores of 5 test recordings."""
    rng = np.random.default_rng(seed)
    ids = [f"r{number:02}" for number in range(12)]
    oof = pd.DataFrame(rng.uniform(0.01, 0.99, (12, 3)), columns=COLUMNS)
    oof.insert(0, "recording_id", ids)
    oof.insert(1, "fold", [number % 2 for number in range(12)])
    clips = [(ids[k], SPECIES[k % 3], "tp") for k in range(10)]
    clips += [("r00", "7", "tp"), ("r01", "9", "fp"), ("r11", "3", "fp"), ("r02", "3", "fp")]
    submission = pd.DataFrame(rng.uniform(0.01, 0.99, (5, 3)), columns=COLUMNS)
    submission.insert(0, "recording_id", [f"t{number}" for number in range(5)])
    return oof, pd.DataFrame(clips, columns=["recording_id", "species_id", "label_type"]), submission


def toy_result(seed: int = 0) -> Scored:
    return scored(*toy_tables(seed))


def test_what_cv_json_holds_too_is_the_same_number():
    result = toy_result()
    told = result.cv.summary(n_bootstrap=0, seed=0)
    assert {name: ESTIMATES[name](result) for name in ESTIMATES if name != "prevalence"} == {
        name: pytest.approx(told[name]) for name in ESTIMATES if name != "prevalence"
    }


def test_every_estimate_has_words():
    assert list(CV_NAMES) == list(ESTIMATES)


def random_presence(rng):
    is_present = rng.random((40, 5)) < 0.3
    is_present[0] = True
    return is_present, rng.normal(size=(40, 5)).round(1)  # with ties


@pytest.mark.parametrize("seed", range(3))
def test_shares_as_in_training_give_plain_lwlrap(seed):
    is_present, scores = random_presence(np.random.default_rng(seed))
    weighted = share_weighted(is_present, scores, is_present.sum(axis=0).astype(float))
    assert weighted == pytest.approx(lwlrap(is_present, scores))


def test_shares_equal_a_data_set_with_recordings_repeated():
    is_present = np.eye(3, dtype=bool)
    scores = np.array([[3.0, 2, 1], [3, 2, 1], [3, 2, 1]])  # precisions 1, 1/2, 1/3
    repeated = np.repeat(np.arange(3), [4, 1, 2])
    assert share_weighted(is_present, scores, np.array([4.0, 1, 2])) == pytest.approx(
        lwlrap(is_present[repeated], scores[repeated])
    )
    assert species_precisions(is_present, scores) == pytest.approx([1, 1 / 2, 1 / 3])


def test_a_species_without_recordings_counts_nothing():
    is_present = np.array([[True, False], [True, False]])
    scores = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert share_weighted(is_present, scores, np.array([0.1, 0.9])) == pytest.approx(0.75)
    assert np.isnan(species_precisions(is_present, scores)[1])


def naive_prevalence_weighted(result: Scored) -> float:
    """Pair by pair, each weighted by its species' share over its number of training recordings."""
    cv, total, weights = result.cv, 0.0, 0.0
    for row, column in zip(*np.nonzero(cv.is_present), strict=True):
        above = [k for k in range(len(cv.species)) if cv.scores[row, k] >= cv.scores[row, column]]
        precision = sum(cv.is_present[row, k] for k in above) / len(above)
        weight = result.test_scores[:, column].mean() / cv.scores[:, column].mean()
        total, weights = total + weight * precision, weights + weight
    return total / weights


@pytest.mark.parametrize("seed", range(3))
def test_the_weighted_estimate_equals_its_naive_twin(seed):
    assert prevalence_weighted(toy_result(seed)) == pytest.approx(naive_prevalence_weighted(toy_result(seed)))


def test_test_scores_like_the_training_s_leave_lwlrap_as_it_is():
    result = toy_result()
    alike = Scored(result.cv, result.cv.scores)
    assert prevalence_weighted(alike) == pytest.approx(ESTIMATES["lwlrap"](result))


def test_shares_by_hand_and_a_factor_on_a_species_scores_cancels():
    oof, test = np.array([[0.2, 0.4], [0.2, 0.4]]), np.array([[0.4, 0.2]])
    assert expected_shares(np.array([1, 2]), oof, test) == pytest.approx([2 / 3, 1 / 3])
    factor = np.array([0.1, 1.0])
    assert expected_shares(np.array([1, 2]), oof * factor, test * factor) == pytest.approx([2 / 3, 1 / 3])


def test_the_order_of_true_shares_is_found_where_scores_tell_species_apart():
    rng = np.random.default_rng(0)
    truth = np.array([0.4, 0.25, 0.15, 0.12, 0.08])

    def draw(shares, n):
        is_present = np.eye(5, dtype=bool)[rng.choice(5, size=n, p=shares)]
        return is_present, np.clip(0.1 + 0.5 * is_present + rng.normal(0, 0.05, (n, 5)), 0, 1)

    is_present, oof = draw(np.full(5, 0.2), 1000)
    _, test = draw(truth, 1000)
    found = expected_shares(is_present.sum(axis=0), oof, test)
    assert spearmanr(found, truth).statistic > 0.99
    assert found[0] < truth[0]  # recordings without the species score above 0, which pulls towards training


@pytest.mark.parametrize("oof", [[[-0.1, 0.5]], [[0.0, 0.5]]])
def test_scores_that_are_no_probabilities_are_refused(oof):
    with pytest.raises(ValueError, match="scores must be probabilities"):
        expected_shares(np.array([1, 1]), np.array(oof), np.array([[0.5, 0.5]]))


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return ToyRepository(tmp_path)


def row_of(repository: ToyRepository, seed: int = 0) -> BoardRow:
    oof, clips, submission = toy_tables(seed)
    clips.to_csv(repository.root / ".dvc/clips.csv", index=False)
    md5s = {
        "oof_md5": repository.cache_table(oof),
        "clips_md5": repository.cache((repository.root / ".dvc/clips.csv").read_bytes()),
        "submission_md5": repository.cache_table(submission),
    }
    metrics = {"cv.lwlrap": 0.123, "cv.macro_ap": 0.456}
    start = datetime(2021, 1, 1, tzinfo=UTC)
    return BoardRow(f"e{seed}", {}, metrics, start, "", {}, key=f"key{seed}", data_md5="d", **md5s)


def test_the_tables_in_the_cache_are_read(repository):
    rows = [row_of(repository, seed) for seed in (0, 1)]
    found = estimates_of(rows)
    assert list(found) == ["key0", "key1"]
    for seed in (0, 1):
        expected = {name: estimate(toy_result(seed)) for name, estimate in ESTIMATES.items()}
        assert found[f"key{seed}"] == pytest.approx(expected)


def test_a_second_call_reads_no_table(repository, monkeypatch):
    rows = [row_of(repository)]
    first = estimates_of(rows)
    monkeypatch.setattr("callboard.analysis.cv_estimates.cached_file", None)
    assert estimates_of(rows) == first


@pytest.mark.parametrize("table", ["oof_md5", "clips_md5", "submission_md5"])
def test_estimates_of_other_tables_are_not_taken_from_memory(repository, table):
    """The annotations have other species in the recordings, the other tables have other scores."""
    first, second = (row_of(repository, seed) for seed in (0, 1))
    clips = toy_tables()[1].assign(
        species_id=lambda rows: rows["species_id"].map(dict(zip("379", "793", strict=True)))
    )
    other = {
        "oof_md5": second.oof_md5,
        "clips_md5": repository.cache(clips.to_csv(index=False).encode()),
        "submission_md5": second.submission_md5,
    }
    changed = replace(first, key="changed", **{table: other[table]})
    before = estimates_of([first])["key0"]
    assert estimates_of([changed])["changed"] != before
    assert estimates_of([first])["key0"] == before


def test_tables_that_left_the_cache_leave_what_mlflow_holds(repository):
    row = row_of(repository)
    for path in (repository.root / ".dvc/cache/files/md5").glob("*/*"):
        path.unlink()
    assert estimates_of([row]) == {"key0": {"lwlrap": 0.123, "macro_ap": 0.456}}
    assert not (repository.root / ".cache/estimates.json").exists()  # they may come back


def test_no_estimate_is_made_of_a_damaged_table(repository):
    row = row_of(repository)
    table = repository.root / ".dvc/cache/files/md5" / row.submission_md5[:2] / row.submission_md5[2:]
    table.write_bytes(table.read_bytes()[:-20])
    with pytest.raises(DamagedFileError, match=r"submission\.csv is damaged in DVC's cache"):
        estimates_of([row])
    assert not (repository.root / ".cache/estimates.json").exists()


def test_an_undefined_estimate_is_left_out_and_memory_stays_json(repository, monkeypatch):
    monkeypatch.setitem(ESTIMATES, "lwlrap_known", lambda result: float("nan"))
    row = row_of(repository)
    assert "lwlrap_known" not in estimates_of([row])["key0"]
    text = (repository.root / ".cache/estimates.json").read_text()
    assert "NaN" not in text
    assert json.loads(text.splitlines()[1])


def test_a_table_of_other_species_is_no_result(repository, tmp_path):
    row = row_of(repository)
    other = toy_tables()[2].rename(columns={"s3": "s4"})
    write_score_table(other, tmp_path / "other.csv")
    md5 = repository.cache((tmp_path / "other.csv").read_bytes())
    changed = BoardRow(**{**row.__dict__, "submission_md5": md5})
    assert estimates_of([changed])["key0"] == {"lwlrap": 0.123, "macro_ap": 0.456}


def rescaled_result(root: Path) -> tuple[ToyResult, BoardRow]:
    """A finished experiment with infer.prevalence 1, and its row."""
    toy = ToyResult(root)
    oof, clips, submission = toy_tables()
    found = estimate_prevalence(oof[COLUMNS].to_numpy(), submission[COLUMNS].to_numpy())
    rescaled = submission.copy()
    rescaled[COLUMNS] = with_odds_times(submission[COLUMNS].to_numpy(), found.factors(1.0))
    without = root.parent / "without"
    without.mkdir()
    write_score_table(submission, without / "prevalence.csv")
    clips.to_csv(root.parent / "clips.csv", index=False)
    toy.outs |= {
        OUT_OF_FOLD: toy.cache_table(oof),
        CLIPS: toy.cache((root.parent / "clips.csv").read_bytes()),
        SUBMISSION: toy.cache_table(rescaled),
        WITHOUT: toy.cache_folder(without),
    }
    toy.finish("rescaled")
    md5s = dict(
        zip(
            ("oof_md5", "clips_md5", "submission_md5"),
            map(toy.outs.get, (OUT_OF_FOLD, CLIPS, SUBMISSION)),
            strict=True,
        )
    )
    params = {"infer.prevalence": "1.0"}
    key = find("rescaled").key
    return toy, BoardRow("rescaled", params, {}, datetime(2021, 1, 1, tzinfo=UTC), "", {}, key=key, **md5s)


@pytest.fixture
def main(tmp_path, monkeypatch):
    """A folder for a main workspace."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "main"))
    return tmp_path / "main"


def test_a_rescaled_submission_counts_the_test_set_s_shares_once(main):
    _, row = rescaled_result(main)
    assert estimates_of([row])[row.key] == pytest.approx(
        {name: estimate(toy_result()) for name, estimate in ESTIMATES.items()}
    )
    oof, clips, _ = toy_tables()
    twice = scored(oof, clips, read_score_table(cached_file(row.submission_md5, SUBMISSION)))
    assert prevalence_weighted(twice) != pytest.approx(prevalence_weighted(toy_result()))


@pytest.mark.parametrize("lost", ["list", "file", "commit", "output"])
def test_a_rescaled_submission_whose_scores_are_lost_leaves_what_mlflow_holds(main, lost):
    toy, row = rescaled_result(main)
    listing = toy.root / ".dvc/cache/files/md5" / toy.outs[WITHOUT][:2] / toy.outs[WITHOUT][2:]
    if lost == "list":
        listing.unlink()
    elif lost == "file":
        cached_in_folder(listing, "prevalence.csv", WITHOUT).unlink()
    elif lost == "commit":
        row = replace(row, key="0123456789abcdef")
    else:
        del toy.outs[WITHOUT]
        toy.finish("without")
        row = replace(row, name="without", key=find("without").key)
    assert estimates_of([replace(row, metrics={"cv.lwlrap": 0.5})]) == {row.key: {"lwlrap": 0.5}}


def test_a_table_whose_md5_is_none_leaves_what_mlflow_holds(repository):
    row = replace(row_of(repository), metrics={"cv.lwlrap": 0.5}, oof_md5="../odd")
    assert estimates_of([row]) == {row.key: {"lwlrap": 0.5}}


def test_a_blend_of_rescaled_parts_has_no_estimate_by_prevalence(repository):
    row = row_of(repository)
    part = replace(row, params={"infer.prevalence": "0.5"})
    blend = replace(row_of(repository, 1), params={"infer.prevalence": "0.0"}, parts=(row, part))
    assert set(ESTIMATES) - set(estimates_of([blend])[blend.key]) == {"prevalence"}


def test_a_table_that_holds_no_numbers_is_told(repository: ToyRepository) -> None:
    oof, _, _ = toy_tables()
    broken = BoardRow(
        **{
            **row_of(repository).__dict__,
            "oof_md5": repository.cache_table(oof.replace(oof["s3"][0], np.nan)),
        }
    )
    with pytest.raises(UserError, match="s3 must be a number, found"):
        estimates_of([broken])


def test_a_fault_of_ours_keeps_its_traceback(
    repository: ToyRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ESTIMATES, "macro_ap", lambda result: {}["no such key"])
    with pytest.raises(KeyError, match="no such key"):
        estimates_of([row_of(repository)])


def test_scores_that_are_no_probabilities_leave_the_other_estimates() -> None:
    result = toy_result()
    logits = Scored(result.cv, result.test_scores - 1)
    assert np.isnan(prevalence_weighted(logits))
    assert ESTIMATES["lwlrap"](logits) == ESTIMATES["lwlrap"](result)


def test_recordings_without_tp_annotation_are_no_part_of_cv():
    result = toy_result()
    assert isinstance(result.cv, CrossValidation)
    assert len(result.cv.fold) == 10
