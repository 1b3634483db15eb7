"""Queue of a person's own list of windows, which gets a column of verdicts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from callboard.analysis.review.choosing import (
    choose_rows,
    column_or_blank,
    refuse_unknown_verdicts,
    with_verdicts,
)
from callboard.analysis.review.session import ReviewQueue
from callboard.analysis.review.verdict_files import ReviewItem, VerdictColumn
from callboard.core.console import counted, first_few
from callboard.core.csv_rows import as_written, refuse_rows, row_name
from callboard.core.errors import UserError
from callboard.core.files import path_inside
from callboard.data.annotations import read_table
from callboard.data.recording_folders import FolderOfRecordings

LIST_COLUMNS = ["recording", "start_s", "end_s", "species"]
"""Columns that a list of windows must have; it can have others, such as score and verdict."""


def list_queue(path: Path, recordings: Path, species: Sequence[str], count: int | None) -> ReviewQueue:
    """Queue the rows of a list of windows; see `open_queue`."""
    table = with_verdicts(read_table(path, [], others=True), path)
    cells = table.map(as_written).apply(lambda column: column.str.strip())
    spans = cells[["start_s", "end_s"]].apply(pd.to_numeric, errors="coerce")
    names = {line: row_name(path.name, line) for line in table.index}
    is_span = (spans["start_s"] >= 0) & (spans["end_s"] > spans["start_s"]) & (spans["end_s"] < np.inf)
    refuse_rows(
        (names[line], "start_s and end_s must be seconds, start_s the smaller")
        for line in table.index[~is_span]
    )
    refuse_unknown_verdicts(cells["verdict"].rename(index=names))
    chosen = choose_rows(cells["species"], cells["verdict"], np.ones(len(cells), bool), species, count, path)
    paths = _listed_recordings(cells["recording"].iloc[chosen].unique().tolist(), recordings, path)
    score = pd.to_numeric(column_or_blank(cells, "score"), errors="coerce")
    items = [
        ReviewItem(
            cells["recording"].iloc[row],
            paths[cells["recording"].iloc[row]],
            cells["species"].iloc[row],
            float(spans["start_s"].iloc[row]),
            float(spans["end_s"].iloc[row]),
            score=float(score.iloc[row]) if np.isfinite(score.iloc[row]) else None,
            verdict=cells["verdict"].iloc[row],
        )
        for row in chosen
    ]
    return ReviewQueue(
        path.name,
        items,
        VerdictColumn(path, table, chosen),
        f"The verdicts stay in the column verdict of {path.name}.",
        [],
    )


def _listed_recordings(names: Sequence[str], folder: Path, path: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"--recordings {folder}: {'not a folder' if folder.exists() else 'does not exist'}")
    listing = FolderOfRecordings.list(folder, folder.name)
    here = {name: path_inside(folder, name, path.name) for name in names}
    found = {name: place if place.is_file() else listing.file_of(name) for name, place in here.items()}
    if gone := [name for name, place in found.items() if place is None]:
        raise UserError(
            f"{path.name}: {counted(len(gone), 'recording')} not in --recordings {folder}: {first_few(gone)}"
        )
    return {name: place for name, place in found.items() if place}
