"""What needs more than the machine has is refused before it starts, or named after it failed."""

import shutil
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from callboard.core import machine
from callboard.core.errors import UserError
from callboard.core.machine import (
    in_gb,
    memory_limit,
    named_if_out_of_memory,
    refuse_more_disk,
    refuse_more_memory,
)


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        (
            "0::/job/step\n",
            {"job/step/memory.max": "max", "job/memory.max": "5000", "memory.max": "9000"},
            5000,
        ),
        ("9:name=systemd:/\n4:memory:/a\n", {"memory/a/memory.limit_in_bytes": "7000"}, 7000),
        ("0::/\n", {"memory.max": "max"}, None),
        ("0::/\n", {}, None),
    ],
)
def test_the_limit_is_that_of_the_group_of_processes_if_it_is_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, limits: dict[str, str], expected: int | None
) -> None:
    for name, text in limits.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    (tmp_path / "own").write_text(groups)
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "own")
    assert memory_limit() == (expected or psutil.virtual_memory().total)


def test_what_needs_more_memory_than_there_is_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_limit", lambda: 8e9)
    refuse_more_memory("a batch", 8e9, "lower train.batch_size")
    told = r"^a batch: needs 9.5 GB of memory, of 8.0 GB in all; lower train.batch_size$"
    with pytest.raises(UserError, match=told):
        refuse_more_memory("a batch", 9.5e9, "lower train.batch_size")


def test_what_does_not_fit_on_the_disk_is_refused(tmp_path: Path) -> None:
    refuse_more_disk("frames", 1, tmp_path, "make room")
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(UserError, match=r"^frames: needs .* on disk, .* free; make room$"):
        refuse_more_disk("frames", free + 1e12, tmp_path, "make room")


@pytest.mark.parametrize(
    "allocate", [lambda: np.ones(2**50), lambda: torch.ones(2**50)], ids=["numpy", "torch"]
)
def test_running_out_of_memory_is_told_with_the_setting_to_lower(allocate) -> None:  # type: ignore[no-untyped-def]
    with (
        pytest.raises(UserError, match=r"^recording a: out of memory; cut it$"),
        named_if_out_of_memory("recording a", "cut it"),
    ):
        allocate()


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), named_if_out_of_memory("recording a", "cut it"):
        raise RuntimeError("shapes do not match")


@pytest.mark.parametrize(("n_bytes", "text"), [(0, "0.0 GB"), (1.26e9, "1.3 GB"), (3.35e12, "3.4 TB")])
def test_bytes_in_words(n_bytes: float, text: str) -> None:
    assert in_gb(n_bytes) == text
