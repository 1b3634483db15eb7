from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from callboard import cli
from callboard.core.errors import UserError
from callboard.reports.details import species_rows
from callboard.results.mlflow.record import Origin
from callboard.results.mlflow.track import record
from callboard.results.rows import BoardRow, rows_named
from tests.toy_results import result_in, workspace

__all__ = ["workspace"]

START = datetime(2020, 11, 20, 12, 0, tzinfo=UTC)
OLD = BoardRow("exp0001", {}, {}, START, "", {}, names=("exp0001", "again"), key="aaaa000000000000")
NEW = replace(OLD, key="aaaa111111111111")
OTHER = replace(OLD, name="exp0058", names=(), key="bbbb000000000000")
ROWS = [OLD, NEW, OTHER]


@pytest.fixture
def no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


@pytest.mark.usefixtures("no_git")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("exp0001", [OLD, NEW]),
        ("again", [OLD, NEW]),
        ("exp0001@aaaa000000000000", [OLD]),
        ("exp0001@aaaa11", [NEW]),
        ("bbbb", [OTHER]),
        ("aaaa11", [NEW]),
    ],
)
def test_a_result_is_found_by_what_people_call_it(name: str, expected: list[BoardRow]) -> None:
    assert rows_named(name, ROWS) == expected


@pytest.mark.usefixtures("no_git")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("exp0059", "no result is called 'exp0059'; the nearest are exp0058"),
        ("exp0058@cccc000000000000", "the nearest are exp0058@bbbb000000000000"),
        ("exp0058@cccc", "the nearest are exp0058@bbbb000000000000"),
        ("exp0001@bbbb", "the nearest are exp0001@aaaa000000000000, exp0001@aaaa111111111111"),
        ("bbb", "no result is called 'bbb'; `callboard board` lists all"),
        (
            "aaaa",
            "2 keys start with it: exp0001@aaaa000000000000, exp0001@aaaa111111111111; give more digits",
        ),
        ("exp0001@aaaa", "2 keys start with it: exp0001@aaaa000000000000, exp0001@aaaa111111111111"),
    ],
)
def test_a_name_that_is_none_is_told_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rows_named(name, ROWS)


@pytest.mark.usefixtures("no_git")
def test_without_results_no_name_is_near() -> None:
    with pytest.raises(UserError, match="there are no results yet"):
        rows_named("exp0001", [])


def test_species_stand_from_the_best_down_and_unknown_ones_last() -> None:
    assert [row[0] for row in species_rows("species,ap,n_tp\n0,0.2,3\n1,,0\n2,0.7,5\n")] == ["2", "0", "1"]


def test_one_screen_says_what_a_result_is(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / "dvc.yaml").write_text("stages: {}\n")
    (workspace / "plots/species.csv").write_text("species,ap,n_tp\n0,0.25,3\n1,0.75,4\n")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace.parent / 'mlflow.db'}")
    monkeypatch.setenv("DVC_ROOT", str(workspace))
    md5 = result_in(workspace).submission_md5
    (workspace / "leaderboard.csv").write_text(
        f"submission_md5,public,private,date,note\n{md5},0.77,,2020-11-21,first\n"
    )
    record(result_in(workspace), Origin("exp0001", "c0ffee0"))
    monkeypatch.chdir(workspace)
    cli.dispatch(["show", "exp0001"])
    printed = capsys.readouterr().out
    for told in (
        "CV          0.712",
        "LB          public 0.7700, private 0.6400",
        "base        none on the board",
        "1 0.750 (4)",
        "r0-fold0 1.0000, r0-fold1 1.1000",
        f"md5 {md5}",
        "files       in the work tree",
        "2020-11-21: public 0.7700, private – first",
    ):
        assert told in printed
    assert len(printed.splitlines()) < 40
