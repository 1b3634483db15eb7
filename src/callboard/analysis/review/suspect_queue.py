"""Queue of the labels that the networks doubt, whose verdicts become corrections."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.analysis.review.choosing import (
    choose_rows,
    column_or_blank,
    path_from_here,
    refuse_unknown_verdicts,
    with_verdicts,
)
from callboard.analysis.review.session import ReviewQueue
from callboard.analysis.review.verdict_files import ReviewItem, VerdictColumn
from callboard.analysis.suspects.review import (
    SOURCE_FOLDER,
    add_reviewed,
    refuse_unprepared,
    reviewed_boxes,
    without_repeats,
)
from callboard.core.console import counted, first_few
from callboard.core.csv_rows import refuse_rows
from callboard.core.errors import UserError
from callboard.data.annotations import NUMBERS, read_species, read_table
from callboard.data.corrections import (
    CORRECTIONS,
    corrected,
    read_corrections,
    read_labels,
    read_placed,
)
from callboard.data.recording_folders import recording_folders
from callboard.data.recordings import read_recordings, train_lengths_s
from callboard.params.base import Params, load_params
from callboard.params.data import DataParams

CLAIMS = {"tp": "Labelled present", "fp": "Labelled absent", "missing": "Without a label"}
"""Statement of the annotations about a suspect, by kind."""


class _SourceParams(Params):
    data: DataParams


def suspect_queue(path: Path, species: Sequence[str], count: int | None) -> ReviewQueue:
    """Queue the rows of a table that `callboard suspects` wrote; see `open_queue`."""
    refuse_unprepared()
    table = with_verdicts(read_table(path, [], others=True), path)
    rows = read_placed(path).apply(lambda column: column.str.strip())
    corrections = read_corrections(CORRECTIONS)
    _refuse_outdated(rows, corrections)
    is_judged = (rows["verdict"] != "").to_numpy()
    if is_judged.all():
        raise UserError(
            f"{path}: no row is left to review; `callboard suspects --apply {path_from_here(path)}` takes "
            f"the verdicts into {CORRECTIONS}"
        )
    is_open = is_judged | ~_is_corrected(rows, corrections)
    chosen = choose_rows(rows["species_id"], rows["verdict"], is_open, species, count, path)
    paths = _training_recordings()
    _refuse_gone(paths, rows["recording_id"].iloc[chosen].tolist(), path)
    probability = pd.to_numeric(column_or_blank(table, "probability"), errors="coerce")
    items = [_suspect(rows.iloc[row], paths, probability.iloc[row]) for row in chosen]

    def finish() -> str:
        outcome = add_reviewed(path)
        return ", ".join([outcome.added, *outcome.there])

    return ReviewQueue(
        path.name,
        items,
        VerdictColumn(path, table, chosen),
        f"Rows with a verdict are then copied to {CORRECTIONS}, and experiments can use them.",
        [
            f'git commit {CORRECTIONS} -m "Labels heard again"',
            "dvc exp run -n corrected -S data.corrections=true",
        ],
        finish,
    )


def _refuse_outdated(rows: pd.DataFrame, corrections: pd.DataFrame) -> None:
    """Refuse suspects that could not be corrected after hours of listening, as when labels have changed.

    Raises:
        UserError: A row is malformed, or does not fit the annotations.
    """
    refuse_unknown_verdicts(rows["verdict"])
    numbers = rows[["t_min", "t_max"]].apply(pd.to_numeric, errors="coerce")
    refuse_rows(
        (str(place), "t_min and t_max must be numbers") for place in rows.index[numbers.isna().any(axis=1)]
    )
    is_open = (rows["verdict"] == "").to_numpy() & ~_is_corrected(rows, corrections)
    open_rows = rows[is_open].assign(verdict="unsure")
    judged = without_repeats(rows[rows["verdict"] != ""], corrections)
    species = read_species(SOURCE_FOLDER / "species.csv")
    corrected(
        read_labels(SOURCE_FOLDER),
        pd.concat([corrections, judged, open_rows]),
        species,
        train_lengths_s(SOURCE_FOLDER),
    )


def _is_corrected(rows: pd.DataFrame, corrections: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which rows are about a box that corrections.csv has a verdict on."""
    spans = rows.astype({"t_min": float, "t_max": float}).reset_index(drop=True)
    return reviewed_boxes(spans, corrections).to_numpy(dtype=bool)


def _training_recordings() -> dict[str, Path]:
    data = load_params(_SourceParams).data
    known = read_recordings(SOURCE_FOLDER, recording_folders(data, SOURCE_FOLDER))
    return {one.recording_id: one.path for one in known if one.subset == "train"}


def _refuse_gone(paths: Mapping[str, Path], names: Sequence[str], table: Path) -> None:
    gone = [name for name in dict.fromkeys(names) if name not in paths or not paths[name].is_file()]
    if gone:
        folder = next(iter(paths.values())).parent if paths else SOURCE_FOLDER
        raise UserError(
            f"{table.name}: {len(gone)} of {counted(len(set(names)), 'recording')} not found in {folder}: "
            f"{first_few(gone)}"
        )


def _suspect(row: pd.Series, paths: Mapping[str, Path], probability: float) -> ReviewItem:
    t_min, f_min, t_max, f_max = (float(row[name]) for name in NUMBERS)
    return ReviewItem(
        row["recording_id"],
        paths[row["recording_id"]],
        row["species_id"],
        t_min,
        t_max,
        (f_min, f_max),
        claim=CLAIMS[row["kind"]] + ("" if np.isnan(probability) else f", probability {probability:.3f}"),
        verdict=row["verdict"],
    )
