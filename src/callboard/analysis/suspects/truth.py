"""Suspects against the calls that the soundscapes are known to hold: how many of the first N are mistakes."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.core.console import counted
from callboard.data.annotations import read_table, typed
from callboard.data.corrections import CORRECTION_KINDS

TRUTH = "hidden/train_labels.csv"
"""Below data/source; only the soundscapes have it."""

TRUTH_DTYPES = {"recording_id": "str", "species_id": "str", "t_min": "float64", "t_max": "float64"}

NUMBERS_SHOWN = (10, 20, 50, 100)


def read_calls(path: Path) -> pd.DataFrame:
    """Every call of a species in a training recording, TRUTH_DTYPES.

    Raises:
        UserError: no such file, or no such table.
    """
    return typed(read_table(path, list(TRUTH_DTYPES)), TRUTH_DTYPES, path)


def is_mistake(suspects: pd.DataFrame, calls: pd.DataFrame) -> NDArray[np.bool_]:
    """Whether a label is wrong.

    A tp row whose box no call of the species touches, an fp row whose box one touches, a recording without a
    label of a species that calls anywhere in it.
    """
    spans = {
        cell: group[["t_min", "t_max"]].to_numpy()
        for cell, group in calls.groupby(["recording_id", "species_id"])
    }
    nowhere = np.empty((0, 2))
    found = []
    for kind, recording_id, species_id, t_min, t_max in suspects[
        ["kind", "recording_id", "species_id", "t_min", "t_max"]
    ].itertuples(index=False):
        own = spans.get((recording_id, species_id), nowhere)
        touches = bool(((own[:, 0] < t_max) & (own[:, 1] > t_min)).any())
        found.append({"tp": not touches, "fp": touches, "missing": len(own) > 0}[kind])
    return np.array(found, dtype=bool)


def precision_table(suspects: pd.DataFrame, calls: pd.DataFrame) -> str:
    """For each kind, how many of its first N are mistakes, and which share of all its mistakes that is.

    Args:
        suspects: All of them, in order.
        calls: As read_calls gives them.
    """
    wrong = is_mistake(suspects, calls)
    lines = []
    for kind in CORRECTION_KINDS:
        own = wrong[(suspects["kind"] == kind).to_numpy()]
        if not own.any():
            lines.append(f"  {kind}: none of {len(own)} is a mistake")
            continue
        parts = [
            f"first {n}: {own[:n].sum()} ({own[:n].sum() / own.sum():.0%} of all)"
            for n in NUMBERS_SHOWN
            if n <= len(own)
        ]
        first = f"; {', '.join(parts)}" if parts else ""
        lines.append(f"  {kind}: {counted(int(own.sum()), 'mistake')} among {len(own)}{first}")
    return "\n".join(lines)
