"""Folds trained side by side: the same bytes as one after the other, nothing lost, nothing left behind."""

import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import psutil
import pytest
import yaml

from callboard.core.errors import UserError
from callboard.experiments import side_by_side
from callboard.experiments.jobs.copies import (
    COPIES,
    remove_left_over,
    snapshot,
    workspace_copy,
)
from callboard.experiments.jobs.local import Workers
from callboard.experiments.jobs.options import JobOptions, default_jobs
from callboard.experiments.side_by_side import Planned, run_side_by_side
from callboard.results.refs import experiment_ref
from tests.conftest import IDENTITY, Workspace, ran
from tests.stages.test_pipeline import recorded
from tests.toy_cluster import wait_until

DIVERGING = """
- id: exp9001
  block: 9
  base: exp0051
  memo_ja: NaN
  memo_en: A loss that is not finite
  set:
    optim.name: adamw
    optim.lr: 5  # doubled for soundscapes
    optim.weight_decay: 10  # each step makes every weight -99 times as large
  certainty: code
"""


def outs(workspace: Workspace) -> dict[str, str]:
    stages = yaml.safe_load(workspace.read("dvc.lock"))["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def callboard(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from callboard.cli import main; main()", *arguments]


@pytest.fixture
def repository(tmp_path: Path) -> Workspace:
    """A small repository with a DVC project in a subfolder."""
    workspace = Workspace(tmp_path / "above/project")
    (workspace.root / ".dvc").mkdir(parents=True)
    workspace.write(".dvc/config", "[core]\n    analytics = false\n")
    workspace.write("params.yaml", "seed: 1\n")
    subprocess.run(["git", "init", "--quiet", str(workspace.root.parent)], check=True)
    workspace.commit()
    return workspace


@contextmanager
def copy_of(repository: Workspace) -> Iterator[Path]:
    with (
        snapshot(repository.root) as source,
        workspace_copy(source.workspace, source.commit, source.copies, "train-0") as root,
    ):
        yield root


def commit_of(repository: Workspace) -> str:
    with snapshot(repository.root) as source:
        assert source.head == repository.git("rev-parse", "HEAD").strip()
        return source.commit


def test_a_copy_has_uncommitted_changes_and_the_workspace_keeps_them(repository: Workspace) -> None:
    before = repository.git("status", "--short"), repository.git("rev-parse", "HEAD")
    clean = commit_of(repository)
    repository.write("params.yaml", "seed: 2\n")
    changed = repository.git("status", "--short")
    with copy_of(repository) as root:
        assert (root / "params.yaml").read_text() == "seed: 2\n"
        assert str(repository.root / ".dvc/cache") in (root / ".dvc/config.local").read_text()
        assert root.name == "project"
    assert clean == before[1].strip()
    assert (repository.git("status", "--short"), repository.git("stash", "list")) == (changed, "")
    assert not list((repository.root / COPIES).glob("*/*"))


def test_a_snapshot_neither_writes_nor_needs_git_s_index(repository: Workspace) -> None:
    """So no kill leaves it locked; `git stash create` would do both."""
    repository.write("params.yaml", "seed: 2\n")
    index, lock = (repository.root.parent / ".git" / name for name in ("index", "index.lock"))
    before = index.read_bytes(), index.stat().st_mtime_ns
    lock.touch()
    changed = commit_of(repository)
    assert (index.read_bytes(), index.stat().st_mtime_ns) == before
    lock.unlink()
    assert repository.git("show", f"{changed}:./params.yaml") == "seed: 2\n"
    assert repository.git("rev-list", "--count", f"HEAD..{changed}") == "1\n"


def test_a_snapshot_has_what_is_staged_and_lacks_what_was_deleted(repository: Workspace) -> None:
    repository.write("new.txt", "staged")
    repository.git("add", "new.txt")
    repository.write("new.txt", "later")
    (repository.root / "params.yaml").unlink()
    files = repository.git("ls-tree", "-r", "--name-only", commit_of(repository)).split()
    assert files == [".dvc/config", "new.txt"]
    assert repository.git("show", f"{commit_of(repository)}:./new.txt") == "later"


def test_a_change_that_git_takes_for_none_is_in_a_copy(repository: Workspace) -> None:
    """As an override of equal length, written within the second in which the copy was made."""
    path = repository.root / "params.yaml"
    repository.git("config", "core.trustctime", "false")
    for text in ("seed: 1\n", "seed: 2\n"):
        path.write_text(text)
        os.utime(path, (1000, 1000))
        assert repository.git("status", "--porcelain") == ""
    with snapshot(repository.root) as source:
        assert repository.git("show", f"{source.commit}:./params.yaml") == "seed: 2\n"


def test_a_user_without_a_name_in_git_can_run_too(
    repository: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_configured = {"COUNT": "1", "KEY_0": "user.useConfigOnly", "VALUE_0": "true", "GLOBAL": os.devnull}
    for name, value in only_configured.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    for name in (*IDENTITY, "EMAIL"):
        monkeypatch.delenv(name, raising=False)
    repository.write("params.yaml", "seed: 2\n")
    with snapshot(repository.root) as source:
        assert repository.git("log", "-1", "--format=%an", source.commit) == "callboard\n"


def test_a_file_that_was_only_touched_is_no_change(repository: Workspace) -> None:
    os.utime(repository.root / "params.yaml", (1, 1))
    assert commit_of(repository) == repository.git("rev-parse", "HEAD").strip()


def test_an_unresolved_conflict_is_refused(repository: Workspace) -> None:
    repository.git("branch", "other")
    for seed in (2, 3):
        repository.write("params.yaml", f"seed: {seed}\n")
        repository.commit()
        if seed == 2:
            repository.git("checkout", "--quiet", "other")
    assert "CONFLICT" in repository.command("git", "merge", "-").stdout
    with pytest.raises(UserError, match=r"params.yaml: a conflict of a git merge is not resolved"):
        commit_of(repository)


def test_a_copy_keeps_the_user_s_own_settings_of_dvc(repository: Workspace) -> None:
    own = "['remote \"team\"']\n    url = /mnt/team\n[cache]\n    dir = ../cache of all\n"
    repository.write(".dvc/config.local", own)
    with copy_of(repository) as root:
        local = (root / ".dvc/config.local").read_text()
    assert "url = /mnt/team" in local
    assert f"dir = {repository.root}/cache of all\n" in local


def test_a_workspace_whose_dvc_is_not_in_git_is_refused(repository: Workspace) -> None:
    repository.git("rm", "--quiet", "--cached", ".dvc/config")
    repository.git("commit", "--quiet", "--message", "without")
    with (
        pytest.raises(UserError, match=r"git does not track .dvc/config"),
        copy_of(repository),
    ):
        pass
    assert not list((repository.root / COPIES).glob("*/*"))


def test_copies_of_ended_processes_are_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = platform.node()
    names = [f"{here}.{ended.pid}", f"{here}.{os.getpid()}", f"elsewhere.{ended.pid}"]
    for name in names:
        (tmp_path / COPIES / name / "exp0058-train-0-x").mkdir(parents=True)
    remove_left_over(tmp_path)
    assert {path.name for path in (tmp_path / COPIES).iterdir()} == set(names[1:])


def test_there_are_as_many_jobs_as_processors_unless_a_gpu_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_WORKERS", "4")
    monkeypatch.setenv("CALLBOARD_DEVICE", "cpu")
    assert [default_jobs(threads) for threads in (1, 2, 3, 8)] == [4, 2, 1, 1]
    monkeypatch.setenv("CALLBOARD_DEVICE", "cuda")
    assert default_jobs(1) == 1


def test_ctrl_c_stops_in_words(
    repository: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.chdir(repository.root)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    later = Planned("exp0058", ["exp0051"], list, lambda *_: 0)
    assert run_side_by_side([Planned("exp0051", (), interrupted, lambda *_: 0), later], JobOptions()) == 130
    assert capsys.readouterr().err.startswith("stopped; the same command continues")


def test_shards_are_refused_where_a_machine_lacks_the_folder(
    repository: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Elsewhere(Workers):
        is_apart = True

    monkeypatch.chdir(repository.root)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setattr(side_by_side, "engine", lambda *arguments: nullcontext(Elsewhere()))
    planned = [Planned("exp0051", (), lambda: None, lambda *_: 0)]
    with pytest.raises(UserError, match=r"^--shards 2 needs nodes that share the folder of the workspace$"):
        run_side_by_side(planned, JobOptions("ray:head:6379", shards=2))
    assert run_side_by_side(planned, JobOptions("ray:head:6379", shards=1)) == 0


def processes_in(folder: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


@pytest.mark.slow
def test_side_by_side_and_in_shards_in_a_clone_without_data_gives_the_bytes_of_one_after_the_other(
    finished: Workspace, tmp_path: Path
) -> None:
    finished.git("clone", "--quiet", str(finished.root), str(tmp_path / "clone"))
    workspace = Workspace(tmp_path / "clone")
    options = ("--jobs", "2", "--shards", "2")
    done = workspace.command(*callboard("repro", *options))
    assert done.returncode == 0, done.stdout
    assert outs(workspace) == outs(finished)
    assert recorded(workspace) == recorded(finished)
    assert ran(done.stdout) == {"predict", "evaluate", "infer", "track"}  # scores are in git
    assert "6 of 6 stages" in done.stdout
    shards = re.findall(r"workspace (\w+): shard (\d)/2, (\d) of (\d) p", done.stdout)
    assert {shard[:2] for shard in shards} == {
        (stage, number) for stage in ("crop", "predict") for number in "12"
    }
    assert all(n_made == n_parts for _, _, n_made, n_parts in shards)
    assert not list(workspace.root.glob(".cache/parts/*/*"))  # all taken

    again = workspace.command(*callboard("repro", *options))
    assert "Data and pipelines are up to date" in again.stdout
    changed = workspace.command(*callboard("run", "exp0051", *options, "-S", "predict.overlap_frames=8"))
    assert changed.returncode == 0, changed.stdout
    assert "crop: shard" not in changed.stdout
    assert "predict: shard 2/2" in changed.stdout
    assert not list(workspace.root.glob(".cache/parts/*/*"))
    assert not list((workspace.root / COPIES).iterdir())


@pytest.mark.slow
def test_rows_fail_alone_a_kill_leaves_nothing_and_a_rerun_ends_as_if_nothing_was(
    workspace: Workspace,
) -> None:
    workspace.write("experiments.yaml", workspace.read("experiments.yaml") + DIVERGING)
    edited = workspace.git("diff")
    command = callboard("run", "exp9001", "exp0058", "--jobs", "2", "-S", "train.epochs=3")
    killed = subprocess.Popen(
        command, cwd=workspace.root, env=workspace.environment(), stdout=subprocess.DEVNULL
    )
    copies = workspace.root / COPIES
    wait_until(lambda: list(copies.glob("*/exp0058-train-*")), "no training began")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    wait_until(lambda: not processes_in(copies) and not list(copies.glob("*/*")), "left behind", limit_s=60)
    assert workspace.git("diff") == edited

    done = workspace.command(*command)
    assert done.returncode == 1
    assert "no longer finite at epoch" in done.stdout
    assert "error: not finished: exp9001" in done.stdout
    assert "new run exp0058 in MLflow" in done.stdout
    assert workspace.git("diff") == edited
    assert not list(copies.iterdir())


@pytest.mark.slow
def test_a_row_is_what_dvc_s_own_experiment_is_queued_or_not_and_a_kill_leaves_the_user_s_edits(
    workspace: Workspace,
) -> None:
    workspace.write("params.yaml", f"{workspace.read('params.yaml')}# a note\n")
    workspace.write("notes.txt", "not tracked")

    def state() -> list[str]:
        questions = ("diff", "status --porcelain", "stash list", "rev-parse HEAD")
        return [workspace.git("--no-optional-locks", *question.split()) for question in questions]

    before, copies, setting = state(), workspace.root / COPIES, "evaluate.n_bootstrap=121"
    command = callboard("run", "exp0051", "--jobs", "1", "-S", setting)
    told = workspace.command(*command, "--dry").stdout.partition("exp0051: ")[2]
    overrides = [word for override in told.split() for word in ("-S", override)]
    killed = subprocess.Popen(
        command, cwd=workspace.root, env=workspace.environment(), start_new_session=True, stdout=-3
    )
    wait_until(lambda: processes_in(copies), "nothing began")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    wait_until(lambda: not processes_in(copies), "processes left", limit_s=60)
    assert state() == before

    done = workspace.command(*command)
    assert done.returncode == 0, done.stdout
    assert not list(copies.iterdir())
    workspace.dvc("exp", "run", "--temp", "--name", "by-dvc", *overrides)
    head = workspace.git("rev-parse", "HEAD").strip()
    ours, theirs = (experiment_ref(head, name) for name in ("exp0051", "by-dvc"))
    assert workspace.git("diff", theirs, ours) == ""
    assert workspace.git("rev-parse", f"{ours}^").strip() == head

    later = ("--queue", "--seed", "416", "exp0051", "-S", "evaluate.n_bootstrap=122")
    queued = workspace.command(*callboard("run", *later))
    assert "exp0051-seed416: in DVC's queue" in queued.stdout
    assert state() == before
    workspace.dvc("exp", "run", "--run-all")
    assert sorted(recorded(workspace)[1:]) == ["exp0051", "exp0051-seed416"]
    assert state() == before
