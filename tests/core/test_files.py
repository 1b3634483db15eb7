import errno
import os
from pathlib import Path

import pytest

from callboard.core.errors import UserError
from callboard.core.files import path_inside, replaced_folder, written_whole


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "table.csv"
    with written_whole(path) as unfinished:
        unfinished.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def _fail_halfway(path):
    with written_whole(path) as unfinished:
        unfinished.write_text("ha")
        raise RuntimeError


def test_a_failure_leaves_the_old_file_and_no_half(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        _fail_halfway(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_later_run_overwrites_what_a_killed_one_left(tmp_path):
    with written_whole(tmp_path / "table.csv") as of_the_killed:
        name = of_the_killed.name
        of_the_killed.touch()
    with written_whole(tmp_path / "table.csv") as of_the_next:
        assert of_the_next.name == name
        of_the_next.touch()


def test_several_writers_of_one_file_do_not_share_a_temporary_name(tmp_path):
    path = tmp_path / "state.pt"
    with written_whole(path, "1") as first, written_whole(path, "2") as second:
        first.write_text("1")
        second.write_text("2")
    assert path.read_text() == "1"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_folder_replaces_the_old_one_whole(tmp_path):
    folder = tmp_path / "mel"
    for name in ("first", "second"):
        with replaced_folder(folder) as new:
            (new / name).touch()
    assert [path.name for path in folder.iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["mel"]


def test_a_failure_leaves_the_old_folder_and_nothing_else(tmp_path):
    folder = tmp_path / "mel"
    with replaced_folder(folder) as new:
        (new / "first").touch()
    with pytest.raises(IsADirectoryError), replaced_folder(folder) as new:
        new.write_text("a folder is no file")
    assert [path.name for path in folder.iterdir()] == ["first"]
    assert [path.name for path in tmp_path.iterdir()] == ["mel"]


@pytest.mark.parametrize("output", [written_whole, replaced_folder])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS])
def test_what_the_disk_refuses_is_one_sentence(tmp_path, output, code):
    path = tmp_path / "data" / "mel"
    with (
        pytest.raises(UserError, match=rf"data/mel: cannot be written: {os.strerror(code)}; \d+ MB free$"),
        output(path),
    ):
        raise OSError(code, os.strerror(code))
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("output", [written_whole, replaced_folder])
def test_another_failure_of_the_disk_keeps_its_traceback(tmp_path, output):
    with pytest.raises(OSError, match="not yours"), output(tmp_path / "mel"):
        raise OSError(errno.EIO, "not yours")


def test_a_folder_or_a_device_is_not_replaced_by_a_file(tmp_path):
    for place in (tmp_path, Path("/dev/null")):
        with pytest.raises(UserError, match="exists but is not a regular file"), written_whole(place):
            pass


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "C:\\x", "..\\x", "//host/x"])
def test_a_name_from_a_table_does_not_leave_its_folder(tmp_path, name):
    with pytest.raises(UserError, match=r"^t\.csv row 2: path .* leaves its folder"):
        path_inside(tmp_path, name, "t.csv row 2")
    assert path_inside(tmp_path, "a/..b.wav", "t.csv") == tmp_path / "a/..b.wav"
