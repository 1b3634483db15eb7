"""A copy of the workspace becomes an experiment, and nothing else of the user's repository changes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from callboard.core.errors import UserError
from callboard.experiments.jobs import keep
from callboard.results.refs import experiment_ref
from tests.conftest import Workspace
from tests.experiments.test_side_by_side import copy_of, repository  # noqa: F401  a fixture


@pytest.fixture
def copy(repository: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:  # noqa: F811
    """A copy with a result and other parameters, where the test runs; the workspace has an edit."""
    repository.write("notes.txt", "tracked\n")
    repository.commit()
    repository.write("notes.txt", "edited\n")
    monkeypatch.setenv("DVC_ROOT", str(repository.root))
    with copy_of(repository) as root:
        monkeypatch.chdir(root)
        (root / "metrics").mkdir()
        (root / ".dvc/tmp").mkdir()
        for name, text in (("params.yaml", "seed: 2\n"), ("dvc.lock", "stages"), ("metrics/cv.json", "{}")):
            (root / name).write_text(text, encoding="utf-8")
        (root / "other.txt").touch()
        yield root


def head_of(workspace: Workspace) -> str:
    return workspace.git("rev-parse", "HEAD").strip()


def test_an_experiment_is_a_commit_on_head_with_edits_parameters_and_results(
    repository: Workspace,  # noqa: F811
    copy: Path,
) -> None:
    head, status = head_of(repository), repository.git("status", "--porcelain")
    index = (repository.root.parent / ".git/index").read_bytes()
    keep.keep_experiment("exp0058", head, is_forced=False)
    ref = experiment_ref(head, "exp0058")
    assert repository.git("rev-parse", f"{ref}^") == f"{head}\n"
    assert repository.git("diff", "--name-only", head, ref).split() == [
        *["project/dvc.lock", "project/metrics/cv.json", "project/notes.txt", "project/params.yaml"]
    ]
    assert repository.git("show", f"{ref}:./params.yaml") == "seed: 2\n"
    assert (repository.root.parent / ".git/index").read_bytes() == index
    assert (head_of(repository), repository.git("status", "--porcelain")) == (head, status)
    assert repository.git("fsck", "--full", "--no-dangling") == ""


def test_an_experiment_made_meanwhile_is_replaced_only_if_forced(
    repository: Workspace,  # noqa: F811
    copy: Path,
) -> None:
    head = head_of(repository)
    ref = experiment_ref(head, "exp0058")
    repository.git("update-ref", ref, head)
    with pytest.raises(UserError, match=r"^exp0058 exists on this commit, made meanwhile; --force replaces"):
        keep.keep_experiment("exp0058", head, is_forced=False)
    assert repository.git("rev-parse", ref) == f"{head}\n"
    keep.keep_experiment("exp0058", head, is_forced=True)
    assert repository.git("rev-parse", f"{ref}^") == f"{head}\n"


def test_the_lock_of_a_name_that_a_kill_left_is_removed_and_a_fresh_one_is_not(
    repository: Workspace,  # noqa: F811
    copy: Path,
) -> None:
    head = head_of(repository)
    lock = repository.root.parent / ".git" / f"{experiment_ref(head, 'exp0058')}.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    with pytest.raises(UserError, match=r"exp0058.lock"):
        keep.keep_experiment("exp0058", head, is_forced=False)
    os.utime(lock, (0, 0))
    keep.keep_experiment("exp0058", head, is_forced=False)
    assert not lock.exists()
