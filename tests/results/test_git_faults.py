"""Git that is absent, refuses or is damaged: commands say so, and none takes it for "nothing there"."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from callboard.cli import dispatch
from callboard.core.errors import UserError
from callboard.results.git import committed_files, git, git_if_any, text_at
from callboard.results.git_errors import DamagedObjectsError, GitError
from callboard.results.mlflow.sync import sync
from tests.results.test_sync import ref_of, toy, two_experiments
from tests.toy_git import ToyRepository

__all__ = ["toy", "two_experiments"]

MD5 = "ab" * 16

Damage = Callable[[ToyRepository, pytest.MonkeyPatch], None]


def object_file(toy: ToyRepository, name: str) -> Path:
    sha = toy.git("rev-parse", name)
    return toy.root / ".git/objects" / sha[:2] / sha[2:]


def overwrite(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def no_git(toy: ToyRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(toy.root))


def of_another_user(toy: ToyRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch for its tests


def empty_commit(toy: ToyRepository, _: pytest.MonkeyPatch) -> None:
    """As a power cut leaves it."""
    overwrite(object_file(toy, ref_of(toy, "first")), b"")


def lost_commit(toy: ToyRepository, _: pytest.MonkeyPatch) -> None:
    object_file(toy, ref_of(toy, "first")).unlink()


def broken_tree(toy: ToyRepository, _: pytest.MonkeyPatch) -> None:
    overwrite(object_file(toy, f"{ref_of(toy, 'first')}^{{tree}}"), b"garbage")


def broken_lock(toy: ToyRepository, _: pytest.MonkeyPatch) -> None:
    overwrite(object_file(toy, f"{ref_of(toy, 'first')}:dvc.lock"), b"garbage")


def lost_lock(toy: ToyRepository, _: pytest.MonkeyPatch) -> None:
    object_file(toy, f"{ref_of(toy, 'first')}:dvc.lock").unlink()


def empty_ref(toy: ToyRepository, _: pytest.MonkeyPatch) -> None:
    (toy.root / ".git" / ref_of(toy, "first")).write_text("")


def empty_branch(toy: ToyRepository, _: pytest.MonkeyPatch) -> None:
    (toy.root / ".git/refs/heads/main").write_text("")


def empty_head(toy: ToyRepository, _: pytest.MonkeyPatch) -> None:
    (toy.root / ".git/HEAD").write_text("")


FAULTS: dict[Damage, str] = {
    no_git: "git: not found on PATH; install it",
    of_another_user: r"fatal: detected dubious ownership .*; `git config --global --add safe\.directory",
    empty_commit: r"fatal: .*missing object|fatal: loose object .* is corrupt",
    lost_commit: "fatal: missing object",
    broken_tree: r"fatal: loose object .* is corrupt",
    broken_lock: r"fatal: .*loose object .* is corrupt|fatal: unable to read dvc\.lock of ",
    lost_lock: r"fatal: unable to read dvc\.lock of ",
    empty_ref: "warning: ignoring broken ref refs/exps/.*; `rm .*/refs/exps/",
    empty_branch: "(ref refs/heads/main|current branch appears to be broken); `rm .* && git update-ref ",
    empty_head: r"fatal: not a git repository .*\.git is damaged: its file HEAD",
}

COMMANDS = {
    "sync": ["sync"],
    "add": ["lb", "add", MD5, "--public", "0.5"],
    "list": ["lb", "list"],
    "show": ["show", "first"],
    "audit": ["audit", "first"],
}


@pytest.mark.parametrize("damage", FAULTS, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_failure_of_git_is_told_in_one_sentence_with_its_words(
    toy: ToyRepository, monkeypatch: pytest.MonkeyPatch, command: str, damage: Damage
) -> None:
    (toy.root / "dvc.yaml").write_text("stages: {}\n")
    before = (toy.root / "leaderboard.csv").read_bytes()
    if command == "list":
        (toy.root / "leaderboard.csv").write_bytes(before + f"{MD5},0.5,,,\n".encode())
        before = (toy.root / "leaderboard.csv").read_bytes()
    damage(toy, monkeypatch)
    with pytest.raises(GitError) as refusal:
        dispatch(COMMANDS[command])
    assert re.search(FAULTS[damage], str(refusal.value))
    assert "\n" not in str(refusal.value)
    assert (toy.root / "leaderboard.csv").read_bytes() == before


@pytest.mark.slow
def test_sync_does_not_take_damaged_results_for_none(toy: ToyRepository) -> None:
    sync()
    broken_lock(toy, pytest.MonkeyPatch())
    with pytest.raises(DamagedObjectsError):
        sync()


def test_a_file_is_absent_only_if_what_would_contain_it_can_be_read(toy: ToyRepository) -> None:
    first = toy.git("rev-parse", ref_of(toy, "first"))
    object_file(toy, f"{first}:metrics").unlink()
    with committed_files(toy.root) as files:
        assert files.blob(first, "none.txt") is None
        assert files.blob(first, "none/none.txt") is None
        assert files.blob("0" * 40, "dvc.lock") is None
        assert files.blob("nobody", "dvc.lock") is None
        assert files.blob(first, "params.yaml") is not None
        with pytest.raises(DamagedObjectsError, match="unable to read metrics of"):
            files.blob(first, "metrics/cv.json")
        assert files.blob(first, "params.yaml") is not None  # the reader goes on


def test_a_reader_whose_git_died_asks_a_new_one(toy: ToyRepository) -> None:
    first = toy.git("rev-parse", ref_of(toy, "first"))
    broken_tree(toy, pytest.MonkeyPatch())
    with committed_files(toy.root) as files:
        for _ in range(2):
            with pytest.raises(DamagedObjectsError, match="is corrupt"):
                files.blob(first, "dvc.lock")
        assert files.blob("HEAD", "params.yaml") is not None


def test_outside_a_repository_nothing_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert text_at("HEAD", "dvc.lock", tmp_path) == ""
    assert git_if_any("for-each-ref", folder=tmp_path) == ""


def locked(toy: ToyRepository) -> Path:
    lock = toy.root / ".git/index.lock"
    lock.write_text("")
    return lock


def test_a_lock_that_a_killed_git_left_is_named_with_the_way_on(toy: ToyRepository) -> None:
    lock = locked(toy)
    name = re.escape(str(lock))
    told = f"{name}.*File exists.*no git or DVC process runs there, .*: `rm {name}`"
    with pytest.raises(GitError, match=told):
        git("add", "leaderboard.csv")


def test_a_lock_that_makes_git_fail_without_a_word_is_named_too(toy: ToyRepository) -> None:
    lock = locked(toy)
    (toy.root / "params.yaml").write_text("seed: 9\n")
    with pytest.raises(GitError, match=f"exit status 1, and {re.escape(str(lock))} exists; no git or DVC"):
        git("stash", "create")


def test_a_lock_is_not_to_be_removed_while_git_runs(toy: ToyRepository) -> None:
    locked(toy)
    command = ["sh", "-c", "git cat-file --batch; true"]
    with subprocess.Popen(command, cwd=toy.root, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write(b"HEAD:params.yaml\n")
        other.stdin.flush()
        other.stdout.readline()  # it runs
        with pytest.raises(GitError, match=r"git \(process \d+\) runs there and may hold it: wait"):
            git("add", "leaderboard.csv")
        other.communicate()


def test_a_score_behind_a_lock_is_kept_and_the_next_command_commits_it(
    toy: ToyRepository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (toy.root / "dvc.yaml").write_text("stages: {}\n")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "toy")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "toy@example.org")
    lock = locked(toy)
    name = re.escape(str(lock))
    told = rf"leaderboard\.csv is written but not committed: .*{name}.*`rm .*or leave it to the next"
    with pytest.raises(UserError, match=told):
        dispatch(["lb", "add", MD5, "--public", "0.5"])
    assert "added to leaderboard.csv\n" in capsys.readouterr().out
    assert MD5 in (toy.root / "leaderboard.csv").read_text()
    lock.unlink()
    dispatch(["lb", "add", "cd" * 16, "--public", "0.6"])
    assert MD5 in toy.git("show", "HEAD:leaderboard.csv")
