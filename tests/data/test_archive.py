import os
import unicodedata
from pathlib import Path

import pytest

from callboard.core.errors import UserError
from callboard.data import archive
from callboard.data.archive import ArchiveFile, list_archive, plan_shards


def write(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"0" * len(name))
    return folder


def test_recordings_are_named_by_their_path_below_the_folder(tmp_path: Path) -> None:
    write(tmp_path, "b.WAV", "site1/2020/a.flac", "site1/notes.txt", ".hidden.wav", ".trash/c.wav")
    found = list_archive([tmp_path])
    assert [file.name for file in found] == ["b.WAV", "site1/2020/a.flac"]
    first = tmp_path / "b.WAV"
    assert found[0] == ArchiveFile("b.WAV", str(first), 5, first.stat().st_mtime_ns)


def test_with_several_folders_their_names_come_first(tmp_path: Path) -> None:
    folders = [write(tmp_path / name, "a.wav") for name in ("north", "south")]
    assert [file.name for file in list_archive(folders)] == ["north/a.wav", "south/a.wav"]
    (tmp_path / "north/here").mkdir()
    folders = [tmp_path / "north/here/..", folders[1]]  # as `callboard predict .. ../../south` gives them
    assert [file.name for file in list_archive(folders)] == ["north/a.wav", "south/a.wav"]


def test_a_folder_to_which_a_link_leads_back_is_listed_once(tmp_path: Path) -> None:
    write(tmp_path, "a.wav", "below/b.wav")
    (tmp_path / "below/back").symlink_to(tmp_path)
    (tmp_path / "elsewhere").symlink_to(write(tmp_path.parent / "other", "c.wav"))
    assert [file.name for file in list_archive([tmp_path])] == ["a.wav", "below/b.wav", "elsewhere/c.wav"]


def test_a_folder_to_which_two_paths_lead_is_listed_by_the_first(tmp_path: Path) -> None:
    write(tmp_path, "b/x.wav")
    for name in ("a", "c"):
        (tmp_path / name).symlink_to(tmp_path / "b")
    assert [file.name for file in list_archive([tmp_path])] == ["a/x.wav"]
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere")
    assert len(list_archive([tmp_path])) == 1


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone: folder does not exist"):
        list_archive([tmp_path / "gone"])
    with pytest.raises(UserError, match=r"no recordings \(\.flac, .*\), no files"):
        list_archive([write(tmp_path / "empty", ".hidden.wav")])
    with pytest.raises(UserError, match=r"only files of other formats \(\.txt: 2, no suffix: 1\)"):
        list_archive([write(tmp_path / "texts", "a.txt", "b.txt", "c")])
    with pytest.raises(UserError, match=r"a\.wav: is not a folder"):
        list_archive([write(tmp_path / "x", "a.wav") / "a.wav"])
    with pytest.raises(UserError, match="texts: no recordings"):  # not hidden by the other folder
        list_archive([tmp_path / "x", tmp_path / "texts"])


def test_names_that_would_be_equal_are_refused(tmp_path: Path) -> None:
    folders = [write(tmp_path / parent / "june", "a.wav") for parent in ("x", "y")]
    with pytest.raises(UserError, match=r"x/june/a\.wav and .*/june/a\.wav would both be called june/a"):
        list_archive(folders)


@pytest.mark.parametrize("names", [("x", "x"), ("x", "x/june"), ("x/june", "x"), ("link", "x/june")])
def test_a_folder_that_is_in_another_is_refused(names: tuple[str, str], tmp_path: Path) -> None:
    write(tmp_path / "x", "a.wav", "june/b.wav")
    (tmp_path / "link").symlink_to(tmp_path / "x")
    with pytest.raises(UserError, match="so that its recordings would count twice"):
        list_archive([tmp_path / name for name in names])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_that_no_table_can_hold_is_refused(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.wav")).write_bytes(b"")
    with pytest.raises(UserError, match="is not printable UTF-8; rename it"):
        list_archive([tmp_path])
    assert list_archive([write(tmp_path / "ok", unicodedata.normalize("NFD", "é è.wav"))])


def file(name: str, n_bytes: int = 1) -> ArchiveFile:
    return ArchiveFile(name, f"/{name}", n_bytes, 0)


def test_a_shard_is_bounded_by_recordings_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "SHARD_RECORDINGS", 3)
    monkeypatch.setattr(archive, "SHARD_BYTES", 10)
    sizes = [1, 1, 1, 1, 5, 5, 11, 2, 8, 1]
    shards = list(plan_shards([file(str(k), size) for k, size in enumerate(sizes)]))
    assert [[one.n_bytes for one in shard] for shard in shards] == [[1, 1, 1], [1, 5], [5], [11], [2, 8], [1]]
    assert list(plan_shards([])) == []


def test_a_small_archive_has_shards_enough_for_progress_and_a_large_one_no_smaller_ones_than_needed() -> None:
    def sizes(n_recordings: int) -> list[int]:
        return [len(shard) for shard in plan_shards([file(str(k), 1) for k in range(n_recordings)])]

    assert sizes(16) == [16]
    assert sizes(40) == [16, 16, 8]
    assert sizes(400) == [20] * 20
    assert min(len(sizes(n_recordings)) for n_recordings in range(320, 6000, 7)) == 20
    assert sizes(10_000) == [256] * 39 + [16]
