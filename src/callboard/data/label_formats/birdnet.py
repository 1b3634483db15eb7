"""Detections of BirdNET-Analyzer: CSV, Raven tables with columns in any order, folders of reviewed segments.

Detections are open: a confidence is not a verdict. They have no band, since BirdNET writes its own limits.
"""

import re
from pathlib import Path

import pandas as pd

from callboard.core.errors import UserError
from callboard.data.annotations import read_table
from callboard.data.label_formats import raven
from callboard.data.label_formats.form import (
    LabelTable,
    ReadOptions,
    checked_labels,
    first_line,
    recording_of_table,
    species_column,
    verdict_without_column,
)

START, STOP = "Start (s)", "End (s)"
SCIENTIFIC_NAME, COMMON_NAME = ("scientific name",), ("common name",)

NO_CALL = "nocall"
"""Name in the row that stands for a recording in which nothing was found."""

SEGMENT = re.compile(
    r"(?P<confidence>\d\.\d+)_(?P<number>\d+)_(?P<recording>.+)_(?P<t_min>\d+\.\d+)s_(?P<t_max>\d+\.\d+)s"
)
"""Name of a segment, without its suffix."""

REVIEWED = {"Positive": "present", "Negative": "absent", "": "open"}
"""Verdict of a segment by the folder below its species that a reviewer has moved it to."""


def is_birdnet(header: set[str]) -> bool:
    """Return whether a header is that of BirdNET's CSV or Raven table."""
    is_csv = {START, STOP, "Confidence"} <= header
    return is_csv or (raven.is_raven(header) and {"Common Name", "Species Code", "Confidence"} <= header)


def read_birdnet(path: Path, options: ReadOptions) -> LabelTable:
    """Read a table of detections, or a folder of segments, `<species>/[Positive|Negative]/<segment>.wav`.

    The species is its scientific name if the table has it, else its common name.

    Raises:
        UserError: The table or a row is wrong, or the folder has no segments.
    """
    if path.is_dir():
        return _read_segments(path)
    return _read_selections(path, options) if "\t" in first_line(path) else _read_csv(path, options)


def _usual(table: pd.DataFrame) -> tuple[str, ...]:
    return SCIENTIFIC_NAME if SCIENTIFIC_NAME[0] in (str(name).lower() for name in table) else COMMON_NAME


def _read_selections(path: Path, options: ReadOptions) -> LabelTable:
    table = raven.read_selections(path)
    is_empty = (table == NO_CALL).any(axis=1)
    species = species_column(path, table, options, _usual(table))
    found = raven.labels_of_selections(path, table[~is_empty], options, species, has_bands=False)
    recordings = sorted(set(raven.recordings_of_selections(path, table)))
    left_out = found.left_out | {f"rows {NO_CALL!r}: nothing found": int(is_empty.sum())}
    return LabelTable(found.labels, recordings or found.recordings, left_out)


def _read_csv(path: Path, options: ReadOptions) -> LabelTable:
    table = read_table(path, [START, STOP], others=True)
    recording = table["File"] if "File" in table else recording_of_table(path)
    species = species_column(path, table, options, _usual(table))
    cells = pd.DataFrame({"t_min": table[START], "t_max": table[STOP], "species": table[species]})
    cells = cells.assign(recording=recording, verdict=verdict_without_column(options, has_scores=True))
    labels = checked_labels(path, cells)
    return LabelTable(labels, sorted(set(labels["recording"])) or [recording_of_table(path)])


def _read_segments(folder: Path) -> LabelTable:
    rows: list[dict[str, str]] = []
    n_others = 0
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        species, *below = file.relative_to(folder).parts[:-1] or [""]
        verdict = REVIEWED.get("/".join(below))
        segment = SEGMENT.fullmatch(file.stem)
        if segment is None or verdict is None or not species:
            n_others += 1
            continue
        rows.append({"place": str(file.relative_to(folder)), "species": species, "verdict": verdict})
        rows[-1] |= {name: segment[name] for name in ("recording", "t_min", "t_max")}
    if not rows:
        raise UserError(
            f"{folder}: has no segments of BirdNET, <species>/[Positive|Negative]/"
            "<confidence>_<number>_<recording>_<start>s_<end>s.wav"
        )
    labels = checked_labels(folder, pd.DataFrame(rows).set_index("place"))
    return LabelTable(labels, sorted(set(labels["recording"])), {"files that are not segments": n_others})
