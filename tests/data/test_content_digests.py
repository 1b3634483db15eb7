import hashlib
import os
import time
from pathlib import Path

import pytest

from callboard.core.errors import UserError
from callboard.data import content_digests as module
from callboard.data.content_digests import content_digests


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three files in a workspace of their own, old enough to be remembered."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setattr(module, "SETTLED_S", 0.0)
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(path.name.encode() * 1000)
    tick()
    return paths


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read from now on."""
    names: list[str] = []
    digest = module.content_digest

    def watched(path: Path) -> str:
        names.append(path.name)
        return digest(path)

    monkeypatch.setattr(module, "content_digest", watched)
    return names


def tick() -> None:
    """Wait until the clock of the file system has gone on."""
    time.sleep(0.03)


def test_a_digest_is_that_of_all_bytes(files: list[Path]) -> None:
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    assert content_digests(files) == expected
    assert content_digests(files[::-1]) == expected[::-1]
    assert content_digests([]) == []


def test_a_file_is_read_once(files: list[Path], read: list[str]) -> None:
    first = content_digests(files)
    assert sorted(read) == ["a", "b", "c"]
    assert content_digests(files) == first
    assert len(read) == 3


def test_other_bytes_of_equal_size_and_time_are_noticed(files: list[Path], read: list[str]) -> None:
    before, times = content_digests(files), files[1].stat()
    files[1].write_bytes(b"x" * 1000)
    os.utime(files[1], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (files[1].stat().st_size, files[1].stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    read.clear()
    after = content_digests(files)
    assert read == ["b"]
    assert [new == old for new, old in zip(after, before, strict=True)] == [True, False, True]


def test_a_touched_file_is_read_again_and_has_the_same_digest(files: list[Path], read: list[str]) -> None:
    before = content_digests(files)
    files[0].touch()
    read.clear()
    assert content_digests(files) == before
    assert read == ["a"]


def test_a_file_that_was_just_written_is_not_trusted(
    files: list[Path], read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a tick of the clock it could be written again without a trace."""
    monkeypatch.setattr(module, "SETTLED_S", 60.0)
    content_digests(files)
    content_digests(files)
    assert len(read) == 6


def test_what_was_read_before_an_interruption_is_remembered(
    files: list[Path], read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLBOARD_WORKERS", "1")
    watched = module.content_digest

    def interrupted(path: Path) -> str:
        if path.name == "c":
            raise KeyboardInterrupt
        return watched(path)

    monkeypatch.setattr(module, "content_digest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        content_digests(files)
    monkeypatch.setattr(module, "content_digest", watched)
    read.clear()
    content_digests(files)
    assert read == ["c"]


def test_a_missing_file_is_named(files: list[Path]) -> None:
    files[2].unlink()
    with pytest.raises(UserError, match=r"/c: cannot be read: No such file"):
        content_digests(files)
