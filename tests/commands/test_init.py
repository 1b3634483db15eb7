"""`callboard init`: what it writes, what it keeps, and when it does not."""

import shutil
from pathlib import Path

import pytest

from callboard import cli
from callboard.core.errors import UserError
from callboard.experiments.table import read_experiments
from callboard.params.base import read_tree
from callboard.training import step_time
from stages import check
from tests.toy_folder import make_folder
from tests.toy_git import ToyRepository

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "tests/params.yaml").read_text(encoding="utf-8")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyRepository:
    """The project's files, committed, with recordings in it."""
    repository = ToyRepository(tmp_path / "main")
    shutil.copy(ROOT / "tests/params.yaml", repository.root)
    shutil.copytree(ROOT / "presets", repository.root / "presets")
    for name in ("dvc.yaml", "experiments.yaml"):
        shutil.copy(ROOT / name, repository.root)
    repository.commit()
    make_folder(repository.root / "recordings")
    monkeypatch.chdir(repository.root)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("CALLBOARD_DEVICE", "cpu")
    monkeypatch.setattr(step_time, "MEASURED_S", 0.1)
    return repository


def test_the_written_file_is_the_row_and_passes_the_check(
    workspace: ToyRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.dispatch(["init", "recordings", "--yes"])
    printed = capsys.readouterr().out
    assert "params.yaml is written; `git checkout HEAD params.yaml` undoes it" in printed
    check.main(["params.yaml", "verdict"])
    tree = read_tree(Path("params.yaml"))
    assert (tree["data"]["root"], tree["clip"]["n_frames"]) == ("recordings", 96)
    assert read_experiments().overrides("exp0051", tree) == []
    assert list(tree) == list(read_tree(ROOT / "tests/params.yaml"))
    assert not list(Path().glob("params.yaml.bak*"))
    title, *lines = Path("params.yaml").read_text(encoding="utf-8").splitlines()
    comments = [line for line in TEXT.splitlines() if line.startswith("#")]
    assert title == "# exp0051 for recordings, by `callboard init`."
    assert [line for line in lines if line.startswith("#")] == comments[1:]


def test_a_file_that_git_does_not_have_is_kept_beside_the_new_one(
    workspace: ToyRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, copy in enumerate(("params.yaml.bak", "params.yaml.bak1")):
        edited = TEXT.replace("seed: 416", f"seed: {number}")
        Path("params.yaml").write_text(edited, encoding="utf-8")
        cli.dispatch(["init", "recordings", "--yes"])
        assert f"params.yaml is written; the old one is {copy};" in capsys.readouterr().out
        assert Path(copy).read_text(encoding="utf-8") == edited
        assert read_tree(Path("params.yaml"))["seed"] == number


def test_without_a_terminal_nothing_is_written(workspace: ToyRepository) -> None:
    with pytest.raises(UserError, match="there is no terminal to ask on; --yes writes it"):
        cli.dispatch(["init", "recordings"])
    assert Path("params.yaml").read_text(encoding="utf-8") == TEXT


@pytest.mark.parametrize(("answer", "is_written"), [("y", True), ("Yes", True), ("", False), ("no", False)])
def test_the_answer_counts(
    answer: str, is_written: bool, workspace: ToyRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    cli.dispatch(["init", "recordings"])
    assert (Path("params.yaml").read_text(encoding="utf-8") != TEXT) == is_written


def test_a_second_time_it_proposes_the_same(workspace: ToyRepository) -> None:
    cli.dispatch(["init", "recordings", "--yes"])
    first = Path("params.yaml").read_text(encoding="utf-8")
    cli.dispatch(["init", "recordings", "--yes"])
    assert Path("params.yaml").read_text(encoding="utf-8") == first


def test_after_a_preset_the_sizes_are_those_of_the_folder(workspace: ToyRepository) -> None:
    cli.dispatch(["preset", "rfcx"])
    cli.dispatch(["init", "recordings", "--yes"])
    tree = read_tree(Path("params.yaml"))
    assert (tree["clip"]["n_frames"], tree["model"]["pretrained"]) == (96, False)
    assert tree["model"]["backbone_args"]["channels"] == [16, 32, 64, 128]
