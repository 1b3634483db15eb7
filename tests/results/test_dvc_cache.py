"""Lists of files that someone altered, and files whose content is not what their names say."""

import hashlib
import json
import os
import re
from pathlib import Path

import pytest

from callboard.core.errors import UserError
from callboard.results import dvc_cache
from callboard.results.dvc_cache import (
    DamagedFileError,
    cached_file,
    cached_in_folder,
    is_cached,
    linked_folder,
    object_path,
)


@pytest.mark.parametrize("relpath", ["../escaped", "/tmp/escaped", "a/../../escaped"])
def test_a_list_of_files_cannot_write_outside_its_folder(tmp_path: Path, relpath: str) -> None:
    listing = tmp_path / "ab.dir"
    listing.write_text(json.dumps([{"relpath": relpath, "md5": "0" * 32}]))
    with (
        pytest.raises(UserError, match=r"DVC's list ab\.dir: path .* leaves its folder"),
        linked_folder(listing),
    ):
        pass


@pytest.mark.parametrize("md5", ["../../../params.yaml", "ab/../../../x", "ab.txt"])
def test_a_hash_cannot_name_a_file_outside_the_cache(md5: str) -> None:
    with pytest.raises(UserError, match="is not an md5"):
        cached_file(md5, "scores")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(content: bytes, suffix: str = "") -> str:
    """The md5 of a file that is now in the cache, read-only as DVC leaves it."""
    md5 = hashlib.md5(content).hexdigest() + suffix
    path = object_path(md5, Path.cwd())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o444)
    return md5


def overwrite(md5: str, content: bytes) -> Path:
    path = object_path(md5, Path.cwd())
    path.unlink()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("damage", [lambda whole: whole[:5], lambda whole: b"", lambda whole: whole[::-1]])
def test_a_file_with_other_content_is_refused_until_it_is_whole_again(here: Path, damage) -> None:
    whole = b"recording_id,s0\n"
    md5 = put(whole)
    assert cached_file(md5, "scores/oof.csv").read_bytes() == whole
    path = overwrite(md5, damage(whole))
    found = hashlib.md5(damage(whole)).hexdigest()
    told = f"scores/oof.csv is damaged in DVC's cache: {path} has md5 {found}, must be {md5}; `rm -f {path}`"
    for _ in range(2):
        with pytest.raises(DamagedFileError, match=re.escape(told)):
            cached_file(md5, "scores/oof.csv")
    assert is_cached(md5)  # it is there, whole or not
    overwrite(md5, whole)
    assert cached_file(md5, "scores/oof.csv").read_bytes() == whole


def test_the_list_and_the_files_of_a_folder_are_compared_too(here: Path) -> None:
    names = {"r0/oof.npz": b"oof", "r0/test.npz": b"test"}
    entries = [{"relpath": name, "md5": put(content)} for name, content in names.items()]
    text = json.dumps(entries).encode()
    listing = cached_file(put(text, ".dir"), "scores")
    with linked_folder(listing) as folder:
        assert (folder / "r0/oof.npz").read_bytes() == b"oof"
    overwrite(entries[1]["md5"], b"te")
    with linked_folder(listing, "r0/oof") as folder:  # what is not wanted is not asked for
        assert [path.name for path in folder.rglob("*.npz")] == ["oof.npz"]
    with pytest.raises(DamagedFileError, match=r"r0/test\.npz of .* is damaged"), linked_folder(listing):
        pass
    with pytest.raises(DamagedFileError, match=r"scores/r0/test\.npz is damaged"):
        cached_in_folder(listing, "r0/test.npz", "scores")
    overwrite(hashlib.md5(text).hexdigest() + ".dir", text[:-1])
    with pytest.raises(DamagedFileError, match="scores is damaged"):
        cached_file(hashlib.md5(text).hexdigest() + ".dir", "scores")


def test_the_md5_of_a_large_file_is_remembered_until_the_file_changes(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dvc_cache, "LARGE_BYTES", 4)
    read = []
    original = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *given: read.append(given) or original(*given))
    large, small = put(b"large"), put(b"sml")
    for n_read in (2, 3):
        dvc_cache._md5.cache_clear()  # as in another process
        assert cached_file(large, "weights")
        assert cached_file(small, "table")
        assert len(read) == n_read  # the second time only the small one
    path = overwrite(large, b"LARGE")
    os.utime(path, ns=(1, 1))
    with pytest.raises(DamagedFileError):
        cached_file(large, "weights")
