"""Choice of the lowest threshold of each species whose precision is surely as high as was asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.analysis.thresholds.evidence import SpeciesEvidence
from callboard.analysis.thresholds.precision import JudgedCells, PrecisionCurve, precision_curve

MIN_CELLS = 20
"""Fewest judged cells of a species."""

MIN_OF_KIND = 10
"""Fewest confirmed and fewest rejected boxes, from each of which a distribution of scores is estimated."""

MIN_UNITS = 10
"""Fewest recordings, or groups, of the cells: an interval over fewer is too narrow."""

MIN_REACHING = 5
"""Fewest present cells at or above a threshold, so that it lies where the species was judged."""

THRESHOLD_COLUMNS = [
    "species",
    "threshold",
    "precision",
    "low",
    "high",
    "recall",
    "n_present",
    "n_absent",
    "evidence",
    "state",
    "best_low",
]
"""Columns of thresholds.csv, before `scoring.detections.RESULT_COLUMN`; detections need the first two."""


class ThresholdState(StrEnum):
    """Outcome of the choice for a species."""

    REACHED = "reached"
    NOT_REACHED = "not reached"
    TOO_FEW = "too few"


@dataclass(frozen=True)
class ChosenThreshold:
    """The threshold of a species, and what it was chosen from."""

    species: str
    evidence: SpeciesEvidence
    curve: PrecisionCurve | None
    """Estimates at all thresholds that could be chosen; None if there are too few cells."""
    place: int | None
    """Index of the threshold in the curve; None without one."""

    @property
    def state(self) -> ThresholdState:
        """Outcome of the choice."""
        if self.curve is None:
            return ThresholdState.TOO_FEW
        return ThresholdState.NOT_REACHED if self.place is None else ThresholdState.REACHED

    @property
    def threshold(self) -> float | None:
        """Lowest score of a detection; None without one."""
        return None if self.curve is None or self.place is None else float(self.curve.threshold[self.place])


def choose_thresholds(evidence: Mapping[str, SpeciesEvidence], precision: float) -> list[ChosenThreshold]:
    """Choose the threshold of each species.

    Args:
        evidence: By species.
        precision: Precision that is asked for, above 0 and below 1.
    """
    return [_choose(name, one, precision) for name, one in evidence.items()]


def _choose(name: str, evidence: SpeciesEvidence, precision: float) -> ChosenThreshold:
    cells = evidence.cells
    if has_too_few(evidence):
        return ChosenThreshold(name, evidence, None, None)
    curve = precision_curve(
        cells,
        evidence.windows,
        are_drawn_by_score=evidence.kind == "verdicts",
        floor=evidence.floor,
    )
    is_met = (curve.low >= precision) & can_be_chosen(curve, cells)
    return ChosenThreshold(name, evidence, curve, int(is_met.argmax()) if is_met.any() else None)


def has_too_few(evidence: SpeciesEvidence) -> bool:
    """Return whether there are too few cells, or cells of too few recordings or groups."""
    cells = evidence.cells
    n_of_kind = min(cells.n_present, cells.n_absent) if evidence.kind == "boxes" else MIN_OF_KIND
    return len(cells.score) < MIN_CELLS or n_of_kind < MIN_OF_KIND or cells.n_units < MIN_UNITS


def can_be_chosen(curve: PrecisionCurve, cells: JudgedCells) -> NDArray[np.bool_]:
    """Return at which of the curve's thresholds enough present cells reach it; none if the slope is down."""
    scores = np.sort(cells.score[cells.is_present])
    n_reaching = len(scores) - np.searchsorted(scores, curve.threshold, side="left")
    found: NDArray[np.bool_] = (n_reaching >= MIN_REACHING) & (curve.slope > 0)
    return found


def threshold_table(chosen: Sequence[ChosenThreshold]) -> pd.DataFrame:
    """Return a table of THRESHOLD_COLUMNS; numbers that do not exist are NaN."""
    return pd.DataFrame([_row(one) for one in chosen], columns=THRESHOLD_COLUMNS)


def _row(one: ChosenThreshold) -> list[object]:
    numbers: list[float] = [np.nan] * 5
    best_low = np.nan
    cells = one.evidence.cells
    if one.curve is not None:
        possible = one.curve.low[can_be_chosen(one.curve, cells)]
        best_low = possible.max(initial=0.0)
        if one.place is not None:
            columns = (one.curve.threshold, one.curve.precision, one.curve.low, one.curve.high)
            numbers = [float(column[one.place]) for column in (*columns, one.curve.recall)]
    return [
        one.species,
        *numbers,
        cells.n_present,
        cells.n_absent,
        one.evidence.kind,
        one.state.value,
        best_low,
    ]
