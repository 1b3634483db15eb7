import shutil
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
    prepare.main(["data/source", "data/metadata.csv"])
    assert len(list(workspace.glob("data/source/train/*.flac"))) == 14
    assert len(list(workspace.glob("data/source/test/*.flac"))) == 4
    line = capsys.readouterr().out
    assert line.startswith("prepare: demo, 3 species, 14 train and 4 test recordings of 5 s, ")
    assert line.count("\n") == 1


def test_prepare_twice_gives_the_same_bytes(workspace: Path) -> None:
    prepare.main(["first", "first.csv"])
    prepare.main(["second", "second.csv"])
    assert folder_bytes(workspace / "first") == folder_bytes(workspace / "second")
    assert (workspace / "first.csv").read_bytes() == (workspace / "second.csv").read_bytes()


def test_prepare_refuses_a_manifest_that_is_not_there(workspace: Path) -> None:
    change_demo(workspace, calls="calls/calls.csv")
    with pytest.raises(UserError, match=r"calls.csv: not found"):
        prepare.main(["data/source", "data/metadata.csv"])
    assert not (workspace / "data/source").exists()


def test_without_a_table_of_recordings_an_empty_one_is_written(workspace: Path) -> None:
    prepare.main(["data/source", "data/metadata.csv"])
    assert (workspace / "data/metadata.csv").read_text() == "recording_id\n"


def test_the_table_of_recordings_is_carried_along_but_is_not_part_of_the_data(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare.main(["made", "none.csv"])
    shutil.copytree("made", "recordings", ignore=shutil.ignore_patterns("recordings.csv"))
    yaml = YAML()
    params = yaml.load(workspace / "params.yaml")
    params["data"] |= {"source": "own", "root": str(workspace / "recordings")}
    yaml.dump(params, workspace / "params.yaml")
    prepare.main(["first", "first.csv"])
    ids = sorted(path.stem for path in (workspace / "recordings/train").iterdir())
    table = "recording_id,site,note\n" + "".join(f"{name},S1,\n" for name in [*ids, "gone"])
    (workspace / "recordings/recordings.csv").write_text(table)
    capsys.readouterr()
    prepare.main(["second", "second.csv"])
    assert (workspace / "second.csv").read_text() == table
    assert "recordings.csv: 1 row of recordings that are not used: gone" in capsys.readouterr().err
    assert folder_bytes(workspace / "first") == folder_bytes(workspace / "second")
    (workspace / "recordings/recordings.csv").write_text(table + "gone,S2,\n")
    with pytest.raises(UserError, match=r"recordings.csv row 17: recording gone is repeated"):
        prepare.main(["third", "third.csv"])
    assert not (workspace / "third").exists()


def folder_bytes(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
