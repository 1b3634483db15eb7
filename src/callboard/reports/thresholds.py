"""Thresholds of a result: a printed table, thresholds.csv and a plot."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from callboard.analysis.thresholds.choice import (
    MIN_CELLS,
    MIN_OF_KIND,
    MIN_UNITS,
    ChosenThreshold,
    ThresholdState,
    choose_thresholds,
    threshold_table,
)
from callboard.analysis.thresholds.evidence import (
    SpeciesEvidence,
    best_evidence,
    box_evidence,
    refuse_different_detector,
    verdict_evidence,
)
from callboard.core.console import Stopwatch, summarize, warn
from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.data.annotations import without_formulas
from callboard.data.verdicts import VERDICT_TABLE
from callboard.params.references import blend_parts
from callboard.results.result import Result
from callboard.results.rows import result_named
from callboard.scoring.detections import RESULT_COLUMN

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from callboard.scoring.detector import Detector

_TABLE, _PLOT = "thresholds.csv", "thresholds.png"

_TABLE_DIGITS = 4
_N_COLUMNS = 4
"""Number of panels beside each other in the plot."""

_PANEL_INCHES = 2.7, 2.3

_CURVE_COLOUR, _PRESENT_COLOUR, _ABSENT_COLOUR = "#3b6ea5", "#4aa564", "#d1752b"

_SOURCES = {
    "boxes": "boxes, out of fold: they hold for recordings like the training ones",
    "verdicts": "verdicts: they hold for the recordings that were reviewed",
}
"""By kind of evidence, what it was and for which recordings its thresholds hold."""


def write_thresholds(
    reference: str | None, precision: float, verdicts: Sequence[Path], output: Path | None
) -> None:
    """Choose the thresholds of a result, write table and plot, and print the table.

    Args:
        reference: See lookup.find; None for the result of HEAD.
        precision: Precision that is asked for, above 0 and below 1.
        verdicts: Folders of predictions with verdicts; empty for predictions/NAME if it has any.
        output: Folder to write; None for thresholds/NAME.

    Raises:
        UserError: The result does not exist, a file of it is not in the cache, or nothing was judged.
    """
    watch = Stopwatch()
    result = result_named(reference)
    chosen = choose_thresholds(judged_evidence(result, verdicts), precision)
    folder = output or Path("thresholds", result.name)
    table = threshold_table(chosen).assign(**{RESULT_COLUMN: result.ref.reference})
    with written_whole(folder / _TABLE) as unfinished:
        without_formulas(table.round(_TABLE_DIGITS)).to_csv(unfinished, index=False)
    draw_thresholds(chosen, precision, folder / _PLOT)
    counts = Counter(one.state for one in chosen)
    summarize(
        "thresholds",
        f"{result.name}, precision {precision:g}",
        *(f"{counts[state]} {state}" for state in ThresholdState),
        f"{watch.elapsed_s:.1f} s",
    )
    print(format_thresholds(chosen))
    print(f"  {folder}: {_TABLE}, {_PLOT}")


def judged_evidence(result: Result, folders: Sequence[Path]) -> dict[str, SpeciesEvidence]:
    """Read all that people judged about the scores of a result, the better kind of each species.

    Raises:
        UserError: Nothing was judged, or only boxes for a blend, which has no out-of-fold scores of windows.
    """
    from callboard.model.device import pick_device
    from callboard.scoring.result_detector import load_detector

    detector = load_detector(result, pick_device())
    own = Path("predictions", result.name)
    if not folders and (own / VERDICT_TABLE).is_file() and _is_of(own, detector):
        folders = [own]
    verdicts = verdict_evidence(folders, detector) if folders else {}
    if not verdicts and blend_parts(result.params):
        raise UserError(
            f"{result.name} is a blend, which has no out-of-fold scores of windows; `callboard predict "
            f"{result.name} FOLDER` and `callboard review` make verdicts for --verdicts"
        )
    boxes = {} if blend_parts(result.params) else box_evidence(result, detector)
    evidence = best_evidence(boxes, verdicts, MIN_CELLS)
    if not any(len(one.cells.score) for one in evidence.values()):
        raise UserError(f"{result.name}: no species has a judged box or a verdict of present or absent")
    return evidence


def _is_of(folder: Path, detector: "Detector") -> bool:
    """Return whether a detector made the predictions in a folder, with a warning if not."""
    try:
        refuse_different_detector(folder, detector)
    except UserError as error:
        warn(f"{error}; they are left out")
        return False
    return True


def format_thresholds(chosen: Sequence[ChosenThreshold]) -> str:
    """Format the thresholds as an aligned table, and what they come from."""
    rows = [["species", "threshold", "precision", "interval", "recall", "present", "absent", "evidence"]]
    table = threshold_table(chosen)
    rows += [_text_row(one, row) for one, (_, row) in zip(chosen, table.iterrows(), strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    kinds: Counter[str] = Counter(one.evidence.kind for one in chosen)
    lines += [f"  {kinds[kind]} species from {text}" for kind, text in _SOURCES.items() if kinds[kind]]
    if any(one.state is ThresholdState.TOO_FEW for one in chosen):
        lines.append(
            f"  too few: fewer than {MIN_CELLS} judged, of boxes fewer than {MIN_OF_KIND} of a kind, or "
            f"fewer than {MIN_UNITS} recordings or groups; `callboard review` of predictions adds verdicts"
        )
    if any(one.state is ThresholdState.NOT_REACHED and one.evidence.kind == "boxes" for one in chosen):
        lines.append(
            f"  not reached from boxes: `callboard review` of predictions, with {MIN_CELLS} verdicts or more "
            "for a species, finds thresholds where boxes do not"
        )
    return "\n".join(lines)


def _text_row(one: ChosenThreshold, row: "pd.Series[Any]") -> list[str]:
    counts = [str(row["n_present"]), str(row["n_absent"]), row["evidence"]]
    if one.state is ThresholdState.REACHED:
        interval = f"{row['low']:.2f}–{row['high']:.2f}"
        numbers = [f"{row['threshold']:.4g}", f"{row['precision']:.2f}", interval, f"{row['recall']:.2f}"]
        return [one.species, *numbers, *counts]
    best = f"at best {row['best_low']:.2f}" if one.state is ThresholdState.NOT_REACHED else ""
    return [one.species, one.state.value, "", best, "", *counts]


def draw_thresholds(chosen: Sequence[ChosenThreshold], precision: float, path: Path) -> None:
    """Draw a panel for each species: its judged cells, the precision above each score, and the threshold."""
    from matplotlib.figure import Figure

    n_columns = min(_N_COLUMNS, len(chosen))
    n_rows = -(-len(chosen) // n_columns)
    size = n_columns * _PANEL_INCHES[0], n_rows * _PANEL_INCHES[1] + 0.5
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(
        f"precision of windows at or above a score, 95 % interval, and the {precision:g} asked for",
        fontsize=10,
    )
    panels = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    for one, axes in zip(chosen, panels.flat, strict=False):
        _draw_species(axes, one, precision)
    for axes in panels.flat[len(chosen) :]:
        axes.set_axis_off()
    figure.supxlabel("score", fontsize=9)
    with written_whole(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=120, metadata={"Software": None})


def _draw_species(axes: "Axes", one: ChosenThreshold, precision: float) -> None:
    cells = one.evidence.cells
    for is_kind, height, colour in (
        (cells.is_present, 1.06, _PRESENT_COLOUR),
        (~cells.is_present, -0.06, _ABSENT_COLOUR),
    ):
        axes.plot(cells.score[is_kind], np.full(is_kind.sum(), height), "|", color=colour, markersize=7)
    if one.curve is not None:
        axes.fill_between(one.curve.threshold, one.curve.low, one.curve.high, color=_CURVE_COLOUR, alpha=0.25)
        axes.plot(one.curve.threshold, one.curve.precision, color=_CURVE_COLOUR)
    axes.axhline(precision, color="black", linewidth=0.7, linestyle=":")
    if one.threshold is not None:
        axes.axvline(one.threshold, color="black", linewidth=1)
    text = one.state.value if one.threshold is None else f"{one.threshold:.3g}"
    axes.set_title(f"{one.species}: {text}", fontsize=9)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.12, 1.12)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
