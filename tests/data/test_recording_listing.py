import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from callboard.core.errors import UserError
from callboard.data.recording_listing import write_listing
from callboard.params.data import DataParams

LISTING = Path(".check/recordings.csv")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of recordings beside an empty workspace, which is the current folder."""
    folder = tmp_path / "recordings"
    for name in ("train/a.wav", "train/b.FLAC", "test/c.mp3", "test/notes.txt", "test/x/a.wav"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    for name in ("train_tp.csv", "train_fp.csv", "README.txt"):
        (folder / name).write_text(f"content of {name}")
    (tmp_path / "workspace").mkdir()
    monkeypatch.chdir(tmp_path / "workspace")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return folder


def listed(root: Path, **values: str) -> str:
    data = DataParams.model_validate({"source": "own", "root": str(root), "demo": {}} | values)
    write_listing(data, LISTING)
    return LISTING.read_text()


def test_every_file_that_prepare_reads_is_listed_with_its_content(root: Path) -> None:
    lines = listed(root).splitlines()
    names = [line.partition("  ")[2] for line in lines[:-1]]
    assert names == [
        "train_tp.csv",
        "train_fp.csv",
        "train/a.wav",
        "train/b.FLAC",
        "test/c.mp3",
        "test/x/a.wav",
    ]
    assert lines[-1] == "test/notes.txt"
    assert len({line.partition("  ")[0] for line in lines[:-1]}) == 6


CHANGES: dict[str, Callable[[Path], object]] = {
    "other sound": lambda root: (root / "test/c.mp3").write_text("CONTENT of test/c.mp3"),
    "other sound in a subfolder": lambda root: (root / "test/x/a.wav").write_text("other"),
    "a recording that moved to a subfolder": lambda root: (root / "test/c.mp3").rename(root / "test/x/c.mp3"),
    "another row": lambda root: (root / "train_fp.csv").write_text("a row"),
    "one more recording": lambda root: (root / "train/d.wav").write_text("new"),
    "one recording less": lambda root: (root / "train/a.wav").unlink(),
    "another name": lambda root: (root / "train/a.wav").rename(root / "train/x.wav"),
    "a file that is none": lambda root: (root / "test/c.m4a").write_text("new"),
    "a table that is optional": lambda root: (root / "species.csv").write_text("species_id\n1\n"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_content_changes_the_list(root: Path, change: Callable[[Path], object]) -> None:
    before = listed(root)
    change(root)
    assert listed(root) != before


def test_neither_times_nor_places_nor_files_that_nobody_reads_are_in_the_list(root: Path) -> None:
    before = listed(root)
    (root / "train/a.wav").touch()
    (root / "README.txt").write_text("news")
    assert listed(root) == before
    assert listed(Path(shutil.copytree(root, root.parent / "moved"))) == before


def test_external_recordings_are_listed_too(root: Path) -> None:
    folder = root.parent / "elsewhere"
    folder.mkdir()
    (folder / "x.wav").write_text("x")
    before = listed(root, external=str(folder))
    assert "  external/x.wav\n" in before
    (folder / "x.wav").write_text("y")
    assert listed(root, external=str(folder)) != before


def test_soundscapes_have_an_empty_list(root: Path) -> None:
    assert write_listing(DataParams.model_validate({"demo": {}}), LISTING) == 0
    assert LISTING.read_text() == ""


@pytest.fixture
def locked(root: Path) -> str:
    """The list that dvc.lock names, in DVC's cache; the one of soundscapes is older."""
    text = listed(root)
    md5 = hashlib.md5(text.encode()).hexdigest()
    cached = Path(".dvc/cache/files/md5", md5[:2], md5[2:])
    cached.parent.mkdir(parents=True)
    cached.write_text(text)
    Path("dvc.lock").write_text(
        "schema: '2.0'\nstages:\n"
        f"  recordings@-:\n    cmd: c\n    outs:\n    - path: .check/recordings.csv\n      md5: {md5}\n"
        "  recordings_made@demo:\n    cmd: c\n    outs:\n    - path: .check/recordings.csv\n      md5: '00'\n"
    )
    LISTING.unlink()
    return text


def test_without_the_folder_recordings_count_as_in_dvc_lock(
    root: Path, locked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(root)
    assert listed(root) == locked
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: data.root {str(root)!r}: folder does not exist")
    assert "recordings count as unchanged since dvc.lock was written" in warning


def test_without_the_folder_and_its_list_the_folder_is_named(root: Path, locked: str) -> None:
    shutil.rmtree(root)
    shutil.rmtree(".dvc")
    with pytest.raises(UserError, match=r"\.check/recordings\.csv is not in DVC's cache .*`dvc pull` it"):
        listed(root)
    Path("dvc.lock").unlink()
    with pytest.raises(UserError, match="folder does not exist"):
        listed(root)
    assert not LISTING.exists()


def test_a_folder_with_two_files_of_one_recording_is_refused_though_dvc_lock_has_a_list(
    root: Path, locked: str
) -> None:
    (root / "train/a.flac").write_text("also a")
    with pytest.raises(UserError, match=r"a\.flac and a\.wav are one recording_id"):
        listed(root)
