"""Sources of recordings and annotations: soundscapes, the competition's folder, or any other folder."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from callboard.core.console import counted, first_few, warn
from callboard.core.errors import UserError
from callboard.core.files import replaced_folder
from callboard.data.annotations import ANNOTATION_COLUMNS, read_annotations, read_species, read_table
from callboard.data.known_truth import TEST_LABELS, read_test_labels
from callboard.data.recording_files import check_recordings
from callboard.data.recording_folders import (
    RECORDING_SUFFIXES,
    FolderOfRecordings,
    existing_folder,
    recording_folders,
)
from callboard.data.score_tables import score_columns
from callboard.data.soundscapes.writer import make_soundscapes
from callboard.data.source_tables import SourceTables, write_source_tables
from callboard.params.data import DataParams
from callboard.params.features import AudioParams

LENGTH_TOLERANCE_S = 0.02
"""Largest accepted excess of a box over its recording's end: boxes are rounded to frames of a spectrogram."""


def prepare_source(data: DataParams, audio: AudioParams, folder: Path) -> SourceTables:
    """Fill `folder` with the source's tables (and soundscapes, if it makes them), or keep it if that fails.

    Raises:
        UserError: The source does not match its tables or the parameters, or the disk is full.
    """
    with replaced_folder(folder) as draft:
        tables = SOURCES[data.source](data, audio, draft)
        write_source_tables(tables, draft)
    return tables


@dataclass(frozen=True)
class Layout:
    """Species and test recordings of a folder, known before any recording is read."""

    species: list[str]
    test_ids: list[str]


def _from_seed(data: DataParams, audio: AudioParams, draft: Path) -> SourceTables:
    return make_soundscapes(data.demo, audio.sample_rate, draft)


def _from_competition(data: DataParams, audio: AudioParams, draft: Path) -> SourceTables:
    root = existing_folder("data.root", data.root or "")
    sample = root / "sample_submission.csv"
    species = [name.removeprefix("s") for name in _score_columns(sample)]
    layout = Layout(species, _submission_ids(sample))
    return _checked(data, audio, layout, tables=root)


def _from_own(data: DataParams, audio: AudioParams, draft: Path) -> SourceTables:
    root = existing_folder("data.root", data.root or "")
    if (root / "species.csv").is_file():
        species = read_species(root / "species.csv")
    else:
        species = sorted(set(read_annotations(root / "train_tp.csv", "tp")["species_id"]), key=_by_number)
    sample = root / "sample_submission.csv"
    if sample.is_file():
        _refuse_other_columns(sample, species)
        test_ids = _submission_ids(sample)
    else:
        test_ids = _all_test_ids(root / "test")
    tables = _checked(data, audio, Layout(species, test_ids), tables=root)
    if not (root / TEST_LABELS).is_file():
        return tables
    truth = read_test_labels(root / TEST_LABELS, species, test_ids)
    return replace(tables, truth=truth[truth["recording_id"].isin(tables.test_ids)])


def _all_test_ids(folder: Path) -> list[str]:
    """Return every recording of the test set; warn of a set without any.

    Raises:
        UserError: The folder has files, and none is a recording.
    """
    found = FolderOfRecordings.list(folder, "test")
    if not found.files and found.left_out:
        raise UserError(
            f"{found.left_out}; that leaves no test recording: formats are {', '.join(RECORDING_SUFFIXES)}"
        )
    if not found.files:
        warn(f"no test recordings in {folder}: the submission is empty")
    return sorted(found.files)


SOURCES: dict[str, Callable[[DataParams, AudioParams, Path], SourceTables]] = {
    "demo": _from_seed,
    "rfcx": _from_competition,
    "own": _from_own,
}


def _checked(data: DataParams, audio: AudioParams, layout: Layout, tables: Path) -> SourceTables:
    """Check the tables and recordings of a folder, and return the tables without unusable recordings.

    Args:
        data: Where the recordings are, and what to do with a bad one.
        audio: The sample rate that recordings must have.
        layout: Species and test recordings.
        tables: Folder that contains `train_tp.csv` and `train_fp.csv`.

    Raises:
        UserError: A table or recording is missing or wrong, or an id names two recordings.
    """
    tp = read_annotations(tables / "train_tp.csv", "tp", layout.species)
    fp = read_annotations(tables / "train_fp.csv", "fp", layout.species)
    _refuse_or_count_contradictions(tp, fp)
    train_ids = sorted({*tp["recording_id"], *fp["recording_id"]})
    if both := sorted(set(train_ids) & set(layout.test_ids)):
        raise UserError(
            f"recording {both[0]}: annotated for training and in the test set ({len(both)} in total); "
            "an id must name one recording"
        )
    paths = recording_folders(data, tables)
    folders = {subset: FolderOfRecordings.list(path, subset) for subset, path in paths.items()}
    for folder in folders.values():
        if folder.left_out:
            warn(folder.left_out)
    wanted = [("train", train_ids), ("test", layout.test_ids)]
    if data.external:
        external_ids = sorted(folders["external"].files)
        _refuse_bad_externals(data.external, external_ids, {*train_ids, *layout.test_ids})
        wanted.append(("external", external_ids))
    recordings, skipped = check_recordings(folders, wanted, audio, data.on_bad_recording)
    usable = set(recordings["recording_id"])
    tp, fp = tp[tp["recording_id"].isin(usable)], fp[fp["recording_id"].isin(usable)]
    if tp.empty:
        raise UserError(
            f"{tables / 'train_tp.csv'}: none of its recordings can be used; {len(skipped)} recordings were "
            f"skipped, first {skipped['recording_id'].iloc[0]}: {skipped['reason'].iloc[0]}"
        )
    for name, table in (("train_tp.csv", tp), ("train_fp.csv", fp)):
        _refuse_beyond_end(name, table, recordings.set_index("recording_id"))
    _count_copies(recordings)
    test_ids = [recording_id for recording_id in layout.test_ids if recording_id in usable]
    return SourceTables(layout.species, recordings, tp, fp, test_ids, skipped)


def _refuse_or_count_contradictions(tp: pd.DataFrame, fp: pd.DataFrame) -> None:
    """Warn of annotations that both tables have; refuse them if they are all of one table."""
    both = tp.reset_index(names="tp_row").merge(fp.reset_index(names="fp_row"), on=ANNOTATION_COLUMNS)
    if both.empty:
        return
    first = both.iloc[0]
    what = (
        f"{counted(len(both), 'annotation')} confirmed and rejected at once, "
        f"first train_tp.csv row {first['tp_row']} and train_fp.csv row {first['fp_row']}"
    )
    for name, table in (("train_tp.csv", tp), ("train_fp.csv", fp)):
        if len(both) == len(table):
            raise UserError(f"{name}: {what}; that is every row, so one of the tables is wrong")
    warn(f"{what}; train_fp.csv should only have boxes that an annotator rejected")


def _count_copies(recordings: pd.DataFrame) -> None:
    """Warn of recordings of equal content: training recordings, and copies of them in the test set.

    Raises:
        UserError: An external recording is a copy of a training recording.
    """
    originals = recordings[recordings["subset"] == "train"].drop_duplicates("digest").set_index("digest")
    others = recordings[~recordings["recording_id"].isin(originals["recording_id"])]
    copies = others[others["digest"].isin(originals.index)]
    original = copies["digest"].map(originals["recording_id"])
    equal = (
        pd.Series(copies["recording_id"] + " = " + original, dtype=str).groupby(copies["subset"]).agg(list)
    )
    if external := equal.get("external"):
        raise UserError(
            f"data.external: {counted(len(external), 'recording')} of equal content as a training recording, "
            f"whose pseudo-labels would leak into CV: {first_few(external)}; remove them"
        )
    if train := equal.get("train"):
        warn(
            f"train: {counted(len(train), 'recording')} of equal content as another: {first_few(train)}; "
            "they are kept in one fold"
        )
    if test := equal.get("test"):
        warn(
            f"test: {counted(len(test), 'recording')} of equal content as a training recording: "
            f"{first_few(test)}; scores of them do not show what the networks find in new recordings"
        )


def _refuse_bad_externals(value: str, external_ids: list[str], known: set[str]) -> None:
    if not external_ids:
        raise UserError(f"data.external {value!r}: contains no recordings ({', '.join(RECORDING_SUFFIXES)})")
    if both := [recording_id for recording_id in external_ids if recording_id in known]:
        raise UserError(
            f"data.external: recording {both[0]} is also in the training or test set ({len(both)} in total); "
            "an id must name one recording"
        )


def _score_columns(sample: Path) -> list[str]:
    """Read the s… columns of a sample submission, in order.

    Raises:
        UserError: The file is missing, the first column is not recording_id, or another column does not begin
            with s or is repeated.
    """
    first, *scores = read_table(sample, ["recording_id"], others=True).columns
    if (
        first != "recording_id"
        or not scores
        or any(not name.startswith("s") or name == "s" for name in scores)
    ):
        raise UserError(
            f"{sample.name}: columns must be recording_id, then s<species_id> for each species; "
            f"found {', '.join([first, *scores])}"
        )
    return scores


def _submission_ids(sample: Path) -> list[str]:
    table = read_table(sample, ["recording_id"])
    repeated = table[table["recording_id"].duplicated()]
    if not repeated.empty:
        raise UserError(
            f"{sample.name} row {repeated.index[0]}: recording_id {repeated['recording_id'].iloc[0]} "
            f"is repeated ({len(repeated)} in total); every recording must have one row"
        )
    return table["recording_id"].tolist()


def _refuse_other_columns(sample: Path, species: list[str]) -> None:
    found, expected = _score_columns(sample), score_columns(species)
    if set(found) != set(expected):
        missing = ", ".join(name for name in expected if name not in found) or "none"
        unknown = ", ".join(name for name in found if name not in expected) or "none"
        raise UserError(
            f"{sample.name}: columns do not match the species; missing: {missing}; unknown: {unknown}"
        )


def _refuse_beyond_end(name: str, table: pd.DataFrame, recordings: pd.DataFrame) -> None:
    of_row = recordings.loc[table["recording_id"]].set_axis(table.index)
    end_s = of_row["n_samples"] / of_row["sample_rate"]
    beyond = table[table["t_max"] > end_s + LENGTH_TOLERANCE_S]
    if not beyond.empty:
        row = beyond.iloc[0]
        unit = (
            ""
            if 2 * len(beyond) < len(table)
            else _unit_that_fits(table["t_max"], end_s, of_row["sample_rate"])
        )
        raise UserError(
            f"{name} row {beyond.index[0]}: t_max {row['t_max']:g} s is beyond the end of recording "
            f"{row['recording_id']} at {end_s[beyond.index[0]]:g} s ({len(beyond)} in total){unit}"
        )


def _unit_that_fits(t_max: pd.Series, end_s: pd.Series, sample_rate: pd.Series) -> str:
    """Return a guess at the unit of a table of which most times are beyond the end; empty if no unit fits."""
    for unit, per_s in (("milliseconds", 1000), ("samples", sample_rate)):
        if (t_max / per_s <= end_s + LENGTH_TOLERANCE_S).all():
            return f"; as {unit} all times of the table would fit, but they must be in seconds"
    return ""


def _by_number(species_id: str) -> tuple[int, str]:
    return (int(species_id) if species_id.isdecimal() else 0, species_id)
