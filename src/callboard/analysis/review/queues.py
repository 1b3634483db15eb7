"""Queues of a review: labels that the networks doubt, windows of predictions, or a list of a person's own."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.analysis.review.session import ReviewQueue
from callboard.analysis.review.verdict_files import ReviewItem, VerdictColumn, WindowVerdicts
from callboard.analysis.suspects.review import (
    SOURCE_FOLDER,
    add_reviewed,
    refuse_unprepared,
    reviewed_boxes,
    without_repeats,
)
from callboard.core.console import counted, first_few, warn
from callboard.core.csv_rows import as_written, refuse_rows, row_name
from callboard.core.errors import UserError, nearest
from callboard.core.files import path_inside
from callboard.core.reading import reading
from callboard.data.annotations import NUMBERS, read_species, read_table
from callboard.data.corrections import (
    CORRECTION_COLUMNS,
    CORRECTIONS,
    VERDICTS,
    corrected,
    read_corrections,
    read_labels,
    read_placed,
)
from callboard.data.recording_folders import FolderOfRecordings, recording_folders
from callboard.data.recordings import read_recordings, train_lengths_s
from callboard.data.verdicts import VERDICT_COLUMNS, VERDICT_TABLE, read_window_verdicts
from callboard.params.base import Params, load_params
from callboard.params.data import DataParams

LIST_COLUMNS = ["recording", "start_s", "end_s", "species"]
"""Columns that a list of windows must have; it can have others, such as score and verdict."""

CLAIMS = {"tp": "Labelled present", "fp": "Labelled absent", "missing": "Without a label"}
"""Statement of the annotations about a suspect, by kind."""

DEFAULT_COUNT = 200
"""Number of windows of predictions that are chosen."""


class _SourceParams(Params):
    data: DataParams


def open_queue(
    table: Path, recordings: Path | None = None, species: Sequence[str] = (), count: int | None = None
) -> ReviewQueue:
    """Read what is to be judged.

    Args:
        table: A folder of predictions, a table of suspects, or a list of windows.
        recordings: Folder of the recordings; None for where they were when they were scored.
        species: Species to judge; empty for all.
        count: Most items; None for all of a table and DEFAULT_COUNT windows of predictions.

    Raises:
        UserError: The table does not exist, is of no known form or has nothing to judge; its recordings are
            not there; or its rows do not fit the annotations.
    """
    if table.is_dir():
        return _windows_of_predictions(table, recordings, species, count or DEFAULT_COUNT)
    if not table.exists():
        raise UserError(
            f"{table}: does not exist; `callboard suspects` writes a table and `callboard predict` a folder "
            "to review"
        )
    header = read_table(table, [], others=True).columns
    if {*CORRECTION_COLUMNS} <= {*header}:
        if recordings:
            raise UserError(f"--recordings {recordings}: {table.name} is about the training recordings")
        return _suspects(table, species, count)
    if {*LIST_COLUMNS} <= {*header}:
        if recordings is None:
            raise UserError(f"{table}: a list of windows needs --recordings, the folder of its recordings")
        return _list_of_windows(table, recordings, species, count)
    raise UserError(
        f"{table}: must have the columns of `callboard suspects` ({', '.join(CORRECTION_COLUMNS)}) or "
        f"{', '.join(LIST_COLUMNS)}; found {', '.join(header) or 'none'}"
    )


# suspects


def _suspects(path: Path, species: Sequence[str], count: int | None) -> ReviewQueue:
    refuse_unprepared()
    table = _with_verdicts(read_table(path, [], others=True), path)
    rows = read_placed(path).apply(lambda column: column.str.strip())
    corrections = read_corrections(CORRECTIONS)
    _refuse_outdated(rows, corrections)
    is_judged = (rows["verdict"] != "").to_numpy()
    if is_judged.all():
        raise UserError(
            f"{path}: no row is left to review; `callboard suspects --apply {_shown(path)}` takes the "
            f"verdicts into {CORRECTIONS}"
        )
    is_open = is_judged | ~_is_corrected(rows, corrections)
    chosen = _chosen(rows["species_id"], rows["verdict"], is_open, species, count, path)
    paths = _training_recordings()
    _refuse_gone(paths, rows["recording_id"].iloc[chosen].tolist(), path)
    probability = pd.to_numeric(_column(table, "probability"), errors="coerce")
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
    bad = [
        (str(place), verdict) for place, verdict in rows["verdict"].items() if verdict not in ("", *VERDICTS)
    ]
    refuse_rows(
        (place, f"verdict must be one of {', '.join(VERDICTS)}, found {verdict!r}") for place, verdict in bad
    )
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


# predictions


def _windows_of_predictions(
    folder: Path, recordings: Path | None, species: Sequence[str], count: int
) -> ReviewQueue:
    from callboard.analysis.review.sampling import sample_windows  # torch, which other queues do without
    from callboard.scoring.detections import StoredPredictions
    from callboard.scoring.predictions import read_totals, shard_files

    predictions = StoredPredictions.open(folder)
    _refuse_unknown(species, predictions.species, folder)
    table = folder / VERDICT_TABLE
    judged = read_window_verdicts(table) if table.exists() else _no_verdicts()
    files = (file for shard in shard_files(folder) for file in read_totals(shard).files)
    scored = {} if recordings else {file.name: Path(file.path) for file in files}

    def place(name: str) -> Path:
        return path_inside(recordings, name, str(folder)) if recordings else scored.get(name, Path(name))

    windows, gone = sample_windows(predictions, judged, count, species, lambda name: place(name).is_file())
    if gone:
        lost = f"{folder.name}: {counted(len(gone), 'recording')} not found, first {place(gone[0])}"
        if windows.empty:
            raise UserError(f"{lost}; --recordings names the folder where they are now")
        warn(f"{lost}; their windows are left out")
    if windows.empty:
        judged_before = f"; {counted(len(judged), 'verdict')} before" if len(judged) else ""
        of = f" of {', '.join(species)}" if species else ""
        raise UserError(f"{folder}: has no window{of} without a verdict{judged_before}")
    paths = {name: place(name) for name in windows["recording"].unique()}
    top_hz = predictions.band_hz[1]
    items = [
        ReviewItem(name, paths[name], one, start_s, end_s, top_hz=top_hz, score=score)
        for name, start_s, end_s, one, score in zip(
            *(windows[column].tolist() for column in [*LIST_COLUMNS, "score"]), strict=True
        )
    ]
    return ReviewQueue(
        folder.name,
        items,
        WindowVerdicts(table, judged, items),
        f"The verdicts stay in {table.name} of this folder.",
        [f"callboard thresholds {_detector_of(folder)} --verdicts {shlex.quote(_shown(folder))}"],
    )


def _detector_of(folder: Path) -> str:
    from callboard.scoring.predictions import ABOUT

    with reading(folder / ABOUT, "the description of predictions"):
        return shlex.quote(str(json.loads((folder / ABOUT).read_text(encoding="utf-8"))["detector"]))


def _no_verdicts() -> pd.DataFrame:
    numbers = {"start_s": float, "end_s": float, "score": float}
    return pd.DataFrame(columns=VERDICT_COLUMNS, dtype=str).astype(numbers)


# a list


def _list_of_windows(path: Path, recordings: Path, species: Sequence[str], count: int | None) -> ReviewQueue:
    table = _with_verdicts(read_table(path, [], others=True), path)
    cells = table.map(as_written).apply(lambda column: column.str.strip())
    spans = cells[["start_s", "end_s"]].apply(pd.to_numeric, errors="coerce")
    names = {line: row_name(path.name, line) for line in table.index}
    is_span = (spans["start_s"] >= 0) & (spans["end_s"] > spans["start_s"]) & (spans["end_s"] < np.inf)
    refuse_rows(
        (names[line], "start_s and end_s must be seconds, start_s the smaller")
        for line in table.index[~is_span]
    )
    refuse_rows(
        (names[line], f"verdict must be one of {', '.join(VERDICTS)}, found {cells.at[line, 'verdict']!r}")
        for line in table.index[~cells["verdict"].isin(["", *VERDICTS])]
    )
    chosen = _chosen(cells["species"], cells["verdict"], np.ones(len(cells), bool), species, count, path)
    paths = _listed_recordings(cells["recording"].iloc[chosen].unique().tolist(), recordings, path)
    score = pd.to_numeric(_column(cells, "score"), errors="coerce")
    items = [
        ReviewItem(
            cells["recording"].iloc[row],
            paths[cells["recording"].iloc[row]],
            cells["species"].iloc[row],
            float(spans["start_s"].iloc[row]),
            float(spans["end_s"].iloc[row]),
            score=None if np.isnan(score.iloc[row]) else float(score.iloc[row]),
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
    found = {name: listing.file_of(name) for name in names}
    if gone := [name for name, place in found.items() if place is None]:
        raise UserError(
            f"{path.name}: {counted(len(gone), 'recording')} not in --recordings {folder}: {first_few(gone)}"
        )
    return {name: place for name, place in found.items() if place}


# all


def _with_verdicts(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    if table.empty:
        raise UserError(f"{path}: has no rows to review")
    return table if "verdict" in table else table.assign(verdict="")


def _column(table: pd.DataFrame, name: str) -> pd.Series:
    return table[name] if name in table else pd.Series("", table.index)


def _chosen(
    species_of_row: pd.Series,
    verdicts: pd.Series,
    is_open: NDArray[np.bool_],
    species: Sequence[str],
    count: int | None,
    path: Path,
) -> list[int]:
    """Return the positions of the rows to judge: open ones, of some species, up to `count` without a verdict.

    Raises:
        UserError: A species is in no row, or no row is left without a verdict.
    """
    _refuse_unknown(species, sorted(species_of_row.unique()), path)
    wanted = is_open & species_of_row.isin(species or species_of_row).to_numpy()
    is_left = wanted & (verdicts == "").to_numpy()
    if not is_left.any():
        raise UserError(f"{path}: no row{' of ' + ', '.join(species) if species else ''} is left to review")
    n_left = np.cumsum(is_left)
    is_within = (n_left <= count) & ((n_left < count) | is_left) if count else True
    return [int(row) for row in np.flatnonzero(wanted & is_within)]


def _refuse_unknown(species: Sequence[str], known: Sequence[str], path: Path) -> None:
    for name in species:
        if name not in known:
            raise UserError(
                f"--species {name}: not one of {path.name}{nearest(name, known)}; it has "
                f"{first_few(known, 40)}"
            )


def _shown(path: Path) -> str:
    """Return a path relative to the current folder if it is inside."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
