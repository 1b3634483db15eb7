"""Detections, which are merged windows above a threshold, and the presence of species in recordings.

Detections come from the table of windows, presence from that of recordings. A recording's score pools windows
first and then folds, but a window's has folds pooled already, so a species can be present in a recording
without a detection.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from callboard.core.console import counted, first_few, warn
from callboard.core.csv_rows import as_written, refuse_rows, row_name
from callboard.core.errors import UserError
from callboard.core.files import path_inside, refuse_full_folder, replaced_folder, written_whole
from callboard.core.reading import reading
from callboard.data.annotations import read_table, without_formulas
from callboard.data.label_formats.audacity import write_detected_track
from callboard.data.label_formats.raven import DECIMALS_S, sequence_selections, write_detected_selections
from callboard.scoring.detector_file import is_detector_file, read_detector_file
from callboard.scoring.predictions import ABOUT, read_shard_table, read_totals, shard_files
from callboard.scoring.set_scores import RECORDING_TABLE, WINDOW_TABLE

DETECTION_COLUMNS = ["recording", "start_s", "end_s", "species", "score"]

TOUCHING_S = 1e-6
"""Largest gap, seconds, between windows that touch: starts and ends are rounded differently."""

RESULT_COLUMN = "scores_of"
"""Column of a table of thresholds: `name@key` of the result for whose scores they were chosen."""

Thresholds = Mapping[str, float]
"""Species to the probability from which it is detected; other species are not."""


class StoredPredictions(NamedTuple):
    """A folder of predictions, opened for reading."""

    folder: Path
    reference: str
    """`name@key` of the result whose detector made them."""
    species: list[str]
    floor: float
    band_hz: tuple[float, float]
    """Frequencies that the networks see."""
    shards: list[str]
    """Names of the files of the shards that were finished, in the order of their first recordings."""

    @classmethod
    def open(cls, folder: Path) -> "StoredPredictions":
        """Read the description that `callboard predict` wrote.

        Raises:
            UserError: The folder is not one of predictions, or has no finished shard.
        """
        about = folder / ABOUT
        with reading(about, "the description of predictions", missing="`callboard predict` writes it"):
            found = json.loads(about.read_text(encoding="utf-8"))
            low, high = map(float, found["band_hz"])
            species, floor = list(map(str, found["species"])), float(found["floor"])
            reference = str(found["detector"])
            "".join([reference, *species]).encode()  # JSON can have half a character, which no table takes
        first = {path.name: read_totals(path).files[0].name for path in shard_files(folder)}
        if not first:
            raise UserError(f"{folder}: no shard is finished yet; run the same `callboard predict` again")
        return cls(folder, reference, species, floor, (low, high), sorted(first, key=first.__getitem__))

    def paths(self) -> dict[str, Path]:
        """Return the path of each recording, also of skipped ones, by name."""
        totals = map(read_totals, shard_files(self.folder))
        return {file.name: Path(file.path) for shard in totals for file in shard.files}

    def table(self, name: str, shard: str) -> pd.DataFrame:
        """Read a shard's part of a table."""
        return read_shard_table(self.folder / name / shard)


def read_thresholds(text: str, species: Sequence[str], reference: str) -> dict[str, float]:
    """Return the threshold of each species.

    Args:
        text: A number, for all species; or the path of a CSV with the columns species and threshold, in which
            an empty threshold leaves the species out; or that of an exported detector with thresholds.
        species: Species of the predictions.
        reference: `name@key` of the result whose scores they are.

    Raises:
        UserError: A threshold is not from 0 to 1, or the table is wrong, names unknown species, has no
            threshold, or was chosen for a different result.
    """
    try:
        value = float(text)
    except ValueError:
        read = _exported_thresholds if is_detector_file(text) else _read_threshold_table
        return read(Path(text), species, reference)
    if not 0 <= value <= 1:
        raise UserError(f"threshold {text} must be from 0 to 1")
    return dict.fromkeys(species, value)


def _exported_thresholds(path: Path, species: Sequence[str], reference: str) -> dict[str, float]:
    manifest = read_detector_file(path).manifest
    _refuse_different_result(str(path), manifest.result, reference)
    thresholds = manifest.thresholds
    if unknown := sorted(thresholds.keys() - set(species)):
        raise UserError(f"{path}: species {unknown[0]!r} is not one of the predictions: {', '.join(species)}")
    if not thresholds:
        raise UserError(f"{path}: no species has a threshold; `callboard export --thresholds` adds them")
    return thresholds


def _refuse_different_result(where: str, chosen_for: str, reference: str) -> None:
    if chosen_for.rpartition("@")[2] != reference.rpartition("@")[2]:
        raise UserError(
            f"{where}: thresholds for scores of {chosen_for}, and these are of {reference}; "
            "`callboard thresholds` chooses those of each result"
        )


def _read_threshold_table(path: Path, species: Sequence[str], reference: str) -> dict[str, float]:
    table = read_table(path, ["species", "threshold"], others=True).map(as_written)
    chosen_for = table.get(RESULT_COLUMN, pd.Series("", table.index))
    for line in table.index[chosen_for != ""]:
        _refuse_different_result(row_name(path.name, line), chosen_for[line], reference)
    values = pd.to_numeric(table["threshold"], errors="coerce")
    is_blank = table["threshold"].str.strip() == ""
    problems = []
    for line in table.index:
        name, where = table.at[line, "species"], row_name(path.name, line)
        if name not in species:
            problems.append((where, f"species {name!r} is not one of the predictions: {', '.join(species)}"))
        elif not 0 <= values[line] <= 1 and not is_blank[line]:
            found = table.at[line, "threshold"]
            problems.append((where, f"threshold must be a number from 0 to 1, found {found!r}"))
    problems += [
        (row_name(path.name, line), f"species {table.at[line, 'species']!r} is repeated")
        for line in table.index[table["species"].duplicated()]
    ]
    refuse_rows(problems)
    if is_blank.all():
        raise UserError(f"{path}: no species has a threshold; lower --precision, or judge more windows")
    return dict(zip(table["species"][~is_blank], values[~is_blank].astype(float), strict=True))


def merge_windows(windows: pd.DataFrame) -> pd.DataFrame:
    """Merge windows of a species that overlap or touch: from the first start to the last end, highest score.

    Args:
        windows: DETECTION_COLUMNS, in any order.

    Returns:
        DETECTION_COLUMNS, by recording, start and species.
    """
    ordered = windows.sort_values(["recording", "species", "start_s"], kind="stable", ignore_index=True)
    group = ["recording", "species"]
    last_end = ordered.groupby(group)["end_s"].cummax().groupby([ordered[name] for name in group]).shift()
    is_new = ~(ordered["start_s"] <= last_end + TOUCHING_S)
    merged = ordered.groupby(is_new.cumsum(), sort=False).agg(
        recording=("recording", "first"),
        start_s=("start_s", "min"),
        end_s=("end_s", "max"),
        species=("species", "first"),
        score=("score", "max"),
    )
    merged = merged.round({"start_s": DECIMALS_S, "end_s": DECIMALS_S})
    return merged.sort_values(["recording", "start_s", "species"], ignore_index=True)


def detections(predictions: StoredPredictions, thresholds: Thresholds) -> Iterator[pd.DataFrame]:
    """Yield the detections of each shard, DETECTION_COLUMNS; all of a recording are in one.

    Raises:
        UserError: A threshold is below the floor, or a shard is damaged.
    """
    refuse_below_floor(thresholds, predictions.floor, predictions.folder)
    for shard in predictions.shards:
        windows = predictions.table(WINDOW_TABLE, shard)
        yield merge_windows(windows[windows["score"] >= windows["species"].map(thresholds).astype(float)])


def refuse_below_floor(thresholds: Thresholds, floor: float, folder: Path) -> None:
    """Refuse thresholds of windows whose scores a folder of predictions does not keep.

    Raises:
        UserError: One is below the floor.
    """
    name = min(thresholds, key=thresholds.__getitem__)
    if (lowest := thresholds[name]) < floor:
        raise UserError(
            f"threshold {lowest:g} of species {name} is below the floor of {folder}, {floor:g}, below which "
            f"scores of windows are not kept; `callboard predict` with --floor {lowest:g} and a new --output "
            "keeps them"
        )


def presence(predictions: StoredPredictions, thresholds: Thresholds) -> Iterator[pd.DataFrame]:
    """Yield recording, length_s, species, score, is_present of each shard, of species with a threshold."""
    for shard in predictions.shards:
        table = predictions.table(RECORDING_TABLE, shard)
        table = table[table["species"].isin(list(thresholds))]
        yield table.assign(
            is_present=(table["score"] >= table["species"].map(thresholds).astype(float)).astype(int)
        )


def _write_csv(predictions: StoredPredictions, thresholds: Thresholds, folder: Path) -> tuple[int, int]:
    return 1, _append(detections(predictions, thresholds), folder / "detections.csv")


def refuse_judged_table(path: Path) -> None:
    """Refuse to write a table of detections over one in which `callboard review` keeps verdicts.

    Raises:
        UserError: It has a column `verdict`.
    """
    if path.is_file():
        with path.open("rb") as file:
            header = file.readline().strip().split(b",")
        if b"verdict" in header:
            raise UserError(
                f"{path}: has verdicts of `callboard review`, which would be lost; rename it first"
            )


def write_detection_table(predictions: StoredPredictions, thresholds: Thresholds, path: Path) -> int:
    """Write all detections as one CSV, whole or not at all, and return their number.

    Raises:
        UserError: A threshold is below the floor, or a shard is damaged.
    """
    with written_whole(path) as unfinished:
        return _append(detections(predictions, thresholds), unfinished)


def _write_presence(predictions: StoredPredictions, thresholds: Thresholds, folder: Path) -> tuple[int, int]:
    return 1, _append(presence(predictions, thresholds), folder / "presence.csv")


def _append(tables: Iterator[pd.DataFrame], path: Path) -> int:
    n_rows = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        for table in tables:
            without_formulas(table).to_csv(file, index=False, header=file.tell() == 0)
            n_rows += len(table)
    return n_rows


def _write_parquet(predictions: StoredPredictions, thresholds: Thresholds, folder: Path) -> tuple[int, int]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = [pa.string(), pa.float64(), pa.float64(), pa.string(), pa.float64()]
    schema, n_rows = pa.schema(list(zip(DETECTION_COLUMNS, kinds, strict=True))), 0
    with pq.ParquetWriter(folder / "detections.parquet", schema) as writer:
        for table in detections(predictions, thresholds):
            writer.write_table(pa.Table.from_pandas(table, schema, preserve_index=False))
            n_rows += len(table)
    return 1, n_rows


def _write_each(
    suffix: str, write: Callable[[pd.DataFrame, str, Path], None]
) -> Callable[[StoredPredictions, Thresholds, Path], tuple[int, int]]:
    """Return a writer of a file for each recording with a detection, in the folders of the recordings."""

    def write_each(predictions: StoredPredictions, thresholds: Thresholds, folder: Path) -> tuple[int, int]:
        n_files = n_rows = 0
        low, high = predictions.band_hz
        for table in detections(predictions, thresholds):
            boxes = table.rename(columns={"start_s": "t_min", "end_s": "t_max"}).assign(f_min=low, f_max=high)
            for name, rows in boxes.groupby("recording"):
                recording = path_inside(folder, str(name), str(predictions.folder))
                path = recording.with_suffix(suffix)
                if path.exists():
                    raise UserError(f"{name}: another recording differs only in its suffix; rename one")
                path.parent.mkdir(parents=True, exist_ok=True)
                write(rows, recording.name, path)
                n_files, n_rows = n_files + 1, n_rows + len(rows)
        return n_files, n_rows

    return write_each


def _write_sequence(predictions: StoredPredictions, thresholds: Thresholds, folder: Path) -> tuple[int, int]:
    """Write one selection table of all recordings, opened in Raven together in the order of their paths."""
    places, n_rows = _sequence(predictions), 0
    low, high = predictions.band_hz
    with (folder / "detections.selections.txt").open("w", encoding="utf-8", newline="") as file:
        for table in detections(predictions, thresholds):
            table = table.assign(f_min=low, f_max=high)
            selections = sequence_selections(table.join(places, on="recording"), n_rows)
            without_formulas(selections).to_csv(file, sep="\t", index=False, header=file.tell() == 0)
            n_rows += len(selections)
    return 1, n_rows


def _sequence(predictions: StoredPredictions) -> pd.DataFrame:
    """Return path and begins_s of each recording in the sequence of all, in the order of their paths."""
    paths, lengths_s = predictions.paths(), dict[str, float]()
    for shard in predictions.shards:
        table = predictions.table(RECORDING_TABLE, shard).drop_duplicates("recording")
        lengths_s |= dict(zip(table["recording"], table["length_s"], strict=True))
    if skipped := sorted(set(paths) - set(lengths_s)):
        warn(
            f"{counted(len(skipped), 'skipped recording')} not in the sequence: {first_few(skipped)}; leave "
            "them out in Raven too"
        )
    gone = sorted(name for name in lengths_s if not paths[name].exists())
    if gone and len(gone) < len(lengths_s):
        warn(
            f"{counted(len(gone), 'recording')} of the sequence no longer there: {first_few(gone)}; times of "
            "all later ones are those with them"
        )
    sequence = pd.DataFrame({"path": pd.Series(paths).map(str), "length_s": pd.Series(lengths_s)}).dropna()
    sequence = sequence.sort_values("path")
    return sequence.assign(begins_s=sequence["length_s"].cumsum() - sequence["length_s"])[
        ["path", "begins_s"]
    ]


DETECTION_FORMATS: dict[str, Callable[[StoredPredictions, Thresholds, Path], tuple[int, int]]] = {
    "csv": _write_csv,
    "parquet": _write_parquet,
    "raven": _write_each(".callboard.selections.txt", write_detected_selections),
    "raven-sequence": _write_sequence,
    "audacity": _write_each(".callboard.txt", write_detected_track),
    "presence": _write_presence,
}
"""Writers by format; each returns the numbers of files and rows."""


def write_detections(
    predictions: StoredPredictions, thresholds: Thresholds, format_name: str, output: Path
) -> tuple[int, int]:
    """Write detections or presence, and return the numbers of files and rows.

    Args:
        predictions: Predictions of a detector.
        thresholds: From `read_thresholds`.
        format_name: One of DETECTION_FORMATS.
        output: Folder to write, which must be empty or not exist.

    Raises:
        UserError: `output` has files, a shard is damaged, two recordings of a folder differ only in their
            suffix, or a threshold of detections is below the floor.
    """
    refuse_full_folder(output)
    with replaced_folder(output) as draft:
        return DETECTION_FORMATS[format_name](predictions, thresholds, draft)
