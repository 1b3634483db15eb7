import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from callboard import cli
from callboard.core.errors import UserError

ROOT = Path(__file__).parent.parent


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files that the commands look at, as the current folder."""
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.dispatch(["--help"])
    assert exit_.value.code == 0
    printed = capsys.readouterr().out
    assert "dvc exp run" in printed
    listed = re.findall(r"^  ([a-z]+)  +[a-zM]", printed, re.MULTILINE)
    files = {path.stem for path in (ROOT / "src/callboard/commands").glob("[a-z]*.py")}
    assert sorted(listed) == sorted(files - {"arguments", "author"} | {"import"})


def test_help_has_each_heading_above_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.dispatch(["--help"])
    printed = capsys.readouterr().out
    places = [
        printed.index(text) for text in ("\nlook at results:\n", "\n  board ", "\nscores of", "\n  lb ")
    ]
    assert places == sorted(places)


def test_help_of_a_command_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.dispatch(["doctor", "--help"])
    assert "what is missing" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["bord"], ["board", "--csv"]])
def test_a_command_that_does_not_exist_is_refused(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.dispatch(argv)
    assert exit_.value.code == 2


def test_outside_a_workspace_one_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no dvc\.yaml in .* or above; run callboard inside a workspace"):
        cli.dispatch(["board"])


def test_a_board_before_the_first_result_says_how_to_make_one(project: Path) -> None:
    with pytest.raises(
        UserError, match=r"no results yet: .*mlflow\.db is not there; `dvc repro` makes the first"
    ):
        cli.dispatch(["board"])
    assert not (project / "mlflow.db").exists()


def test_commands_work_from_a_folder_inside_the_workspace(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project / "src/callboard")
    with pytest.raises(UserError, match="no results yet"):
        cli.dispatch(["board"])


def test_a_mistake_ends_with_status_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["callboard", "board"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 1
    assert capsys.readouterr().err.startswith("error: no dvc.yaml")


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, callboard.cli; print({'mlflow', 'pandas', 'torch'} & set(sys.modules))"
    command, environment = [sys.executable, "-c", code], os.environ | {"PYTHONPATH": str(ROOT / "src")}
    assert (
        subprocess.run(command, env=environment, capture_output=True, check=True).stdout.strip() == b"set()"
    )
