"""The learning curve: one row of numbers for each epoch."""

import csv
import math
from pathlib import Path

from callboard.core.files import written_whole
from callboard.training.losses.terms import TERMS

CURVE_COLUMNS = ["epoch", "lr", "loss", *TERMS, "val_lwlrap", "val_loss"]
"""Epochs count from 1; lr is that of the epoch's first batch; terms are unweighted means, empty where off;
val_lwlrap and val_loss are empty for epochs without validation."""

EpochRow = dict[str, float | None]
"""One line of the learning curve."""


def write_curve(history: list[EpochRow], path: Path) -> None:
    """Write the learning curve as CSV with columns CURVE_COLUMNS; None and NaN become empty cells."""
    with written_whole(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, CURVE_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in history)


def _cell(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6g}"
