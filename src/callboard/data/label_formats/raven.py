r"""Selection tables of Raven: tab-separated, one header, a row for each view of a selection.

`Begin Time (s)` counts from the start of the sequence of files that was open, `File Offset (s)` within the
file. The column that names the species has no fixed name. A table without rows means that nothing was found.
"""

import os
from pathlib import Path
from typing import Any

import pandas as pd

from callboard.core.errors import UserError
from callboard.data.annotations import read_table
from callboard.data.label_formats.form import (
    LabelTable,
    ReadOptions,
    checked_labels,
    number_column,
    recording_of_table,
    species_column,
    verdict_without_column,
)

BEGIN, END, OFFSET = "Begin Time (s)", "End Time (s)", "File Offset (s)"
LOW, HIGH = "Low Freq (Hz)", "High Freq (Hz)"

SPECIES_NAMES = ("species", "annotation", "annotations", "label", "labels", "species id", "common name", "id")
"""Usual names of the column that names the species, in lower case."""

SCORES = ("Score", "Confidence")

DECIMALS_S = 9
"""Decimals of times in Raven; sums are rounded to them."""


def is_raven(header: set[str]) -> bool:
    """Return whether a header is that of a selection table."""
    return {BEGIN, END} <= header


def read_raven(path: Path, options: ReadOptions) -> LabelTable:
    """Read a selection table.

    Labels are open if the table has scores and no column `Verdict`.

    Raises:
        UserError: The table or a row is wrong, it is not clear which column names the species, or rows of
            several files have no `File Offset (s)`.
    """
    table = read_selections(path)
    return labels_of_selections(path, table, options, species_column(path, table, options, SPECIES_NAMES))


def read_selections(path: Path) -> pd.DataFrame:
    """Read all cells of a selection table as text, indexed by line.

    Raises:
        UserError: It is not a selection table.
    """
    return read_table(path, [BEGIN, END], others=True, delimiter="\t")


def labels_of_selections(
    path: Path, table: pd.DataFrame, options: ReadOptions, species: str, *, has_bands: bool = True
) -> LabelTable:
    """Turn the cells of a selection table into labels.

    Args:
        path: The table, for messages and the name of the recording if no column has it.
        table: See `read_selections`.
        options: The user's choices.
        species: Column that names the species.
        has_bands: Whether the frequencies are those of the call; detectors write their own limits.

    Raises:
        UserError: A row is wrong.
    """
    recording = recordings_of_selections(path, table)
    t_min, t_max = _times(path, table, recording)
    has_scores = any(name in table for name in SCORES)
    cells = pd.DataFrame({"recording": recording, "species": table[species], "t_min": t_min, "t_max": t_max})
    cells["verdict"] = table["Verdict"] if "Verdict" in table else verdict_without_column(options, has_scores)
    if "Song Type" in table:
        cells["songtype"] = table["Song Type"]
    if has_bands and {LOW, HIGH} <= set(table):
        cells["f_min"], cells["f_max"] = table[LOW], table[HIGH]
    is_view = _is_further_view(table, cells)
    is_blank = ~is_view & (table[species].str.strip() == "")
    left_out = {"further views of a selection": int(is_view.sum())}
    left_out["selections that name no species"] = int(is_blank.sum())
    names = sorted(set(recording)) or [recording_of_table(path)]
    return LabelTable(checked_labels(path, cells[~is_view & ~is_blank]), names, left_out)


def recordings_of_selections(path: Path, table: pd.DataFrame) -> pd.Series:
    """Return the recording of each row: its path or file if the table has them, else the table's name."""
    recording = pd.Series("", index=table.index, dtype="str")
    for name in ("Begin Path", "Begin File"):
        if name in table:
            recording = recording.where(recording != "", table[name].str.strip())
    return recording.where(recording != "", recording_of_table(path))


def _times(path: Path, table: pd.DataFrame, recording: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Return start and end within the recording, s."""
    begin, end = (number_column(path, table[name]) for name in (BEGIN, END))
    if OFFSET not in table:
        if recording.nunique() > 1:
            raise UserError(
                f"{path.name}: rows of {recording.nunique()} recordings without {OFFSET!r}; {BEGIN!r} counts "
                "from the first of them, so save the table with that measurement"
            )
        return begin, end
    offset = number_column(path, table[OFFSET])
    shift = begin - offset
    return offset, end.where(shift == 0, (end - shift).round(DECIMALS_S))


def _is_further_view(table: pd.DataFrame, cells: pd.DataFrame) -> pd.Series:
    """Mark the rows of selections that a spectrogram, or else an earlier row, shows already."""
    if not {"Selection", "View"} <= set(table):
        return pd.Series(False, index=table.index)
    rank = (~table["View"].str.strip().str.lower().str.startswith("spectrogram")).astype(int)
    of_selection = cells[["recording", "species", "t_min", "t_max"]].assign(selection=table["Selection"])
    in_order = of_selection.assign(rank=rank).sort_values("rank", kind="stable")
    is_further: pd.Series = in_order.drop(columns="rank").duplicated()
    return is_further.reindex(table.index)


def write_raven(labels: pd.DataFrame, name: str, path: Path) -> None:
    """Write the labels of one recording as a selection table; a column `Verdict` tells present from absent.

    Args:
        labels: LABEL_COLUMNS.
        name: File name of the recording.
        path: The table.
    """
    verdicts = {"Song Type": labels["songtype"], "Verdict": labels["verdict"]}
    _selection_table(labels).assign(**verdicts, **_place(labels, name)).to_csv(path, sep="\t", index=False)


def write_detected_selections(detections: pd.DataFrame, name: str, path: Path) -> None:
    """Write the detections of one recording as a selection table with a column `Score`.

    Args:
        detections: species, t_min, t_max, f_min, f_max, score.
        name: File name of the recording.
        path: The table.
    """
    table = _selection_table(detections).assign(Score=detections["score"], **_place(detections, name))
    table.to_csv(path, sep="\t", index=False)


def sequence_selections(detections: pd.DataFrame, n_before: int) -> pd.DataFrame:
    """Return detections as rows of the selection table of a sequence of files.

    Args:
        detections: path of the recording, begins_s of it in the sequence, species, start_s, end_s within the
            recording, f_min, f_max, score.
        n_before: Number of selections before these.
    """
    rows = detections.rename(columns={"start_s": "t_min", "end_s": "t_max"})
    table = _selection_table(rows)
    table["Selection"] += n_before
    table[[BEGIN, END]] = table[[BEGIN, END]].add(rows["begins_s"], axis=0)
    names = rows["path"].map(os.path.basename)
    return table.assign(Score=rows["score"], **_place(rows, names), **{"Begin Path": rows["path"]})


def _selection_table(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Selection": range(1, len(rows) + 1),
            "View": "Spectrogram 1",
            "Channel": 1,
            BEGIN: rows["t_min"],
            END: rows["t_max"],
            LOW: rows["f_min"],
            HIGH: rows["f_max"],
            "Species": rows["species"],
        }
    )


def _place(rows: pd.DataFrame, name: str | pd.Series) -> dict[str, Any]:
    return {"Begin File": name, OFFSET: rows["t_min"]}
