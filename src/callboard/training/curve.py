"""The learning curve: one row for each epoch, with its numbers and what computed them."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from callboard.core.compute import COMPUTE_COLUMNS, Compute, as_cells
from callboard.core.files import written_whole
from callboard.training.losses.terms import TERMS

CURVE_COLUMNS = ["epoch", "lr", "loss", *TERMS, "val_lwlrap", "val_loss", *COMPUTE_COLUMNS]
"""Epochs count from 1; lr is that of the epoch's first batch; terms are unweighted means, empty where off;
val_lwlrap and val_loss are empty for epochs without validation."""

EpochRow = dict[str, float | None]
"""Numbers of one line of the learning curve."""


def write_curve(history: Sequence[EpochRow], computes: Sequence[Compute], path: Path) -> None:
    """Write the learning curve as CSV with columns CURVE_COLUMNS; None and NaN become empty cells.

    Args:
        history: Numbers of each epoch.
        computes: What computed each epoch.
        path: The new file.
    """
    with written_whole(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, CURVE_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row, compute in zip(history, computes, strict=True):
            writer.writerow({name: _cell(value) for name, value in row.items()} | as_cells(compute))


def _cell(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6g}"
