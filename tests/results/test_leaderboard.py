import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest

from callboard.core.errors import UserError
from callboard.results.leaderboard import (
    LeaderboardEntry,
    checked_score,
    entries_of,
    keep_entries,
    last_words,
    ledger_of,
    merged,
    one_keeper,
    read_ledger,
    write_entries,
)
from tests.toy_git import ToyRepository

HEADER = "submission_md5,key,public,private,date,note\n"
OLD_HEADER = "submission_md5,public,private,date,note\n"
OURS = LeaderboardEntry("cc", public=0.6, date="2020-01-03")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyRepository:
    repository = ToyRepository(tmp_path / "main")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(repository.root)
    return repository


def commit_rows(repository: ToyRepository, *rows: str) -> str:
    (repository.root / "leaderboard.csv").write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return repository.commit()


def publics(entries: list[LeaderboardEntry]) -> list[float | None]:
    return [entry.public for entry in entries]


def test_the_last_word_in_the_ledger_counts_for_each_column(tmp_path: Path) -> None:
    ledger = tmp_path / "leaderboard.csv"
    ledger.write_text(f"{OLD_HEADER}aa,0.8,0.7,,\naa,0.81,,,corrected\nbb,0.5,,,\n")
    assert read_ledger(ledger) == {"aa": {"lb.public": 0.81, "lb.private": 0.7}, "bb": {"lb.public": 0.5}}


def test_what_is_written_is_read_again_and_rows_of_both_kinds_may_be_mixed(tmp_path: Path) -> None:
    entries = [
        LeaderboardEntry("aa", "k1", 0.8, None, "2020-11-20", 'a "quoted", note'),
        LeaderboardEntry("bb", private=0.0),
    ]
    ledger = tmp_path / "leaderboard.csv"
    write_entries(ledger, entries)
    assert ledger.read_text().startswith(HEADER)
    with ledger.open("a") as file:  # as a union merge of a branch with the older columns leaves it
        file.write(f"{OLD_HEADER}aa,0.9,,,\n")
    assert last_words(entries) == {"aa": {"lb.public": 0.8}, "bb": {"lb.private": 0.0}}
    assert read_ledger(ledger) == {"aa": {"lb.public": 0.9}, "bb": {"lb.private": 0.0}}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("aa,high,,,", "leaderboard.csv row 2: public 'high' is not a number"),
        ("aa,,nan,,", "row 2: private nan must be between 0 and 1"),
        ("aa,k,83.1,,,", r"row 2: public 83\.1 must be between 0 and 1; 83\.1 % is 0\.831"),
        (",0.8,,,", "row 2: submission_md5 is empty"),
        ("aa,0.8", "row 2: 2 cells, must be 6: submission_md5, key, public"),
        ('aa,0.8,,,"x\nbb,0.9,,,', "row 2: a quote .* is not closed"),
        ('aa,0.8,,,"x\nbb,0.9,,,x"', "row 2: a quote .* is not closed, and would swallow the rows below"),
        ("aa,0.8,,,x\0", "row 2: contains a NUL character"),
        (f"aa,0.8,,,{'x' * 200_000}", "row 2: a cell is longer than 131072 characters"),
        ("aa,0.8,,20.11.2020,", r"row 2: date '20\.11\.2020' is invalid, must be YYYY-MM-DD"),
        ("aa,0.8,,20201120,", "row 2: date '20201120' is invalid"),
        (
            "<<<<<<< HEAD\naa,0.8,,,",
            r"merge conflict in leaderboard\.csv, line 2; keep the rows of both sides",
        ),
        ("aa,0.8,,,\n=======", r"merge conflict in leaderboard\.csv, line 3"),
    ],
)
def test_a_bad_row_in_the_ledger_is_named(tmp_path: Path, row: str, message: str) -> None:
    ledger = tmp_path / "leaderboard.csv"
    ledger.write_text(f"{OLD_HEADER}{row}\n")
    with pytest.raises(UserError, match=message):
        read_ledger(ledger)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (LeaderboardEntry("bb", public=0.5, date="11/20/2020"), "row 3: date '11/20/2020' is invalid"),
        (LeaderboardEntry("bb", public=1.5), "row 3: public 1.5 must be between 0 and 1"),
        (LeaderboardEntry("bb", public=0.5, note="a\r\nb"), "would not be read again as written"),
    ],
)
def test_what_would_not_be_read_again_is_not_written(
    tmp_path: Path, entry: LeaderboardEntry, message: str
) -> None:
    ledger = tmp_path / "leaderboard.csv"
    write_entries(ledger, [OURS])
    before = ledger.read_text()
    with pytest.raises(UserError, match=message):
        write_entries(ledger, [OURS, entry])
    assert ledger.read_text() == before
    assert list(tmp_path.iterdir()) == [ledger]


def test_a_committed_row_that_is_broken_loses_no_other(repository: ToyRepository) -> None:
    commit_rows(repository, "aa,,0.8,,,", 'bb,,0.9,,,"open', "cc,,0.7,,,")
    (repository.root / "leaderboard.csv").write_text(HEADER)
    assert set(ledger_of(repository.root)) == {"aa", "cc"}


def test_a_file_that_is_no_utf_8_is_named_with_the_byte(repository: ToyRepository) -> None:
    ledger = repository.root / "leaderboard.csv"
    ledger.write_bytes(HEADER.encode() + b"aa,,0.8,,,f\xfcnf\n")
    place = len(HEADER) + len("aa,,0.8,,,f")
    message = rf"leaderboard\.csv: not UTF-8, byte {place} is 0xfc; save the file as UTF-8"
    for read in (lambda: read_ledger(ledger), lambda: entries_of(repository.root)):
        with pytest.raises(UserError, match=message):
            read()
    repository.commit()
    ledger.write_text(f"{HEADER}aa,,0.8,,,fünf\n")  # what was committed does not stand in the way
    assert ledger_of(repository.root) == {"aa": {"lb.public": 0.8}}


def test_no_score_is_less_than_nothing() -> None:
    assert str(checked_score("-0", "x")) == "0.0"


@pytest.mark.parametrize("text", ["0", "1", "0.9447", "1e-3"])
def test_scores_between_nothing_and_all_are_taken(text: str) -> None:
    assert checked_score(text, "x") == float(text)


@pytest.mark.parametrize(
    ("older", "newer", "expected"),
    [
        ("ab", "a", "ab"),
        ("a", "ab", "ab"),
        ("", "ab", "ab"),
        ("aba", "a", "aba"),  # corrected, and the correction taken back
        ("a", "aba", "aba"),
        ("ba", "abab", "abab"),  # the same rows, each once more
        ("abc", "ac", "abc"),  # a row was lost
        ("ac", "ab", "abc"),  # both went on alone: by date
        ("ab", "ac", "abc"),
        ("adb", "ac", "acdb"),  # within one ledger its own order counts, whatever the dates
    ],
)
def test_two_ledgers_become_one_that_keeps_the_order_of_each(older: str, newer: str, expected: str) -> None:
    def rows(text: str) -> list[LeaderboardEntry]:
        return [
            LeaderboardEntry("md5", date=f"2020-01-0{'abcd'.index(letter) + 1}", note=letter)
            for letter in text
        ]

    assert merged(rows(older), rows(newer)) == rows(expected)


def test_nothing_that_exp_apply_overwrites_is_lost(repository: ToyRepository) -> None:
    started = commit_rows(repository, "aa,,0.7,,,")
    commit_rows(repository, "aa,,0.7,,,", "aa,,0.8,,,")
    (repository.root / "leaderboard.csv").write_text(f"{HEADER}aa,,0.7,,,\naa,,0.8,,,\nbb,,0.5,,,\n")
    expected = {"aa": {"lb.public": 0.8}, "bb": {"lb.public": 0.5}}
    assert ledger_of(repository.root) == expected  # from here on the row typed by hand is kept
    repository.git("checkout", started, "--", "leaderboard.csv")  # as `dvc exp apply` does
    assert ledger_of(repository.root) == expected
    repository.commit()  # the overwritten file is committed too
    assert ledger_of(repository.root) == expected
    (repository.root / "leaderboard.csv").unlink()
    assert ledger_of(repository.root) == expected


def test_a_row_added_by_hand_after_exp_apply_is_the_last_word(repository: ToyRepository) -> None:
    commit_rows(repository, "aa,,0.7,,2020-01-01,")
    commit_rows(repository, "aa,,0.7,,2020-01-01,", "aa,,0.8,,2020-01-02,")
    (repository.root / "leaderboard.csv").write_text(f"{HEADER}aa,,0.7,,2020-01-01,\naa,,0.6,,2020-01-03,\n")
    assert publics(entries_of(repository.root)) == [0.7, 0.8, 0.6]


def test_a_row_that_is_emptied_and_brought_back_is_no_new_row(repository: ToyRepository) -> None:
    rows = ["aa,,0.5,,2020-01-01,", "aa,,0.6,,2020-01-01,", "aa,,0.5,,2020-01-01,"]
    for _ in range(2):
        commit_rows(repository, *rows)
        commit_rows(repository)
    assert publics(entries_of(repository.root)) == [0.5, 0.6, 0.5]  # the first is the last word again
    commit_rows(repository, *rows, "aa,,0.6,,2020-01-01,")
    assert publics(entries_of(repository.root)) == [0.5, 0.6, 0.5, 0.6]


def test_rows_that_later_commits_dropped_come_in_the_order_of_the_commits(repository: ToyRepository) -> None:
    for public in (0.7, 0.8, 0.6):
        commit_rows(repository, f"aa,,{public},,,")
    assert publics(entries_of(repository.root)) == [0.7, 0.8, 0.6]


def test_a_change_of_columns_makes_no_row_twice(repository: ToyRepository) -> None:
    (repository.root / "leaderboard.csv").write_text(f"{OLD_HEADER}aa,0.7,,,\naa,0.8,,,\n")
    repository.commit()
    commit_rows(repository, "aa,,0.7,,,", "aa,,0.8,,,", "aa,,0.7,,,back")
    assert last_words(entries_of(repository.root)) == {"aa": {"lb.public": 0.7}}


def test_an_experiment_in_a_temporary_copy_sees_what_the_main_workspace_knows(
    repository: ToyRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_rows(repository, "aa,,0.7,,,")
    temporary = tmp_path / "copy"
    repository.git("clone", "--quiet", str(repository.root), str(temporary))
    (repository.root / "leaderboard.csv").write_text(f"{HEADER}aa,,0.7,,,\naa,,0.8,,,\n")
    monkeypatch.setenv("DVC_ROOT", str(repository.root))
    assert ledger_of(temporary) == {"aa": {"lb.public": 0.8}}
    (repository.root / "leaderboard.csv").write_text(HEADER)
    assert ledger_of(temporary) == {"aa": {"lb.public": 0.8}}
    assert not (temporary / ".git/callboard").exists()


def test_rows_outlive_every_checkout_and_worktrees_share_them(
    repository: ToyRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_rows(repository)
    rows = [LeaderboardEntry("aa", public=0.7), LeaderboardEntry("bb", public=0.5)]
    with one_keeper(), one_keeper():  # within a block another is entered at once
        keep_entries(rows)
    repository.git("checkout", "--quiet", "--", ".")
    repository.git("clean", "--quiet", "-dffx", "--exclude=.dvc")
    assert (repository.root / "leaderboard.csv").read_text() == HEADER
    assert entries_of(repository.root) == rows
    repository.git("worktree", "add", "--quiet", str(tmp_path / "tree"))
    monkeypatch.chdir(tmp_path / "tree")
    assert entries_of(tmp_path / "tree") == rows
    keep_entries([*rows, LeaderboardEntry("cc", public=0.1)])
    monkeypatch.chdir(repository.root)
    assert publics(entries_of(repository.root)) == [0.7, 0.5, 0.1]


def test_workspaces_in_one_repository_have_a_ledger_each(
    repository: ToyRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, public in (("one", 0.1), ("two", 0.2)):
        (repository.root / name).mkdir()
        monkeypatch.chdir(repository.root / name)
        keep_entries([LeaderboardEntry("aa", public=public)])
    assert publics(entries_of(Path.cwd())) == [0.2]
    monkeypatch.chdir(repository.root / "one")
    assert publics(entries_of(Path.cwd())) == [0.1]


def test_rows_of_a_teammate_are_pulled_and_kept(repository: ToyRepository, tmp_path: Path) -> None:
    before = commit_rows(repository, "aa,,0.7,,2020-01-01,")
    assert publics(entries_of(repository.root)) == [0.7]
    repository.git("clone", "--quiet", str(repository.root), str(tmp_path / "theirs"))
    theirs = copy.copy(repository)
    theirs.root = tmp_path / "theirs"
    commit_rows(theirs, "aa,,0.7,,2020-01-01,", "bb,,0.5,,2020-01-02,")
    keep_entries([LeaderboardEntry("aa", public=0.7, date="2020-01-01"), OURS])
    repository.commit()
    repository.git("fetch", "--quiet", str(theirs.root), "main")
    repository.git("merge", "--quiet", "--no-edit", "--strategy-option=theirs", "FETCH_HEAD")
    assert publics(entries_of(repository.root)) == [0.7, 0.5, 0.6]  # the merge dropped ours
    repository.git("checkout", before, "--", "leaderboard.csv")
    assert publics(entries_of(repository.root)) == [0.7, 0.5, 0.6]


def test_what_was_committed_counts_where_the_work_tree_has_no_file(repository: ToyRepository) -> None:
    commit_rows(repository)
    assert entries_of(repository.root) == []
    commit_rows(repository, "aa,,0.7,,,")
    (repository.root / "leaderboard.csv").unlink()
    assert publics(entries_of(repository.root)) == [0.7]


def test_a_row_that_was_committed_in_error_and_mended_does_not_stand_in_the_way(
    repository: ToyRepository,
) -> None:
    commit_rows(repository, "aa,,83,,,")
    commit_rows(repository, "aa,,0.83,,,")
    assert ledger_of(repository.root) == {"aa": {"lb.public": 0.83}}


def test_outside_git_the_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("DVC_ROOT", raising=False)
    assert entries_of(tmp_path) == []
    (tmp_path / "leaderboard.csv").write_text(f"\ufeff{HEADER}aa,,0.7,,,\r\n")
    assert ledger_of(tmp_path) == {"aa": {"lb.public": 0.7}}


@pytest.mark.slow
def test_nothing_is_lost_under_dvc_itself(repository: ToyRepository) -> None:
    def dvc(*arguments: str) -> None:
        identity = {
            f"GIT_{who}_{what}": "toy@example.org"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        environment = os.environ | identity | {"DVC_NO_ANALYTICS": "1", "GIT_CONFIG_GLOBAL": os.devnull}
        command = [sys.executable, "-m", "dvc", *arguments]
        done = subprocess.run(command, env=environment, text=True, stdout=-1, stderr=-2, check=False)
        assert done.returncode == 0, done.stdout

    (repository.root / ".dvc").rmdir()
    dvc("init", "--quiet")
    (repository.root / "dvc.yaml").write_text(
        "stages:\n  toy:\n    cmd: cp params.yaml out\n    params: [seed]\n    outs:\n    - out\n"
    )
    commit_rows(repository, "aa,,0.7,,,")
    dvc("exp", "run", "--quiet", "--name", "toy", "--set-param", "seed=2")
    repository.git("reset", "--quiet", "--hard")
    commit_rows(repository, "aa,,0.7,,,", "aa,,0.8,,,")
    (repository.root / "leaderboard.csv").write_text(f"{HEADER}aa,,0.7,,,\naa,,0.8,,,\nbb,,0.5,,,\n")
    assert ledger_of(repository.root)["bb"] == {"lb.public": 0.5}
    dvc("exp", "apply", "toy")
    assert "0.8" not in (repository.root / "leaderboard.csv").read_text()
    assert ledger_of(repository.root) == {"aa": {"lb.public": 0.8}, "bb": {"lb.public": 0.5}}
    repository.commit()
    assert ledger_of(repository.root) == {"aa": {"lb.public": 0.8}, "bb": {"lb.public": 0.5}}
