"""The sentence that each failure to read becomes."""

import errno
import json
from pathlib import Path

import pytest

from callboard.core.errors import UnreadableFileError, UserError
from callboard.core.reading import reading, refuse_no_path


class OfALibraryError(Exception):
    """An error that no list of exceptions names."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file"), "a.pt: not found; run train first"),
        (PermissionError(errno.EACCES, "Permission denied"), "a.pt: cannot be read: Permission denied"),
        (KeyError("species"), "a.pt: not readable as weights: KeyError: 'species'; train again"),
        (EOFError(), "a.pt: not readable as weights: EOFError; train again"),
        (OfALibraryError("two\n  lines"), "a.pt: not readable as weights: two lines; train again"),
        (MemoryError(), "a.pt: not readable as weights: MemoryError; train again"),
        (ValueError("x y " * 100), f"a.pt: not readable as weights: {'x y ' * 75} …; train again"),
        (OSError(errno.EINVAL, "x"), "a.pt: not readable as weights: [Errno 22] x; train again"),
        (OSError("no number"), "a.pt: not readable as weights: no number; train again"),
    ],
)
def test_every_failure_is_a_sentence_that_names_the_file(error: Exception, message: str) -> None:
    with (
        pytest.raises(UnreadableFileError) as refusal,
        reading(Path("a.pt"), "readable as weights", missing="run train first", damaged="train again"),
    ):
        raise error
    assert str(refusal.value) == message
    assert refusal.value.__cause__ is error
    assert refusal.value.is_missing == isinstance(error, FileNotFoundError)


def test_text_that_is_not_utf_8_is_refused_with_the_place() -> None:
    with (
        pytest.raises(UnreadableFileError, match=r"^here: not UTF-8, byte 2 is 0xff; save the file"),
        reading("here"),
    ):
        b"ab\xff".decode()


@pytest.mark.parametrize(
    "error", [UserError("row 3"), OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt(), SystemExit(3)]
)
def test_what_the_file_is_not_to_blame_for_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as passed, reading("here"):
        raise error
    assert passed.value is error


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[1]")
    with reading(path):
        content = json.loads(path.read_text())
    assert content == [1]


@pytest.mark.parametrize("text", ["a\0b", "x" * 256, "é" * 128, "\ud800"])
def test_what_no_file_system_takes_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.root: '.* is not a path"):
        refuse_no_path(text, "data.root")
    with pytest.raises((OSError, ValueError)):
        (tmp_path / text).write_text("")


@pytest.mark.parametrize("text", ["", "a/b", "x" * 255, "é" * 127, "~/a b"])
def test_other_texts_are_paths(text: str) -> None:
    refuse_no_path(text, "data.root")
