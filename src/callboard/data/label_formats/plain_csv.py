"""CSV with a row per label: this project's, OpenSoundscape's, bacpipe's, BriteKit's, or one made by hand."""

from pathlib import Path

import pandas as pd

from callboard.core.errors import UserError
from callboard.data.annotations import ANNOTATION_COLUMNS, read_table
from callboard.data.label_formats.form import (
    LabelTable,
    ReadOptions,
    checked_labels,
    only_column,
    recording_of_table,
    species_column,
    verdict_without_column,
)

USUAL_COLUMNS = {
    "recording": ("recording_id", "recording", "file", "filename", "audio_file", "audiofilename", "filepath"),
    "t_min": ("t_min", "start_time", "start", "start_s", "start_time_s", "start (s)", "window_start"),
    "t_max": ("t_max", "end_time", "end", "end_s", "end_time_s", "end (s)", "window_end"),
    "f_min": ("f_min", "low_f", "low_hz", "f_min_hz", "min_frequency", "low_freq"),
    "f_max": ("f_max", "high_f", "high_hz", "f_max_hz", "max_frequency", "high_freq"),
    "songtype": ("songtype_id", "songtype"),
    "verdict": ("verdict", "validated"),
}
"""Usual names of each column of a label, in lower case."""

USUAL_SPECIES = ("species_id", "species", "class", "label", "label:species", "annotation", "name")
USUAL_SCORES = {"score", "confidence", "logit", "logits", "probability"}

NEEDED = {"t_min": "the start in seconds", "t_max": "the end in seconds"}
"""Columns that a table must have besides the species."""


def is_plain_csv(header: set[str]) -> bool:
    """Return whether a header has a start and an end."""
    names = {name.strip().lower() for name in header}
    return all(names & set(USUAL_COLUMNS[role]) for role in NEEDED)


def read_plain_csv(path: Path, options: ReadOptions) -> LabelTable:
    """Read a CSV with the columns of USUAL_COLUMNS, in any order and case.

    Without a column for the recording, the table's name gives it. Labels are open if the table has scores and
    no verdicts.

    Raises:
        UserError: A column is missing or ambiguous, or a row is wrong.
    """
    table = read_table(path, [], others=True)
    names = {str(name).strip().lower() for name in table}
    cells = pd.DataFrame(
        {"species": table[species_column(path, table, options, USUAL_SPECIES)]}, index=table.index
    )
    for role, usual in USUAL_COLUMNS.items():
        if role in NEEDED or names & set(usual):
            cells[role] = table[only_column(path, table, usual, NEEDED.get(role, f"the {role}"))]
    if "recording" not in cells:
        cells["recording"] = recording_of_table(path)
    if "verdict" not in cells:
        cells["verdict"] = verdict_without_column(options, bool(names & USUAL_SCORES))
    if ("f_min" in cells) != ("f_max" in cells):
        raise UserError(
            f"{path.name}: has only one edge of the band; columns are {', '.join(map(str, table))}"
        )
    labels = checked_labels(path, cells)
    return LabelTable(labels, sorted(set(labels["recording"])) or [recording_of_table(path)])


def write_plain_csv(labels: pd.DataFrame, path: Path) -> None:
    """Write labels of all recordings as ANNOTATION_COLUMNS and `verdict`.

    Args:
        labels: LABEL_COLUMNS.
        path: The table.
    """
    names = {"recording": "recording_id", "species": "species_id", "songtype": "songtype_id"}
    labels.rename(columns=names)[[*ANNOTATION_COLUMNS, "verdict"]].to_csv(path, index=False)
