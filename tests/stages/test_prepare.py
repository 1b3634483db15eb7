from pathlib import Path

import pytest
from ruamel.yaml import YAML

from callboard.core.errors import UserError
from stages import prepare

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a params.yaml of a tiny demo."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    change_demo(
        tmp_path,
        n_species=3,
        n_tp_recordings=10,
        n_fp_recordings=4,
        n_test_recordings=4,
        recording_length_s=5.0,
    )
    return tmp_path


def change_demo(workspace: Path, **values: object) -> None:
    yaml = YAML()
    path = workspace / "params.yaml"
    params = yaml.load(path if path.exists() else ROOT / "tests/params.yaml")
    params["data"]["demo"].update(values)
    yaml.dump(params, path)


def test_prepare_fills_the_folder_and_says_so_in_one_line(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare.main(["data/source"])
    assert len(list(workspace.glob("data/source/train/*.flac"))) == 14
    assert len(list(workspace.glob("data/source/test/*.flac"))) == 4
    line = capsys.readouterr().out
    assert line.startswith("prepare: demo, 3 species, 14 train and 4 test recordings of 5 s, ")
    assert line.count("\n") == 1


def test_prepare_twice_gives_the_same_bytes(workspace: Path) -> None:
    prepare.main(["first"])
    prepare.main(["second"])
    first, second = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (workspace / "first", workspace / "second")
    )
    assert first == second


def test_prepare_refuses_a_manifest_that_is_not_there(workspace: Path) -> None:
    change_demo(workspace, calls="calls/calls.csv")
    with pytest.raises(UserError, match=r"calls.csv: not found"):
        prepare.main(["data/source"])
    assert not (workspace / "data/source").exists()
