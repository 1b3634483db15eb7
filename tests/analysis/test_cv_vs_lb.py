from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from callboard import cli
from callboard.analysis.correlation import Correlation, pearson, spearman
from callboard.analysis.cv_vs_lb import (
    ScoredRun,
    author_points,
    best_by_cv,
    blocks,
    is_lost,
    pairs,
    points,
    points_of_results,
    range_alone,
    trust,
)
from callboard.core.errors import UserError
from callboard.experiments.author_scores import author_rows, author_runs, import_runs
from callboard.experiments.table import read_experiments
from callboard.reports.cv_vs_lb import (
    conclusion,
    correlations,
    estimates_text,
    followings,
    heading,
    lost_places,
    marked,
    recommendation,
    verdict_text,
)
from callboard.results.cv_metrics import CV_NAMES
from callboard.results.rows import BoardRow
from tests.experiments.test_author_scores import COMPETITION, folder
from tests.toy_results import runs

ROOT = Path(__file__).parents[2]

__all__ = ["folder"]

START = datetime(2021, 1, 1, tzinfo=UTC)


def row(number: int, cv: float = 0.5, lb: float = 0.5, **fields) -> BoardRow:
    metrics = {"cv.lwlrap": cv, "lb.public": lb, "lb.private": lb}
    blank = BoardRow(f"e{number}", {}, metrics, START + timedelta(hours=number), "", {}, key=f"k{number}")
    told = {"data_md5": "d", "clips_md5": "c", "oof_md5": f"o{number}", "submission_md5": f"s{number}"}
    return replace(blank, **(told | fields))


def runs_of(cv, lb) -> list[ScoredRun]:
    return [ScoredRun(f"e{k}", x, y, k) for k, (x, y) in enumerate(zip(cv, lb, strict=True))]


def following(n, rho, seed=0) -> list[ScoredRun]:
    rng = np.random.default_rng(seed)
    cv = rng.normal(size=n)
    return runs_of(cv, rho * cv + np.sqrt(1 - rho**2) * rng.normal(size=n))


# The author's history


@pytest.fixture(scope="module")
def history() -> list[ScoredRun]:
    return author_points(read_experiments(ROOT / "experiments.yaml"))


def test_the_author_s_correlations_block_by_block(history):
    found = trust(history).blocks
    assert [block.correlations["Pearson"].n for block in found] == [16, 16, 29]
    assert [round(block.correlations["Pearson"].value, 2) for block in found] == [0.88, 0.23, -0.38]
    assert [block.name.partition(" ")[0] for block in found] == ["exp0001", "exp0021", "exp0035"]


def test_the_joined_blocks_are_his_1_to_3_his_4_and_his_5_to_8(history):
    assert [{run.block for run in block} for block in blocks(history)] == [{1, 2, 3}, {4}, {5, 6, 7, 8}]


def test_of_his_last_blocks_he_is_warned(history):
    found = trust(history)
    assert any("in the last 29, exp0035 … exp0063-max_focal" in text for text in lost_places(found))
    assert "choose by LB or hold-outs, not by CV" in conclusion(found)
    assert conclusion(found).startswith("WARNING: CV does not order LB")


def test_before_his_last_blocks_he_is_not(history):
    found = trust([run for run in history if isinstance(run.block, int) and run.block <= 4])
    assert not found.is_lost


@pytest.mark.slow
def test_imported_runs_say_the_same_as_the_table(folder, history):
    table = read_experiments(ROOT / "experiments.yaml")
    some = [run for run in author_runs(table, COMPETITION) if run.start_ms % 7 == 0]
    import_runs(some)
    imported = {
        run.data.tags["callboard.row"]: (
            run.data.metrics["cv.lwlrap"],
            run.data.metrics["lb.public"],
            int(run.data.tags["callboard.block"]),
        )
        for run in runs(folder, "author")
        if {"cv.lwlrap", "lb.public"} <= run.data.metrics.keys()
    }
    names = {run.name.removesuffix(" (author)") for run in some}
    assert imported == {run.name: (run.cv, run.lb, run.block) for run in history if run.name in names}
    assert len(imported) > 5


def test_what_is_to_be_imported_says_the_same_as_the_table_in_every_row(history):
    table = read_experiments(ROOT / "experiments.yaml")
    made = author_runs(table, COMPETITION)
    scored = [run for run in made if {"cv.lwlrap", "lb.public"} <= run.metrics.keys()]
    assert [(run.name, run.metrics["cv.lwlrap"], run.metrics["lb.public"]) for run in scored] == [
        (f"{run.name} (author)", run.cv, run.lb) for run in history
    ]
    assert len(made) == len(author_rows(table))


# Which runs


def test_runs_without_a_partner_or_of_other_data_are_counted_not_used():
    rows = [row(number) for number in range(3)]
    rows += [
        replace(row(3), metrics={"cv.lwlrap": 0.5}),
        replace(row(4), metrics={"lb.public": 0.5}),
        row(5, data_md5="other"),
        row(6, clips_md5="other"),
        row(7, oof_md5="o1", submission_md5="s1"),
        row(8, oof_md5="o1"),  # another submission, as one of infer.folds: max
    ]
    kept, left_out = points_of_results(rows)
    assert [one.name for one in kept] == ["e0", "e1", "e2", "e8"]
    assert left_out == {
        "without LB": 1,
        "without CV": 1,
        "of different data": 2,
        "with the same scores as another": 1,
    }


def test_results_of_other_features_are_of_the_same_truth():
    coarse, fine = {"features.n_mels": "64"}, {"features.n_mels": "128"}
    rows = [row(number, params=coarse) for number in range(3)]
    finer = row(3, clips_md5="finer", params=fine)
    as_before = row(4, params=fine)  # the same table of clips
    corrected = [row(5, clips_md5="others", params=coarse), row(6, clips_md5="others, finer", params=fine)]
    kept, left_out = points_of_results([*rows, finer, as_before, *corrected])
    assert [one.name for one in kept] == ["e0", "e1", "e2", "e4"]
    assert left_out == {"of different data": 3}
    assert [one.name for one in points_of_results([*rows, finer])[0]] == ["e0", "e1", "e2", "e3"]
    of_two_features = [
        row(7, data_md5="x"),
        *(row(8 + k, data_md5="x", clips_md5="y", params=fine) for k in (0, 1, 2)),
    ]
    assert len(points_of_results([*of_two_features, *rows])[0]) == 4
    ten = [row(10 + k, params=coarse, clips_md5="c") for k in range(10)]
    ten += [row(20 + k, params=fine, clips_md5="finer") for k in range(10)]
    corrected = row(30, params=fine, clips_md5="corrected")
    assert points_of_results([*ten, corrected])[0] == ten


def test_it_is_told_whose_cv_cannot_be_trusted():
    chosen = row(1, params={"train.select": "best"})
    unisolated = row(2, params={"pseudo.rounds": "1", "pseudo.isolation": "none"})
    assert marked([row(0)]) == ""
    assert "1 optimistic (*) and 1 not out of fold (!)" in marked([row(0), chosen, unisolated])
    assert "board: 2 optimistic (*); these can" in marked([row(0), chosen, replace(chosen, name="again")])


def test_results_whose_hashes_are_not_known_are_not_the_same():
    rows = [row(number, oof_md5="", submission_md5="") for number in range(3)]
    assert len(points_of_results(rows)[0]) == 3


def test_another_lb_can_be_asked_for():
    rows = [replace(row(k), metrics={"cv.lwlrap": k, "lb.private": k / 2}) for k in range(4)]
    kept, _ = points_of_results(rows, "lb.private")
    assert [one.lb for one in points(kept, "lb.private")] == [0, 0.5, 1, 1.5]


def test_fewer_than_three_are_refused_with_the_way_out():
    rows = [row(0), row(1), replace(row(2), metrics={"cv.lwlrap": 0.5})]
    with pytest.raises(UserError, match=r"needs 3 runs .* found 2 \(left out: 1 without LB\); run more rows"):
        points_of_results(rows)
    with pytest.raises(UserError, match="found 0; run more rows"):
        points_of_results([])


# Blocks


def labelled(*labels) -> list[ScoredRun]:
    return [ScoredRun(f"e{k}", 0.0, 0.0, label) for k, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("labels", "lengths"),
    [
        ("aabbcc", [6]),  # bb fills up aa, and cc alone is too few
        ("aabbccc", [4, 3]),
        ("aaaab", [5]),
        ("aaaabbb", [4, 3]),
        ("a", [1]),
        ("abcdefgh", [3, 5]),
    ],
)
def test_blocks_are_joined_until_they_are_long_enough(labels, lengths):
    assert [len(block) for block in blocks(labelled(*labels), least=3)] == lengths


def test_blocks_keep_every_run_in_order():
    history = labelled(*range(50))
    found = blocks(history)
    assert [run for block in found for run in block] == history
    assert [len(block) for block in found] == [15, 15, 20]


def test_where_cv_stops_following_is_seen():
    rng = np.random.default_rng(0)
    cv = rng.normal(size=60)
    lb = np.concatenate([cv[:30] + 0.2 * rng.normal(size=30), rng.normal(size=30) - cv[30:]])
    found = trust(runs_of(cv, lb), least=30)
    first, second = found.blocks
    assert first.change is None
    assert second.change is not None
    assert second.change.high < 0
    assert any(text.startswith("in the last 30") for text in lost_places(found))


# Range restriction


def test_the_best_third_is_by_cv_with_ties_at_its_edge():
    assert best_by_cv(np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9])).nonzero()[0].tolist() == [6, 7, 8]
    assert best_by_cv(np.array([1.0, 2, 3, 4, 5, 7, 7, 7, 9])).sum() == 4
    assert best_by_cv(np.array([1.0, 2, 3])).all()


def test_what_range_alone_leaves_is_thorndike_s_case_2():
    cv, lb = pairs(following(3000, 0.7))
    is_best = best_by_cv(cv)
    r, narrower = np.corrcoef(cv, lb)[0, 1], cv[is_best].std() / cv.std()
    closed_form = r * narrower / np.sqrt(1 - r**2 + r**2 * narrower**2)
    found = range_alone(pearson, cv, lb)
    assert found.value == pytest.approx(closed_form, abs=0.01)
    assert found.low < np.corrcoef(cv[is_best], lb[is_best])[0, 1] < found.high
    assert closed_form < r - 0.2


@pytest.mark.slow
def test_a_fall_that_range_explains_is_no_warning():
    """Correlation 0.45: among the best of 30 it is at or below 0 in many draws; nothing is wrong."""
    found = [trust(following(30, 0.45, seed)) for seed in range(25)]
    fallen = [one for one in found if is_lost(one.best["Spearman"])]
    assert len(fallen) >= 3
    assert sum(one.is_lost_among_best for one in fallen) <= 1


def test_a_loss_among_the_best_is_warned_of():
    rng = np.random.default_rng(0)
    cv = np.arange(60.0)
    lb = np.where(cv < 40, cv, 80 - cv) + rng.normal(size=60)
    found = trust(runs_of(cv, lb), least=60)
    assert not found.is_lost
    assert found.is_lost_among_best
    assert "among the best 20 by CV" in conclusion(found)
    assert "no longer predicts LB among the best" in verdict_text(found)


# Words


@pytest.mark.parametrize(
    ("value", "low", "high", "n", "lost"),
    [
        (0.1, -0.1, 0.29, 50, True),  # surely weak
        (0.1, -0.3, 0.5, 50, False),  # may be anything
        (0.0, -0.5, 0.5, 10, True),
        (-0.1, -0.6, 0.5, 9, False),  # too few to say
        (np.nan, np.nan, np.nan, 50, False),
    ],
)
def test_what_counts_as_lost(value, low, high, n, lost):
    assert is_lost(Correlation(value, low, high, n)) == lost


def test_a_cv_that_follows_says_so_without_a_warning():
    text = conclusion(trust(following(45, 0.95)))
    assert text.startswith("CV follows LB: Spearman +0.9")
    assert "WARNING" not in text


def test_a_cv_against_lb_is_warned_of():
    assert "WARNING: CV does not order LB over all 45 runs" in conclusion(trust(following(45, -0.3)))


def test_few_runs_tell_nothing():
    for lb in ([1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]):
        found = trust(runs_of([1, 2, 3, 4, 5, 6], lb))
        assert conclusion(found) == "6 runs are too few to say whether CV follows LB: 10 are needed.\n"
        assert not found.is_lost
        assert not found.is_lost_among_best
    assert verdict_text(trust(following(9, 1.0))).startswith("9 runs are too few")
    assert verdict_text(trust(following(10, 1.0))).startswith("CV follows LB: Spearman +1.00")


def test_more_runs_may_not_tell_either():
    assert "12 runs do not show whether CV follows LB" in verdict_text(
        trust(runs_of(range(12), [2, 0, 4, 3, 9, 1, 8, 0.5, 5, 7, 6, 2.5]))
    )


def test_equal_scores_tell_nothing():
    found = trust(runs_of([0.5, 0.5, 0.5], [0.1, 0.2, 0.3]))
    assert verdict_text(found) == "CV or LB is the same in all runs: there is nothing to correlate."
    assert "| all runs" in correlations(found)


def test_the_heading_tells_what_was_left_out():
    assert heading(5, "x against y", Counter()) == "trust: x against y over 5 runs.\n"
    assert heading(5, "x", Counter({"without LB": 2})) == "trust: x over 5 runs; left out: 2 without LB.\n"


# Estimates


def estimated(n=60, seed=0):
    """LB follows `prevalence` closely, the pooled CV loosely, and `macro_ap` not at all."""
    rng = np.random.default_rng(seed)
    lb = rng.normal(size=n)
    rows = [row(k, lb=value) for k, value in enumerate(lb)]
    noisy = {"lwlrap": lb + rng.normal(size=n), "prevalence": lb + 0.1 * rng.normal(size=n)}
    noisy |= {"fold_mean": noisy["lwlrap"], "macro_ap": rng.normal(size=n)}
    return rows, {one.key: {name: noisy[name][k] for name in noisy} for k, one in enumerate(rows)}


def test_the_estimate_that_follows_best_is_on_top_and_recommended():
    table = followings(*estimated())
    text = estimates_text(table)
    names = [line.split("|")[1].strip() for line in text.splitlines()[2:-1]]
    assert names == ["prevalence", "lwlrap", "fold_mean", "macro_ap"]
    assert "prevalence follows LB better than lwlrap beyond noise" in text
    assert "the same" in text.splitlines()[4]
    assert table["macro_ap"]["lb.public"].over_pooled.high < 0


def test_without_an_advantage_beyond_noise_the_pooled_one_is_kept():
    rows, estimates = estimated()
    rng = np.random.default_rng(1)
    for values in estimates.values():
        values["prevalence"] = values["lwlrap"] + 0.05 * rng.normal()
    assert recommendation(followings(rows, estimates)).endswith("keep lwlrap.")


def test_of_few_runs_no_estimate_is_recommended():
    rows, estimates = estimated(9)
    estimates = {key: values | {"lwlrap": -values["prevalence"]} for key, values in estimates.items()}
    told = recommendation(followings(rows, estimates))
    assert told == "9 runs are too few to say which estimate follows LB best: keep lwlrap."


def test_an_advantage_on_one_leaderboard_only_is_not_enough():
    rows, estimates = estimated()
    rng = np.random.default_rng(1)
    rows = [replace(one, metrics=one.metrics | {"lb.private": float(rng.normal())}) for one in rows]
    assert recommendation(followings(rows, estimates)).endswith("keep lwlrap.")


def test_estimates_that_a_run_lacks_are_not_compared():
    rows, estimates = estimated()
    del estimates["k7"]["prevalence"]
    assert set(followings(rows, estimates)) == {"lwlrap", "fold_mean", "macro_ap"}
    del estimates["k7"]["lwlrap"]
    assert followings(rows, estimates) == {}
    assert estimates_text({}) == ""


def test_their_order_is_that_of_spearman():
    rows, estimates = estimated()
    values = np.array([estimates[one.key]["macro_ap"] for one in rows])
    lb = np.array([one.metrics["lb.public"] for one in rows])
    found = followings(rows, estimates)["macro_ap"]["lb.public"].by_rank.value
    assert found == pytest.approx(spearman(values[None], lb[None])[0])


# The command


def test_the_author_s_history_is_told_with_its_warning(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    cli.dispatch(["trust", "--author"])
    told = capsys.readouterr().out
    assert "over 61 runs; left out: 16 without CV or LB" in told
    assert "| exp0035 … exp0063-max_focal |  29 | -0.38 (" in told
    assert "WARNING" in told


def test_results_are_told_with_their_estimates(monkeypatch, capsys):
    rows, estimates = estimated()
    rows = [replace(one, params={"train.epochs": "12"}) for one in rows] + [row(99)]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("callboard.results.rows.read_rows", lambda: rows)
    monkeypatch.setattr("callboard.analysis.cv_estimates.estimates_of", lambda found: estimates)
    cli.dispatch(["trust", "--where", "train.epochs=12.0"])
    told = capsys.readouterr().out
    assert "cv.lwlrap against lb.public over 60 runs." in told
    assert CV_NAMES["prevalence"] in told
    cli.dispatch(["trust", "--where", "train.epochs!=13", "--where", "train.epochs!=absent"])
    assert "over 60 runs." in capsys.readouterr().out
    with pytest.raises(UserError, match="--where epochs: should be KEY=VALUE"):
        cli.dispatch(["trust", "--where", "epochs"])
    with pytest.raises(UserError, match=r"train\.epochs is 12, absent"):
        cli.dispatch(["trust", "--where", "train.epochs=13"])
    with pytest.raises(UserError, match="leave out --author"):
        cli.dispatch(["trust", "--author", "--where", "train.epochs=12"])
