"""The record of what computes a network: all that changes how numbers are rounded, besides parameters."""

import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
"""Linux's description of the processors; those of ARM have no line with a model's name."""

MODEL_NAME = re.compile(r"^model name\s*:\s*(.+)$", re.MULTILINE)


@dataclass(frozen=True, order=True)
class Compute:
    """Device, processor, threads, precision and torch that computed an epoch of training.

    Has no time and no name of a host, so that like machines give equal ones.
    """

    device: str
    """Kind of device: `cpu`, `cuda` or `mps`."""
    processor: str
    """Model of the device's processor; of a CPU also the instruction set that torch uses."""
    threads: int
    """Number of threads of each operation on a CPU."""
    precision: str
    """Type of number that convolutions multiply: `float32` or `bfloat16`."""
    torch: str
    """Version of torch, with its build."""

    def __str__(self) -> str:
        threads, torch = self.part("threads"), self.part("torch")
        return f"{self.device} {self.processor}, {threads}, {self.precision}, {torch}"

    def part(self, name: str) -> str:
        """Return one field as it stands in a sentence."""
        value = getattr(self, name)
        if name == "threads":
            return f"{value} thread{'s' * (value != 1)}"
        return f"torch {value}" if name == "torch" else str(value)


Computes = frozenset[Compute]
"""Everything that computed a result; empty if it was not recorded."""

COMPUTE_COLUMNS = tuple(field.name for field in fields(Compute))
"""Columns of a learning curve that hold a Compute."""


def as_cells(compute: Compute) -> dict[str, str]:
    """Return the cells of COMPUTE_COLUMNS."""
    return {name: str(value) for name, value in asdict(compute).items()}


def from_cells(row: Mapping[str, str]) -> Compute | None:
    """Return what computed the epoch of a row; None for a curve without COMPUTE_COLUMNS."""
    if not all(row.get(name) for name in COMPUTE_COLUMNS):
        return None
    device, processor, threads, precision, torch = (row[name] for name in COMPUTE_COLUMNS)
    return Compute(device, processor, int(threads), precision, torch)


def computes_json(computes: Iterable[Compute]) -> str:
    """Write as JSON; equal sets give equal texts."""
    return json.dumps([asdict(one) for one in sorted(computes)])


def computes_of(text: str) -> Computes:
    """Read what `computes_json` wrote; none from an empty text."""
    return frozenset(Compute(**one) for one in json.loads(text or "[]"))


@cache
def cpu_name() -> str:
    """Return the model of this machine's CPU, or its architecture if the system does not name the model."""
    if CPU_INFO.is_file() and (found := MODEL_NAME.search(CPU_INFO.read_text(encoding="utf-8"))):
        return " ".join(found[1].split())
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        answer = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
        return answer.stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()
