"""Import of labels of other programs into the TP and FP tables of a folder of recordings."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from callboard.core.console import counted, first_few, warn
from callboard.core.csv_rows import refuse_rows
from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.data.annotations import (
    ANNOTATION_COLUMNS,
    LABEL_TYPES,
    read_annotations,
    read_species,
)
from callboard.data.label_formats.form import DEFAULT_SONGTYPE, LABEL_VERDICTS, LabelTable, ReadOptions
from callboard.data.label_formats.registry import LABEL_FORMATS, recognised_format
from callboard.data.label_recordings import LabelledRecordings, Sound, ids_of

LONGEST_WINDOW_S = 5.0
"""Largest excess of a label over its recording's end that is cut off: detectors pad the last window, and
Perch's, the longest, has 5 s. A larger excess means that times are wrong."""

OPEN_REASON = "open: nobody has said present or absent"
"""Why a label without a verdict is left out."""


class ImportOptions(NamedTuple):
    """Choices of the user."""

    format: str | None = None
    """Key of LABEL_FORMATS; None: recognised, file by file."""
    column: str | None = None
    """See ReadOptions."""
    verdict: str | None = None
    """See ReadOptions."""
    band: tuple[float, float] | None = None
    """Band of labels without one, Hz; None: from 0 to half the sample rate of the recording."""
    is_complete: bool = False
    """Whether all recordings of the files were searched for all species."""
    is_added: bool = False
    """Whether labels are added to tables that exist."""


@dataclass(frozen=True)
class LabelImport:
    """Counts of an import; every label of the files is in `n_tp`, `n_fp` or `left_out`."""

    folder: Path
    formats: Counter[str]
    """Number of files of each format."""
    n_recordings: int
    """Number of recordings that the files are about."""
    n_empty: int
    """Number of these without a label."""
    counts: pd.DataFrame
    """(species, LABEL_VERDICTS) number of labels in the files."""
    n_tp: int
    """New rows of the TP table."""
    n_fp: int
    """New rows of the FP table, without absences."""
    n_absences: int
    """Further rows of the FP table: species that a completely reviewed recording lacks."""
    left_out: Counter[str]
    """Number of labels that were not written, by reason."""
    skipped: Counter[str]
    """Number of rows of the files that are not labels, by reason."""
    notes: list[str]
    """Sentences on labels that were changed before they were written."""


class Selection:
    """Labels that are still to be written, and how many were left out for each reason."""

    def __init__(self, labels: pd.DataFrame) -> None:
        self.labels = labels
        self.left_out: Counter[str] = Counter()

    def leave_out(self, is_meant: "pd.Series[bool]", reason: str) -> None:
        """Drop the labels in the mask and count them."""
        if is_meant.any():
            self.left_out[reason] += int(is_meant.sum())
            self.labels = self.labels[~is_meant]


def import_labels(files: Sequence[Path], folder: Path, options: ImportOptions) -> LabelImport:
    """Write `train_tp.csv` and `train_fp.csv` of `folder` from labels of other programs.

    Present labels become TP rows and absent ones FP rows; open ones are only counted. Labels of recordings
    that are not in `folder`/train are left out with a warning, unless that folder has no recordings.

    Args:
        files: Tables, or folders of BirdNET's segments.
        folder: The folder; a `species.csv` in it limits the species.
        options: See ImportOptions.

    Raises:
        UserError: A file or row is wrong, the tables exist already, no recording or no present label is left,
            or the band or length of a recording is needed and not known. Nothing has been written then.
    """
    before = _read_before(folder, options.is_added)
    on_disk = LabelledRecordings.list(folder)
    formats = [options.format or recognised_format(path) for path in files]
    reading = ReadOptions(options.column, options.verdict, on_disk.files)
    tables = [LABEL_FORMATS[name].read(path, reading) for name, path in zip(formats, files, strict=True)]
    if options.is_complete:
        _refuse_unreviewed(files, tables)
    labels, recordings = _with_ids(tables, on_disk)
    selection = Selection(labels)
    found = _leave_out_unknown(selection, recordings, on_disk)
    sounds = on_disk.sounds(found)
    notes = _cut_at_end(selection, sounds)
    named = selection.labels[selection.labels["verdict"] != "absent"]
    selection.leave_out(selection.labels["verdict"] == "open", OPEN_REASON)
    notes += _fill_bands(selection, sounds, options.band)
    _leave_out_repetitions(selection, before)
    species = _leave_out_other_species(selection, before, folder)
    new = selection.labels
    absences = new.iloc[:0]
    if options.is_complete:
        confirmed = pd.concat([before, new]).query("label_type == 'tp'")
        absences = _absences(species, pd.concat([named, confirmed]), confirmed, sounds, folder)
        absences = absences[~pd.concat([before, absences]).duplicated().iloc[len(before) :].to_numpy()]
    _write(pd.concat([before, new[before.columns], absences[before.columns]]), folder, selection.left_out)
    return LabelImport(
        folder=folder,
        formats=Counter(formats),
        n_recordings=len(recordings),
        n_empty=len(set(recordings) - set(labels["recording_id"])),
        counts=pd.crosstab(labels["species_id"], labels["verdict"]).reindex(
            columns=list(LABEL_VERDICTS), fill_value=0
        ),
        n_tp=int((new["label_type"] == "tp").sum()),
        n_fp=int((new["label_type"] == "fp").sum()),
        n_absences=len(absences),
        left_out=selection.left_out,
        skipped=+sum((Counter(table.left_out) for table in tables), Counter[str]()),
        notes=notes,
    )


def table_paths(folder: Path) -> dict[str, Path]:
    """Return the paths of the TP and FP tables of a folder by label type."""
    return {kind: folder / f"train_{kind}.csv" for kind in LABEL_TYPES}


def _read_before(folder: Path, is_added: bool) -> pd.DataFrame:
    """Return the annotations that the folder has already, which labels are added to."""
    paths = table_paths(folder)
    there = [path for path in paths.values() if path.exists()]
    if there and not is_added:
        raise UserError(f"{there[0]}: exists already; --add adds to it, or remove it to start anew")
    tables = [read_annotations(path, kind) for kind, path in paths.items() if there]
    empty = pd.DataFrame(columns=[*ANNOTATION_COLUMNS, "label_type"])
    return pd.concat(tables, ignore_index=True) if tables else empty


def _refuse_unreviewed(files: Sequence[Path], tables: Sequence[LabelTable]) -> None:
    for path, table in zip(files, tables, strict=True):
        if len(table.labels) and (table.labels["verdict"] == "open").all():
            raise UserError(
                f"--complete: nobody has reviewed {path.name}, whose labels are all open; a species that a "
                "detector has not found need not be absent"
            )


def _with_ids(tables: Sequence[LabelTable], on_disk: LabelledRecordings) -> tuple[pd.DataFrame, list[str]]:
    """Return all labels with the ids of annotations and a column `place`, and all recording ids, sorted."""
    names = {name for table in tables for name in (*table.recordings, *table.labels["recording"])}
    ids = ids_of(names, on_disk.files)
    labels = pd.concat([table.labels.rename_axis("place").reset_index() for table in tables])
    renamed = labels.assign(recording=labels["recording"].map(ids)).rename(
        columns={"recording": "recording_id", "species": "species_id", "songtype": "songtype_id"}
    )
    renamed["label_type"] = renamed["verdict"].map({"present": "tp", "absent": "fp", "open": ""})
    return renamed.reset_index(drop=True), sorted(set(ids.values()))


def _leave_out_unknown(
    selection: Selection, recordings: Sequence[str], on_disk: LabelledRecordings
) -> list[str]:
    """Leave out labels of recordings without a file if there are files; return the recordings with one."""
    if not on_disk.files:
        return []
    found = [name for name in recordings if name in on_disk.files]
    missing = [name for name in recordings if name not in on_disk.files]
    if not found:
        raise UserError(
            f"no recording of the labels is in {on_disk.folder}: labels are of {first_few(missing)}; "
            f"the folder has {first_few(sorted(on_disk.files))}"
        )
    if missing:
        warn(f"{counted(len(missing), 'recording')} not in {on_disk.folder}: {first_few(missing)}")
    is_missing = ~selection.labels["recording_id"].isin(found)
    selection.leave_out(is_missing, f"of recordings that are not in {on_disk.folder}")
    return found


def _cut_at_end(selection: Selection, sounds: dict[str, Sound]) -> list[str]:
    """Cut labels off at the end of their recording, and say how many."""
    labels = selection.labels
    end_s = labels["recording_id"].map({name: one.length_s for name, one in sounds.items()}).astype(float)
    excess_s = labels["t_max"] - end_s
    is_wrong = (labels["t_min"] >= end_s) | (excess_s > LONGEST_WINDOW_S)
    refuse_rows(
        (
            row["place"],
            f"{row['t_min']:g}–{row['t_max']:g} s is beyond the end of recording {row['recording_id']} at "
            f"{sounds[row['recording_id']].length_s:g} s; times must be seconds from its start",
        )
        for _, row in labels[is_wrong].iterrows()
    )
    is_cut = excess_s > 0
    selection.labels = labels.assign(t_max=labels["t_max"].mask(is_cut, end_s))
    n_cut = int(is_cut.sum())
    return [f"{counted(n_cut, 'label')} cut off at the end of their recording"] if n_cut else []


def _fill_bands(
    selection: Selection, sounds: dict[str, Sound], band: tuple[float, float] | None
) -> list[str]:
    """Give labels without a band the user's, or all frequencies of their recording, and say how many."""
    labels = selection.labels
    is_bare = labels["f_min"].isna()
    if not is_bare.any():
        return []
    low, high = band or (0.0, None)
    f_max = high or labels["recording_id"].map({name: one.nyquist_hz for name, one in sounds.items()})
    filled = labels.assign(f_min=labels["f_min"].fillna(low), f_max=labels["f_max"].fillna(f_max))
    n_bare = int(is_bare.sum())
    if filled["f_max"].isna().any():
        raise UserError(
            f"{filled.loc[filled['f_max'].isna(), 'place'].iloc[0]}: label without a frequency band "
            f"({n_bare} in total); --band LOW HIGH gives them one in Hz, or else half the sample rate of the "
            "recordings is taken, which must be in train/"
        )
    selection.labels = filled
    text = f"{low:g}–{high:g} Hz" if high else "0 Hz to half the sample rate"
    return [f"{counted(n_bare, 'label')} without a frequency band: {text}"]


def _leave_out_repetitions(selection: Selection, before: pd.DataFrame) -> None:
    """Leave out labels that are written already, and those of one box with both verdicts."""
    rows = pd.concat([before, selection.labels[before.columns]])
    selection.leave_out(
        rows.duplicated()[len(before) :].set_axis(selection.labels.index),
        "repeated: the same box, species and verdict",
    )
    rows = pd.concat([before, selection.labels[before.columns]])
    selection.leave_out(
        rows.duplicated(ANNOTATION_COLUMNS, keep=False)[len(before) :].set_axis(selection.labels.index),
        "contradictory: the same box is both present and absent",
    )


def _leave_out_other_species(selection: Selection, before: pd.DataFrame, folder: Path) -> list[str]:
    """Leave out species that the pipeline would not know, and return the others in class order."""
    if (folder / "species.csv").is_file():
        species = read_species(folder / "species.csv")
        reason = "of species that species.csv lacks"
    else:
        rows = pd.concat([before, selection.labels[before.columns]])
        species = sorted(set(rows.loc[rows["label_type"] == "tp", "species_id"]))
        reason = "absent, of species that are nowhere present"
    is_other = ~selection.labels["species_id"].isin(species)
    names = sorted(set(selection.labels.loc[is_other, "species_id"]))
    selection.leave_out(is_other, f"{reason}: {first_few(names)}")
    return species


def _absences(
    species: Sequence[str],
    named: pd.DataFrame,
    confirmed: pd.DataFrame,
    sounds: dict[str, Sound],
    folder: Path,
) -> pd.DataFrame:
    """Return FP rows over whole recordings for the species that are not named in them.

    A row rejects the species in every window of its recording, in time and in frequency. There is one for
    each song type, since a row of one type does not reject the classes of others.
    """
    if not sounds:
        raise UserError(f"--complete: needs the lengths of the recordings, but {folder / 'train'} has none")
    are_named = set(zip(named["recording_id"], named["species_id"], strict=True))
    types_of = {name: sorted(set(types)) for name, types in confirmed.groupby("species_id")["songtype_id"]}
    rows = [
        (recording_id, name, songtype, 0.0, 0.0, sound.length_s, sound.nyquist_hz, "fp")
        for recording_id, sound in sounds.items()
        for name in species
        if (recording_id, name) not in are_named
        for songtype in types_of.get(name, [DEFAULT_SONGTYPE])
    ]
    return pd.DataFrame(rows, columns=[*ANNOTATION_COLUMNS, "label_type"])


def _write(rows: pd.DataFrame, folder: Path, left_out: Counter[str]) -> None:
    """Write both tables, or neither if they are not as the pipeline reads them."""
    if not (rows["label_type"] == "tp").any():
        reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise UserError(
            "nothing is written, since no label is left that says present"
            + (f"; labels left out: {reasons}" if reasons else "")
            + (
                "; `--verdict present` takes those of tables without verdicts"
                if left_out[OPEN_REASON]
                else ""
            )
        )
    tp, fp = table_paths(folder).values()
    with written_whole(tp) as new_tp, written_whole(fp) as new_fp:
        for kind, path in (("tp", new_tp), ("fp", new_fp)):
            rows.loc[rows["label_type"] == kind, ANNOTATION_COLUMNS].to_csv(path, index=False)
            read_annotations(path, kind)
