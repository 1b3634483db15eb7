"""Which stage DVC would run: asked in workspaces where it has run, has run elsewhere, or would run anew."""

from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.repo import Repo

from callboard.experiments.jobs import pending
from callboard.experiments.jobs.pending import pending_command

PIPELINE = """\
stages:
  copied:
    cmd: python -m copies 'in put.txt' output.txt
    deps: [in put.txt]
    outs: [output.txt]
"""
COMMAND = ["copies", "in put.txt", "output.txt"]


@pytest.fixture
def pending_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], list[str]]:
    """Whether the stage of a small project would run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setattr("sys.argv", ["pending", "copied"])
    Path("copies.py").write_text("import shutil, sys\nshutil.copy(*sys.argv[1:])\n")
    Path("dvc.yaml").write_text(PIPELINE)
    Path("in put.txt").write_text("one")
    Repo.init(no_scm=True).close()

    def ask() -> list[str]:
        capsys.readouterr()
        pending.print_pending()
        return pending_command(capsys.readouterr().out)

    return ask


def test_a_stage_is_pending_unless_the_cache_has_its_output(pending_here: Callable[[], list[str]]) -> None:
    assert pending_here() == COMMAND
    with Repo() as repo:
        repo.reproduce()
    assert pending_here() == []
    Path("output.txt").unlink()
    assert pending_here() == []
    Path("in put.txt").write_text("two")
    assert pending_here() == COMMAND
    Path("dvc.lock").unlink()
    Path("output.txt").unlink()
    Path("in put.txt").write_text("one")
    assert pending_here() == []
    assert Path("output.txt").read_text() == "one"


def test_other_output_is_not_taken_for_a_command() -> None:
    assert pending_command("Running stage 'crop':\n> python -m stages.crop data/source\n") == []
    assert pending_command("x\npending: python -m stages.crop 'a b' --c d\ny\n") == [
        *("stages.crop", "a b", "--c", "d"),
    ]
