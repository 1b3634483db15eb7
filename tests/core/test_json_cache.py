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


def remember(key: str, value: object, version: str = "1") -> None:
    memory = JsonCache("toy", version)
    memory[key] = value
    memory.save()


def test_what_was_saved_is_there_again(file: Path) -> None:
    value = {"low": 0.1, "names": ["a", None]}
    remember("c0ffee", value)
    memory = JsonCache("toy")
    assert "c0ffee" in memory
    assert memory["c0ffee"] == value
    assert "decaf" not in memory


def test_what_was_not_saved_is_only_there_for_who_said_it(file: Path) -> None:
    memory = JsonCache("toy")
    memory["c0ffee"] = 1
    assert memory["c0ffee"] == 1
    assert "c0ffee" not in JsonCache("toy")
    assert not file.exists()


def test_nothing_new_writes_nothing(file: Path) -> None:
    JsonCache("toy").save()
    assert not file.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"version": "1", "values": {"c0f',
        "[1, 2]",
        "null",
        '{"c0ffee": 1}',
        '{"version": "1"}',
        '{"version": "1", "values": 3}',
        "\x00\x00",
    ],
)
def test_a_broken_file_counts_as_empty_and_is_replaced(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    assert "c0ffee" not in JsonCache("toy")
    remember("c0ffee", 2)
    assert JsonCache("toy")["c0ffee"] == 2


def test_a_file_of_no_text_counts_as_empty(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"\xff\xfe\x00")
    assert "c0ffee" not in JsonCache("toy")


def test_a_lost_file_is_made_anew(file: Path) -> None:
    remember("old", 1)
    file.unlink()
    remember("new", 2)
    memory = JsonCache("toy")
    assert "old" not in memory
    assert memory["new"] == 2


def test_another_version_forgets_all(file: Path) -> None:
    remember("c0ffee", 1)
    assert "c0ffee" not in JsonCache("toy", "2")
    remember("decaf", 2, version="2")
    assert json.loads(file.read_text()) == {"version": "2", "values": {"decaf": 2}}
    assert "c0ffee" not in JsonCache("toy", "1")


def test_who_saves_later_keeps_what_another_saved_meanwhile(file: Path) -> None:
    slow, fast = JsonCache("toy"), JsonCache("toy")
    slow["slow"] = 1
    fast["fast"] = 2
    fast.save()
    slow.save()
    memory = JsonCache("toy")
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
    values = json.loads(file.read_text())["values"]
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
    memory = JsonCache("toy")
    memory["a"] = 1
    memory.save()
    assert memory["a"] == 1
    assert "a" not in JsonCache("toy")
