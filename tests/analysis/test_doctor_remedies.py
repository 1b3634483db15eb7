"""Every remedy that doctor prints, done as it says: afterwards doctor finds what it found before."""

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from callboard.analysis.doctor.checks import examine
from callboard.cli import dispatch
from tests.analysis.test_doctor import TROUBLES, in_order, well, write_lock
from tests.results.test_sync import applied, ref_of, two_experiments
from tests.toy_git import ToyRepository

__all__ = ["in_order", "two_experiments", "well"]

DEAD = 2**22 + 1
"""Above the largest process number."""

Fault = Callable[[ToyRepository], None]


def commands_of(todo: str) -> list[str]:
    """Commands of the first alternative that has any."""
    found = [re.findall("`([^`]+)`", part) for part in re.split(r",? or (?=[^)]*(?:\(|$))", todo)]
    return next((commands for commands in found if commands), [])


def do(toy: ToyRepository, todo: str) -> None:
    """What a remedy says, in the workspace."""
    for command in commands_of(todo):
        if command.startswith("callboard "):
            dispatch(shlex.split(command)[1:])
            continue
        words = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
        identity = {
            f"GIT_{who}_{what}": "toy" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        environment = os.environ | words | identity | {"DVC_SITE_CACHE_DIR": str(toy.root / ".dvc/tmp/site")}
        done = subprocess.run(
            command, shell=True, cwd=toy.root, env=environment, text=True, stdout=-1, stderr=-2, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}"


def found_now() -> dict[str, str]:
    return {finding.what: finding.todo for finding in examine().findings}


def index_lock(toy: ToyRepository) -> None:
    (toy.root / ".git/index.lock").write_text("")


def branch_lock(toy: ToyRepository) -> None:
    (toy.root / ".git/refs/heads/main.lock").write_text("")


def half_an_rwlock(toy: ToyRepository) -> None:
    write_lock(toy, DEAD)
    path = toy.root / ".dvc/tmp/rwlock"
    path.write_text(path.read_text()[:20])


def half_an_rwlock_of_experiments(toy: ToyRepository) -> None:
    (toy.root / ".dvc/tmp/exps").mkdir(parents=True)
    (toy.root / ".dvc/tmp/exps/rwlock").write_text("")


def rwlock_of_a_stranger(toy: ToyRepository) -> None:
    """The number of the killed process is now that of another, which began later."""
    write_lock(toy, os.getpid())
    os.utime(toy.root / ".dvc/tmp/rwlock", (1e9, 1e9))


def hard_lock(toy: ToyRepository) -> None:
    (toy.root / ".dvc/config.local").write_text("[core]\n    hardlink_lock = true\n")
    (toy.root / ".dvc/tmp").mkdir()
    (toy.root / ".dvc/tmp/lock").write_text("claim")


def stashed_edits(toy: ToyRepository) -> None:
    (toy.root / "params.yaml").write_text("seed: 77\n")
    toy.git("stash")


def stashed_edits_and_an_override(toy: ToyRepository) -> None:
    """As a killed `dvc exp run -S` leaves it."""
    stashed_edits(toy)
    (toy.root / "params.yaml").write_text("seed: 78\n")


def cut_experiment(toy: ToyRepository) -> None:
    for name in ("stash", "exec/EXEC_HEAD", "exec/EXEC_BASELINE", "temp/head-x"):
        toy.git("update-ref", "--create-reflog", f"refs/exps/{name}", "HEAD")
    toy.git("symbolic-ref", "refs/exps/exec/EXEC_BRANCH", ref_of(toy, "first"))
    toy.git("update-ref", "refs/exps/exec/EXEC_APPLY", "HEAD")


def orphan_copy(toy: ToyRepository) -> None:
    (toy.root / f".dvc/tmp/copies/{platform.node()}.{DEAD}/r0-fold0-x").mkdir(parents=True)


def orphan_of_dvc(toy: ToyRepository) -> None:
    (toy.root / ".dvc/tmp/exps/standalone/tmpabc/.git").mkdir(parents=True)


def half_written_files(toy: ToyRepository) -> None:
    paths = [
        toy.root / name for name in (".leaderboard.csv.123.unfinished", "scores/.r0.part", "data/.mel.old/x")
    ]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
        for one in (path, path.parent):
            os.utime(one, (1e9, 1e9))


def lock_text(toy: ToyRepository) -> Path:
    return toy.root / "dvc.lock"


def merge_in_lock(toy: ToyRepository) -> None:
    text = lock_text(toy).read_text()
    lock_text(toy).write_text(f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> other\n")


def with_two_branches(toy: ToyRepository) -> None:
    """Each with its own dvc.lock."""
    with_result(toy)
    text = lock_text(toy).read_text()
    toy.git("checkout", "--quiet", "-b", "other")
    lock_text(toy).write_text(text.replace("seed: 1", "seed: 2"))
    toy.git("commit", "--quiet", "-am", "other")
    toy.git("checkout", "--quiet", "main")
    lock_text(toy).write_text(text.replace("seed: 1", "seed: 3"))
    toy.git("commit", "--quiet", "-am", "main")


def merge_unresolved(toy: ToyRepository) -> None:
    """A real one, which `git checkout dvc.lock` alone would refuse to restore."""
    with pytest.raises(subprocess.CalledProcessError):
        toy.git("merge", "other")


def cut_lock(toy: ToyRepository) -> None:
    text = lock_text(toy).read_text()
    lock_text(toy).write_text(text[:-3])


def lock_cut_between_stages(toy: ToyRepository) -> None:
    text = lock_text(toy).read_text()
    lock_text(toy).write_text(text[: text.index("  predict:")])


def empty_lock(toy: ToyRepository) -> None:
    lock_text(toy).write_text("")


def lock_of_zeros(toy: ToyRepository) -> None:
    lock_text(toy).write_bytes(bytes(400))


def cut_metrics(toy: ToyRepository) -> None:
    (toy.root / "metrics/cv.json").write_text('{"cv": {"lwl')


def empty_metrics(toy: ToyRepository) -> None:
    (toy.root / "metrics/lb.json").write_text("")


def lost_metrics(toy: ToyRepository) -> None:
    (toy.root / "metrics/cv.json").unlink()


def cut_curve(toy: ToyRepository) -> None:
    (toy.root / "plots/train/r0-fold0.csv").write_text("epoch,lr\n0,")


def garbage_in_git(toy: ToyRepository) -> None:
    other = toy.root.parent / "other.git"
    toy.git("clone", "--quiet", "--mirror", "--no-local", str(toy.root), str(other))
    toy.git("remote", "add", "origin", str(other))
    sha = toy.git("rev-parse", f"{ref_of(toy, 'first')}:dvc.lock")
    path = toy.root / ".git/objects" / sha[:2] / sha[2:]
    path.unlink()
    path.write_bytes(b"garbage")


def lost_head(toy: ToyRepository) -> None:
    other = toy.root.parent / "other.git"
    toy.git("clone", "--quiet", "--mirror", "--no-local", str(toy.root), str(other))
    toy.git("remote", "add", "origin", str(other))
    sha = toy.git("rev-parse", "HEAD")
    (toy.root / ".git/objects" / sha[:2] / sha[2:]).unlink()


def empty_ref(toy: ToyRepository) -> None:
    (toy.root / f".git/refs/exps/{toy.baseline[:2]}/{toy.baseline[2:]}/third").write_text("")


def no_index(toy: ToyRepository) -> None:
    (toy.root / ".git/index").write_text("DIRC")


def nothing(_: ToyRepository) -> None:
    """The workspace as it is."""


def with_result(toy: ToyRepository) -> None:
    """A finished result in the work tree, committed, as after `dvc repro` and `git commit`."""
    applied(toy)


FAULTS: list[tuple[Fault, Fault, str]] = [
    (nothing, index_lock, "1 lock of git that a killed process left"),
    (nothing, branch_lock, "1 lock of git that a killed process left"),
    (nothing, half_an_rwlock, ".dvc/tmp/rwlock is not whole"),
    (nothing, half_an_rwlock_of_experiments, ".dvc/tmp/exps/rwlock is not whole"),
    (nothing, rwlock_of_a_stranger, ".dvc/tmp/rwlock is held by killed DVC commands"),
    (nothing, hard_lock, ".dvc/tmp/lock of a DVC command that was killed"),
    (nothing, stashed_edits, "git's stash has 1 set of changes"),
    (nothing, stashed_edits_and_an_override, "git's stash has 1 set of changes"),
    (nothing, cut_experiment, "5 refs of an experiment that was killed"),
    (nothing, orphan_copy, "1 temporary folder of commands that were killed"),
    (nothing, orphan_of_dvc, "1 temporary folder of commands that were killed"),
    (nothing, half_written_files, "3 files that a killed command left half-written"),
    (with_result, merge_in_lock, "dvc.lock has the marks of a merge in line 1"),
    (with_two_branches, merge_unresolved, "dvc.lock has the marks of a merge in line "),
    (with_result, cut_lock, "dvc.lock was cut: it ends after "),
    (with_result, lock_cut_between_stages, "dvc.lock was cut: it ends after "),
    (with_result, empty_lock, "dvc.lock is empty"),
    (with_result, lock_of_zeros, "dvc.lock is broken: "),
    (nothing, lock_of_zeros, "dvc.lock is broken: "),
    (with_result, cut_metrics, "metrics/cv.json was cut or altered"),
    (with_result, empty_metrics, "metrics/lb.json is empty"),
    (with_result, lost_metrics, "metrics/cv.json is missing"),
    (with_result, cut_curve, "plots/train/r0-fold0.csv was cut or altered"),
    (nothing, garbage_in_git, "git: 1 object damaged or missing"),
    (nothing, lost_head, "git: 1 object damaged or missing"),
    (nothing, empty_ref, "git: warning: ignoring broken ref"),
    (nothing, no_index, "git: fatal: .git/index: index file smaller than expected"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prepare", "plant", "what"),
    FAULTS,
    ids=[f"{plant.__name__}-{prepare.__name__}" for prepare, plant, _ in FAULTS],
)
def test_what_the_remedy_says_mends_the_fault(
    well: ToyRepository, prepare: Fault, plant: Fault, what: str
) -> None:
    prepare(well)
    before = found_now()
    plant(well)
    (told,) = [todo for finding, todo in found_now().items() if finding.startswith(what)]
    do(well, without_dvc(told))
    after = found_now()
    assert not any(finding.startswith(what) for finding in after)
    assert after == before


def test_a_repository_of_another_user_is_trusted_as_told(
    well: ToyRepository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GIT_CONFIG_GLOBAL", raising=False)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch for its tests
    (told,) = found_now().values()
    do(well, told)
    assert found_now() == {}


NOT_BY_A_COMMAND = {
    "removed": "nothing need be done",
    "merge_marks": "a person merges",
    "strange_score": "a person finds out whose score it is",
    "running": "a person waits",
    "half_migrated": "as broken_database, but MLflow would keep the file open in this process",
    **dict.fromkeys(
        ("rewritten_params", "rewritten_metrics", "lost_scores", "lost_annotations"),
        "see test_doctor_with_dvc",
    ),
    **dict.fromkeys(
        ("damaged_scores", "unreadable_metrics", "lock_of_elsewhere"), "see test_doctor_with_dvc"
    ),
}
"""Functions that plant a trouble, and why its remedy is not done here."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "what"),
    [(plant, what) for plant, what, _, _ in TROUBLES if plant.__name__ not in NOT_BY_A_COMMAND],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_the_remedy_says_mends_a_trouble(well: ToyRepository, plant: Fault, what: str) -> None:
    before = found_now()
    plant(well)
    (told,) = [todo for finding, todo in found_now().items() if what in finding]
    do(well, told)
    assert found_now() == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLFLOW_RUN_ID", "0123456789abcdef"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("CALLBOARD_WORKERS", "0"),
        ("MLFLOW_TRACKING_URI", "sqlite:///runs.db"),
    ],
)
def test_a_variable_that_is_unset_as_told_is_no_trouble(
    well: ToyRepository, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    (told,) = [todo for finding, todo in found_now().items() if finding.startswith(f"{name} ")]
    assert commands_of(told) == [f"unset {name}"]
    monkeypatch.delenv(name, raising=False)
    assert found_now() == {}


def without_dvc(todo: str) -> str:
    """What it says without the commands of DVC, which `test_doctor_with_dvc` does with a real pipeline."""
    return todo.replace(", then `dvc repro`", "")
