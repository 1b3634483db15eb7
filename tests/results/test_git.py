"""Git's refusals, by real repositories."""

from pathlib import Path

import pytest

from callboard.core.errors import UserError
from callboard.results.committed import params_at
from callboard.results.git import git, git_if_any, text_at
from tests.toy_git import ToyRepository


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyRepository:
    repository = ToyRepository(tmp_path / "main")
    monkeypatch.chdir(repository.root)
    return repository


def test_a_failure_is_told_in_gits_own_words_with_the_folder(repository: ToyRepository) -> None:
    assert git("rev-parse", "HEAD") == f"{repository.baseline}\n"
    message = rf"git show in {repository.root}: fatal: .*'nothing'"
    with pytest.raises(UserError, match=message):
        git("show", "nothing")


def test_outside_a_repository_it_is_said_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    message = (
        rf"git rev-parse in {tmp_path}: fatal: not a git repository .*; run in the folder of the project"
    )
    with pytest.raises(UserError, match=message):
        git("rev-parse", "HEAD", folder=tmp_path)


def test_what_is_not_there_is_empty_to_those_that_ask_whether_it_is(
    repository: ToyRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_if_any("rev-parse", "--verify", "--quiet", "refs/heads/none") == ""
    assert git_if_any("rev-parse", "HEAD", folder=tmp_path) == ""
    assert text_at("HEAD", "none.txt") == text_at("none", "params.yaml") == ""
    assert params_at("none") == {}


def test_a_repository_of_another_user_is_never_taken_for_an_empty_one(
    repository: ToyRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch for its tests
    remedy = f'`git config --global --add safe.directory "{repository.root}"`'
    message = f"dubious ownership in repository at .*; {remedy}"
    for ask in (git, git_if_any):
        with pytest.raises(UserError, match=message):
            ask("rev-parse", "HEAD")


def test_without_git_a_sentence_says_so(repository: ToyRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository.root))
    for ask in (git, git_if_any):
        with pytest.raises(UserError, match="git: not found on PATH; install it"):
            ask("rev-parse", "HEAD")
    with pytest.raises(UserError, match="git: not found on PATH"):
        text_at("HEAD", "params.yaml")
