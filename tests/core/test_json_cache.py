"""What is remembered on disk: it is there again, and whatever happens to the file costs time only."""

import json
from multiprocessing import get_context
from pathlib import Path

import pytest

from callboard.core.json_cache import JsonCache


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a memory named "toy" lies."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path / ".cache/toy.json"


CODE = "callboard.core.parts"
"""A module that computes values."""


def open_memory() -> JsonCache:
    return JsonCache("toy", CODE)


def remember(key: str, value: object, code: str = CODE) -> None:
    memory = JsonCache("toy", code)
    memory[key] = value
    memory.save()


def values_in(file: Path) -> dict[str, object]:
    values: dict[str, object] = json.loads(file.read_text().splitlines()[1])
    return values


def test_what_was_saved_is_there_again(file: Path) -> None:
    value = {"low": 0.1, "names": ["a", None]}
    remember("c0ffee", value)
    memory = open_memory()
    assert "c0ffee" in memory
    assert memory["c0ffee"] == value
    assert "decaf" not in memory


def test_what_was_not_saved_is_only_there_for_who_said_it(file: Path) -> None:
    memory = open_memory()
    memory["c0ffee"] = 1
    assert memory["c0ffee"] == 1
    assert "c0ffee" not in open_memory()
    assert not file.exists()


def test_nothing_new_writes_nothing(file: Path) -> None:
    open_memory().save()
    assert not file.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"c0ffee": 1}',
        "0123\n",
        '0123\n{"c0ffee": 1}',
        "\x00\x00",
    ],
)
def test_a_broken_file_counts_as_empty_and_is_replaced(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    assert "c0ffee" not in open_memory()
    remember("c0ffee", 2)
    assert open_memory()["c0ffee"] == 2


@pytest.mark.parametrize(
    ("old", "new"), [("0.25", "0.75"), ("0.25", '"a"'), ("0.25", "{}"), ("c0ffee", "decaff"), ("}", "")]
)
def test_values_that_somebody_else_has_written_are_not_believed(file: Path, old: str, new: str) -> None:
    remember("c0ffee", 0.25)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    memory = open_memory()
    assert "c0ffee" not in memory
    assert "decaff" not in memory


def test_a_memory_under_the_name_of_another_is_not_believed(file: Path) -> None:
    remember("c0ffee", 1)
    file.rename(file.with_name("game.json"))
    assert "c0ffee" not in JsonCache("game", CODE)


def test_a_file_of_no_text_counts_as_empty(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"\xff\xfe\x00")
    assert "c0ffee" not in open_memory()


def test_a_lost_file_is_made_anew(file: Path) -> None:
    remember("old", 1)
    file.unlink()
    remember("new", 2)
    memory = open_memory()
    assert "old" not in memory
    assert memory["new"] == 2


def test_other_code_forgets_all(file: Path) -> None:
    other = "callboard.core.threads"
    remember("c0ffee", 1)
    assert "c0ffee" not in JsonCache("toy", other)
    remember("decaf", 2, other)
    assert values_in(file) == {"decaf": 2}
    assert "c0ffee" not in open_memory()


def test_who_saves_later_keeps_what_another_saved_meanwhile(file: Path) -> None:
    slow, fast = open_memory(), open_memory()
    slow["slow"] = 1
    fast["fast"] = 2
    fast.save()
    slow.save()
    memory = open_memory()
    assert (memory["slow"], memory["fast"]) == (1, 2)


def save_many(name: str) -> None:
    for number in range(50):
        remember(f"{name}{number}", number)


def test_processes_that_save_at_once_leave_a_whole_file(file: Path) -> None:
    context = get_context("fork")
    processes = [context.Process(target=save_many, args=(name,)) for name in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    values = values_in(file)
    assert any(f"{name}49" in values for name in "abc")  # who came last was not overwritten
    assert all(value == int(key[1:]) for key, value in values.items())
    assert list(file.parent.iterdir()) == [file]


def test_it_lies_in_the_main_workspace(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    monkeypatch.chdir(copy)
    remember("c0ffee", 1)
    assert file.exists()
    assert not list(copy.iterdir())


def test_a_memory_that_cannot_be_written_costs_time_only(file: Path) -> None:
    file.parent.parent.mkdir(exist_ok=True)
    file.parent.write_text("a file where the folder goes")
    memory = open_memory()
    memory["a"] = 1
    memory.save()
    assert memory["a"] == 1
    assert "a" not in open_memory()
