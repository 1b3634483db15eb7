"""Rows of the table over their seeds, on results by hand."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import stdev

import numpy as np
import pytest
from scipy.stats import t as student

from callboard import cli
from callboard.analysis.gains import Gain, gains_of, without_results
from callboard.analysis.verdict import Judgement, Verdict, flag_optimistic
from callboard.core.errors import UserError
from callboard.data.score_tables import score_table
from callboard.experiments.captions import Caption
from callboard.experiments.steps import TableStep
from callboard.reports.seeds import gains_markdown
from callboard.results.rows import CV, BoardRow
from tests.toy_git import ToyRepository

START = datetime(2020, 11, 20, 12, 0, tzinfo=UTC)
CAPTIONS = {
    "first": Caption("the first", None),
    "second": Caption("after it", TableStep("first", {"lr", "train.init_from"})),
    "third": Caption("nobody ran it", TableStep("second", {"lr"})),
}
LB = {"first": {416: 0.5, 1: 0.6, 2: 0.7}, "second": {416: 0.53, 1: 0.61, 2: 0.75}}


def result(name: str, seed: int, cv: float = 0.7, **params: str) -> BoardRow:
    """A result of a row and seed, called as `callboard run` calls it."""
    called = name if seed == 416 else f"{name}-seed{seed}"
    own = {"first": {"lr": "1", "train.init_from": "null"}, "second": {"lr": "2"}}[name]
    if name == "second":
        start = "first" if seed == 416 else f"first-seed{seed}"
        own["train.init_from"] = f"{start}@{seed:016x}"
    begun_from = result("first", seed) if name == "second" else None
    everything = {"seed": str(seed), **own, **params}
    metrics = {CV: cv, "lb.public": LB[name].get(seed, 0.5), "lb.private": 0.4}
    return BoardRow(
        called,
        everything,
        metrics,
        START,
        "",
        {},
        (called,),
        key=called,
        data_md5="d",
        clips_md5="c",
        begun_from=begun_from,
    )


def six() -> list[BoardRow]:
    return [result(name, seed) for seed in (416, 1, 2) for name in ("first", "second")]


def gain(rows: list[BoardRow], name: str, against: str = "") -> Gain:
    (only,) = gains_of(rows, CAPTIONS, [name], against)
    return only


def test_each_seed_is_compared_with_the_base_of_its_seed() -> None:
    found = gain(six(), "second")
    assert [(row.name, base.name) for row, base in found.pairs] == [
        ("second-seed1", "first-seed1"),
        ("second-seed2", "first-seed2"),
        ("second", "first"),
    ]
    changes = [0.03, 0.01, 0.05]
    assert found.changes["lb.public"].value == pytest.approx(np.mean(changes))
    half = student.ppf(0.975, 2) * stdev(changes) / 3**0.5
    judgement = found.judgements["lb.public"]
    assert (judgement.low, judgement.high) == pytest.approx((0.03 - half, 0.03 + half))
    assert found.judgements["lb.private"].verdict is Verdict.WITHIN_NOISE


def test_a_seed_that_the_base_lacks_counts_in_the_scores_alone() -> None:
    rows = [row for row in six() if row.name != "first-seed2"]
    found = gain(rows, "second")
    assert (len(found.rows), len(found.pairs)) == (3, 2)
    assert "2 of 3" in gains_markdown([found])
    sure, tentative = (Judgement(Verdict.BETTER, 0.1, 0.2, 1.0, is_tentative=it) for it in (False, True))
    assert "Two seeds" not in gains_markdown([replace(found, judgements={CV: sure})])
    assert "Two seeds are too few" in gains_markdown([replace(found, judgements={CV: tentative})])
    assert "0.6300 (0.1114)" in gains_markdown([found])  # of all three


def test_rows_come_in_the_table_s_order_and_those_without_results_not_at_all() -> None:
    first, second = gains_of(six()[::-1], CAPTIONS)
    assert (first.name, second.name, first.n_others) == ("first", "second", 0)
    assert (first.pairs, first.judgements, first.base) == ([], {}, "")


def test_only_results_of_the_newest_one_s_setting_count_and_the_others_are_told() -> None:
    old = result("first", 5, epochs="3")
    other_data = replace(result("first", 6), data_md5="else", key="else")
    found = gains_of([old, other_data, *six()], CAPTIONS)
    assert [row.params["seed"] for row in found[0].rows] == ["1", "2", "416"]
    assert found[0].n_others == 2
    assert "Left out: 2 results whose data or parameters differ" in gains_markdown(found)


def test_of_one_seed_the_newest_counts() -> None:
    again = replace(result("first", 1), key="again", metrics={CV: 0.9})
    assert again in gain([*six(), again], "first").rows


def test_all_rows_may_be_held_against_one() -> None:
    found = gains_of(six(), CAPTIONS, against="first")
    assert found[0].pairs == []  # itself
    assert [base.name for _, base in found[1].pairs] == ["first-seed1", "first-seed2", "first"]
    assert found[1].base == "first"
    for against, words in (
        ("third", "--against third: has no result; `callboard run third` makes one; .* are first, second"),
        ("secnd", "--against secnd: is not a row of experiments.yaml; the nearest are second"),
    ):
        with pytest.raises(UserError, match=words):
            gains_of(six(), CAPTIONS, against=against)


def test_a_row_without_a_base_is_compared_with_the_row_that_it_was_started_on() -> None:
    """As on the board; `first` of each seed was started on the commit that has the result of `zeroth`."""
    zeroth = [
        replace(
            result("first", seed), name=name, names=(name,), key=name, params={"seed": str(seed), "lr": "0"}
        )
        for seed, name in ((416, "zeroth"), (2, "zeroth-seed2"))
    ]
    rows = [replace(row, base=zeroth[0].params) if row.name.startswith("first") else row for row in six()]
    captions = {"zeroth": Caption("", None)} | CAPTIONS
    of_zeroth, of_first, of_second = gains_of([*zeroth, *rows], captions)
    assert (of_zeroth.base, of_first.base, of_second.base) == ("", "zeroth", "first")
    assert [(row.name, base.name) for row, base in of_first.pairs] == [
        ("first-seed2", "zeroth-seed2"),
        ("first", "zeroth"),
    ]
    assert len(of_second.pairs) == 3
    later = replace(result("first", 500), base=result("first", 416).params)  # started on the row itself
    long = replace(zeroth[0], key="long", params=zeroth[0].params | {"epochs": "60"})  # newer, no base
    _, of_first, _ = gains_of([*zeroth, *rows, later, long], captions)
    assert of_first.base == "zeroth"
    assert [base.key for _, base in of_first.pairs] == ["zeroth-seed2", "zeroth"]


def test_where_the_table_s_base_has_no_result_that_counts_which_it_was_started_on() -> None:
    first = result("first", 416)
    params = first.params | {"lr": "3"}
    third = replace(first, name="third", names=("third",), key="third", base=first.params, params=params)
    found = gain([first, third], "third")
    assert found.base == "first"
    assert [base.name for _, base in found.pairs] == ["first"]
    without_cv = replace(first, key="newer", metrics={})
    assert [base.key for _, base in gain([first, without_cv, third], "third").pairs] == ["first"]
    other_seed = replace(third, params=params | {"seed": "7"}, key="other seed")
    found = gain([first, other_seed], "third")
    assert (found.base, found.pairs) == ("second", [])  # what to run first to see a gain


def test_a_name_that_is_no_row_is_refused_and_one_without_result_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"scond: matches no row of experiments\.yaml; the nearest are second$"
    ):
        gains_of(six(), CAPTIONS, ["first", "scond"])
    Path("stages").touch()
    with pytest.raises(UserError, match=r"stages: matches no row .*; quote patterns, or the shell"):
        gains_of(six(), CAPTIONS, ["stages"])
    assert without_results(six(), CAPTIONS, ["first", "th*"]) == ["third"]
    assert without_results(six(), CAPTIONS, ["!first"]) == without_results(six(), CAPTIONS) == []
    found = gains_of(six(), CAPTIONS, ["first", "th*"])
    assert [one.name for one in found] == ["first"]
    assert "Rows without a result: third." in gains_markdown(found, ["third"])
    assert "row11 …." in gains_markdown(found, [f"row{k}" for k in range(14)])


def test_one_seed_takes_the_noise_of_other_rows() -> None:
    """LB public of `first` has a standard deviation of 0.1 over seeds."""
    rows = [row for row in six() if row.name in ("first", "first-seed1", "first-seed2", "second")]
    judgement = gain(rows, "second").judgements["lb.public"]
    assert judgement.high - judgement.low == pytest.approx(2 * 1.96 * 2**0.5 * 0.1, rel=1e-3)
    assert judgement.verdict is Verdict.WITHIN_NOISE


def test_a_verdict_on_an_optimistic_cv_says_so() -> None:
    isolated = [replace(row, params=row.params | {"pseudo.rounds": "0"}) for row in six()]
    students = [
        replace(row, params=row.params | {"pseudo.rounds": "1", "pseudo.isolation": "none"})
        if row.name.startswith("second")
        else row
        for row in isolated
    ]
    captions = CAPTIONS | {
        "second": Caption(
            "", TableStep("first", {"lr", "train.init_from", "pseudo.rounds", "pseudo.isolation"})
        )
    }
    (found,) = gains_of(students, captions, ["second"])
    assert found.judgements[CV].verdict is Verdict.OPTIMISTIC
    assert "0.7000!" in gains_markdown([found])


def renamed(rows: list[BoardRow], name: str, **changes: object) -> list[BoardRow]:
    """With changes to all results of one row."""
    return [replace(row, **changes) if row.name.startswith(name) else row for row in rows]


def test_one_optimistic_seed_makes_the_row_so() -> None:
    """`begun_from` is unknown of the first seed only; it may have seen anything."""
    rows = renamed(six(), "second-seed1", begun_from=None)
    found = gain(rows, "second")
    assert "0.7000*" in gains_markdown([found])
    judged = replace(found.judgements[CV], verdict=Verdict.BETTER)
    assert flag_optimistic(judged, *found.pairs[0]).verdict is Verdict.OPTIMISTIC
    assert flag_optimistic(judged, *found.pairs[-1]).verdict is Verdict.BETTER


@pytest.mark.parametrize("change", [{"clips_md5": "else"}, {"data_md5": "else"}])
def test_against_a_row_only_results_of_the_same_truth_count(change: dict[str, str]) -> None:
    assert gain(renamed(six(), "first", **change), "second", "first").pairs == []


def test_against_a_row_only_results_of_the_same_folds_count() -> None:
    moved = [
        replace(row, params=row.params | {"split.seed": "7"}) if row.name.startswith("first") else row
        for row in six()
    ]
    assert gain(moved, "second", "first").pairs == []


def test_against_a_row_with_newer_results_of_other_data_the_older_ones_count() -> None:
    elsewhere = replace(result("first", 416), data_md5="else", key="else")
    assert len(gain([*six(), elsewhere], "second", "first").pairs) == 3


def test_against_a_row_the_newest_result_of_a_seed_counts() -> None:
    again = replace(result("first", 1), key="again")
    pairs = gain([*six(), again], "second", "first").pairs
    assert [base.key for _, base in pairs] == ["again", "first-seed2", "first"]


def test_a_step_that_moves_the_seed_has_one_base() -> None:
    step = TableStep("first", {"lr", "train.init_from", "seed"})
    _, second = gains_of(six(), {"first": Caption("", None), "second": Caption("", step)})
    assert (len(second.rows), len(second.pairs)) == (3, 1)


def test_lb_of_one_of_three_seeds_is_judged_by_other_rows() -> None:
    def scored(row: BoardRow) -> BoardRow:
        known = {"lb.public": row.metrics["lb.public"]} if row.params["seed"] == "416" else {}
        return replace(row, metrics={CV: 0.7} | known)

    found = gain(list(map(scored, six())), "second")
    assert found.changes["lb.public"].value == pytest.approx(0.03)
    assert found.judgements["lb.public"].verdict is Verdict.UNSURE
    assert "lb.private" not in found.changes


def test_results_without_cv_are_none_and_seeds_are_ordered_as_numbers() -> None:
    rows = [result("first", 10), result("first", 2), replace(result("first", 3), metrics={}, key="none")]
    assert [row.params["seed"] for row in gain(rows, "first").rows] == ["2", "10"]
    base_without = [replace(row, metrics={}) if row.name == "first" else row for row in six()]
    assert len(gain(base_without, "second").pairs) == 2


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[BoardRow, float], BoardRow]:
    """Gives a result scores of 40 recordings: noise, and a margin for the species that is there."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "main"))
    monkeypatch.chdir(ToyRepository(tmp_path / "main").root)
    repository = ToyRepository.__new__(ToyRepository)
    repository.root = tmp_path / "main"
    ids = [f"r{k:02d}" for k in range(40)]
    clips = repository.cache(
        ("recording_id,species_id,label_type\n" + "".join(f"{k},3,tp\n" for k in ids)).encode()
    )

    def with_scores(row: BoardRow, margin: float) -> BoardRow:
        rng = np.random.default_rng(int(row.params["seed"]))
        scores = rng.normal(size=(40, 4)) + margin * np.array([1, 0, 0, 0])
        table = score_table(ids, ["3", "07", "x", "y"], scores).assign(fold=0)
        precision = 1 / (1 + (scores[:, 1:] >= scores[:, :1]).sum(axis=1))
        metrics = row.metrics | {CV: float(precision.mean())}
        return replace(row, oof_md5=repository.cache_table(table), clips_md5=clips, metrics=metrics)

    return with_scores


def test_cv_is_judged_on_the_mean_over_seeds_of_each_recording(
    tables: Callable[[BoardRow, float], BoardRow],
) -> None:
    rows = [tables(row, 1.5 if row.name.startswith("second") else 0.5) for row in six()]
    found = gain(rows, "second")
    values = {row.name: row.metrics[CV] for row in rows}
    expected = np.mean([values[f"second{s}"] - values[f"first{s}"] for s in ("", "-seed1", "-seed2")])
    assert found.changes[CV].value == pytest.approx(expected)
    assert found.judgements[CV].verdict is Verdict.BETTER
    single = gain([row for row in rows if "-" not in row.name], "second")
    assert (
        found.judgements[CV].high - found.judgements[CV].low
        < single.changes[CV].high - single.changes[CV].low
    )


def test_the_command_prints_or_writes_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("callboard.results.rows.read_rows", six)
    monkeypatch.setattr("callboard.experiments.captions.read_captions", lambda: CAPTIONS)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").touch()
    cli.dispatch(["gains", "sec*"])
    head, _, line, *_ = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in head.split("|")[1:6]] == [
        "row",
        "seeds",
        "CV (sd)",
        "LB public (sd)",
        "LB private (sd)",
    ]
    assert [cell.strip() for cell in line.split("|")[1:5]] == [
        "second",
        "3",
        "0.7000 (0.0000)",
        "0.6300 (0.1114)",
    ]
    cli.dispatch(["gains", "--output", "gains.md"])
    assert "gains: 2 rows in gains.md" in capsys.readouterr().out
    assert Path("gains.md").read_text().startswith("| row")
    for arguments, words in (
        (["--output", "gains.html"], "must end in .md"),
        (["nothing"], "nothing: matches no row of experiments.yaml"),
    ):
        with pytest.raises(UserError, match=words):
            cli.dispatch(["gains", *arguments])
