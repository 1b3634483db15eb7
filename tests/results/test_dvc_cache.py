"""Lists of files that someone altered, by hand."""

import json
from pathlib import Path

import pytest

from callboard.core.errors import UserError
from callboard.results.dvc_cache import cached_file, linked_folder


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
