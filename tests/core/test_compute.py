import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from callboard.core import compute
from callboard.core.compute import (
    COMPUTE_COLUMNS,
    Compute,
    as_cells,
    computes_json,
    computes_of,
    cpu_name,
    from_cells,
)

EPYC = Compute("cpu", "AMD EPYC (AVX2)", 1, "float32", "2.14.1+cpu")


def test_a_compute_in_words_by_hand() -> None:
    assert str(EPYC) == "cpu AMD EPYC (AVX2), 1 thread, float32, torch 2.14.1+cpu"
    card = Compute("cuda", "NVIDIA H200", 2, "bfloat16", "2.14.1+cu130")
    assert str(card) == "cuda NVIDIA H200, 2 threads, bfloat16, torch 2.14.1+cu130"


@pytest.mark.parametrize("name", COMPUTE_COLUMNS)
def test_every_field_tells_computes_apart_in_cells_and_json(name: str) -> None:
    other = replace(EPYC, **{name: 2 if name == "threads" else "other"})
    assert from_cells(as_cells(other)) == other != EPYC
    assert computes_of(computes_json([other, EPYC])) == {EPYC, other}
    assert computes_json([other, EPYC]) == computes_json([EPYC, other])
    assert str(other) != str(EPYC)


def test_without_a_record_nothing_is_known() -> None:
    assert computes_of("") == frozenset()
    assert from_cells({"epoch": "1", "loss": "0.5"}) is None
    assert from_cells(as_cells(EPYC) | {"threads": ""}) is None


@pytest.fixture
def processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    cpu_name.cache_clear()
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(compute, "CPU_INFO", path)
    yield path
    cpu_name.cache_clear()


def test_the_cpu_of_linux_is_the_first_that_it_lists(processor: Path) -> None:
    processor.write_text("processor : 0\nmodel\t\t: 1\nmodel name\t: AMD  EPYC 7763 \nprocessor : 1\n")
    assert cpu_name() == "AMD EPYC 7763"


def test_a_cpu_that_the_system_does_not_name_is_its_architecture(
    processor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor.write_text("processor : 0\nCPU part : 0xd0c\n")
    monkeypatch.setattr(compute.sys, "platform", "linux")
    monkeypatch.setattr(compute.platform, "processor", lambda: "")
    monkeypatch.setattr(compute.platform, "machine", lambda: "aarch64")
    assert cpu_name() == "aarch64"


def test_a_mac_is_asked_for_its_processor(processor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute.sys, "platform", "darwin")
    answer = subprocess.CompletedProcess([], 0, stdout="Apple M2\n")
    monkeypatch.setattr(compute.subprocess, "run", lambda *args, **options: answer)
    assert cpu_name() == "Apple M2"
