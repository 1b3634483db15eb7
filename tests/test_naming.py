from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from callboard.core.errors import UserError
from callboard.results.commits import committed_files
from callboard.results.committed import Locks, lock_content
from callboard.results.lookup import rows_named
from callboard.results.naming import Name, names_in_git, results_named
from callboard.results.result import SUBMISSION
from callboard.results.rows import BoardRow
from callboard.results.submissions import find_submitted
from tests.toy_git import ToyRepository

OLD, NEW, OTHER = Name("a", "1" * 16, 10), Name("a", "12" * 8, 20), Name("b", "34" * 8, 5)
RUNNING = Name("c", "", 30)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyRepository:
    repository = ToyRepository(tmp_path / "main")
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(repository.root)
    return repository


def test_the_newest_of_namesakes_is_the_last_whoever_tells_of_it_first() -> None:
    again = OLD._replace(time_ms=15)
    assert results_named("a", [NEW, OLD, again, OTHER]) == [OLD, NEW]
    assert results_named("a", [NEW, OLD, OLD._replace(time_ms=25)])[-1].key == OLD.key


def test_a_name_that_looks_like_a_key_or_has_an_at_is_a_name() -> None:
    names = [OTHER, Name("3434", NEW.key, 1), Name("b@3434", OLD.key, 1)]
    assert [one.key for one in results_named("3434", names)] == [NEW.key]
    assert [one.key for one in results_named("b@3434", names)] == [OLD.key]


@pytest.mark.parametrize("text", ["b@3434", "3434", "b@" + "34" * 8, "34" * 8])
def test_four_digits_of_a_key_are_enough(text: str) -> None:
    assert results_named(text, [OLD, OTHER, RUNNING]) == [OTHER]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("343", "no result is called '343'"),
        ("b@343", r"called 'b@343'; the nearest are b@(34){8}"),
        ("c", "c is in git, but its commit holds no finished result; is it still running"),
        ("a@111", "the nearest are a@1{16}, a@(12){8}"),
        ("rowz", "the nearest are row1"),
    ],
)
def test_what_is_no_name_is_refused_with_the_nearest(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        results_named(text, [OLD, NEW, OTHER, RUNNING], ["row1"])


def test_a_branch_a_tag_and_an_experiment_are_names_of_one_result(repository: ToyRepository) -> None:
    commit = repository.experiment("exp", {SUBMISSION: "ab" * 16})
    repository.git("branch", "kept", commit)
    repository.git("tag", "--annotate", "--message=x", "sent", commit)
    key = results_named("exp", names_in_git())[-1].key
    row = BoardRow("run", {}, {}, datetime(2020, 11, 20, tzinfo=UTC), "", {}, key=key)
    for text in ("exp", "kept", "sent", f"kept@{key[:4]}", "run", f"run@{key[:5]}", key[:4]):
        assert rows_named(text, [replace(row, name="other", key="0" * 16), row]) == [row], text
    for text in ("exp", "kept", "sent", f"kept@{key[:4]}", key[:4]):
        assert find_submitted(text).key == key, text
    with pytest.raises(UserError, match=f"kept@{key} is in git, but not on the board; `callboard sync`"):
        rows_named("kept", [])
    with pytest.raises(UserError, match="main is in git, but its commit holds no finished result"):
        rows_named("main", [row])


def test_what_a_lock_says_is_remembered_by_its_content(
    repository: ToyRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repository.experiment("exp", {SUBMISSION: "ab" * 16, "data/source": "d" * 32})

    def read() -> tuple[str, ...]:
        with committed_files(repository.root) as files:
            locks = Locks(files)
            found = locks.at(commit), locks.at(repository.baseline)
            locks.save()
        assert not found[1].key
        return found[0][:3]

    first = read()
    assert first[1:] == ("ab" * 16, "d" * 32)
    monkeypatch.setattr("callboard.results.committed.lock_content", None)
    assert read() == first


@pytest.mark.parametrize("text", ["<<<<<<< HEAD\na: 1\n", "a: [", "- 1\n"])
def test_a_lock_that_cannot_be_read_is_broken(text: str) -> None:
    assert lock_content(text).is_broken
    assert not lock_content(text).key
