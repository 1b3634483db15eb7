"""Export of the TP and FP tables of a folder to formats of other programs."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from callboard.core.files import path_inside, refuse_full_folder, replaced_folder
from callboard.data.annotations import read_annotations
from callboard.data.label_formats import audacity, plain_csv, raven
from callboard.data.label_formats.form import LABEL_COLUMNS
from callboard.data.label_import import table_paths
from callboard.data.label_recordings import LabelledRecordings

PER_RECORDING: dict[str, tuple[str, Callable[[pd.DataFrame, str, Path], None]]] = {
    "raven": ("callboard.selections.txt", raven.write_raven),
    "audacity": ("callboard.txt", audacity.write_audacity),
}
"""Formats with a file for each recording: the end of its name, and the writer."""

EXPORT_FORMATS = (*PER_RECORDING, "csv")


def export_labels(folder: Path, format_name: str, output: Path) -> tuple[int, int]:
    """Write the annotations of a folder, confirmed and rejected, and return the numbers of files and labels.

    Args:
        folder: Folder with `train_tp.csv` and `train_fp.csv`.
        format_name: One of EXPORT_FORMATS.
        output: Folder to write, which must be empty or not exist.

    Raises:
        UserError: A table is missing or wrong, `output` has files, or a name cannot be written in the format.
    """
    refuse_full_folder(output)
    tables = [read_annotations(path, kind) for kind, path in table_paths(folder).items()]
    labels = pd.concat(tables, ignore_index=True).rename(
        columns={"recording_id": "recording", "species_id": "species", "songtype_id": "songtype"}
    )
    labels["verdict"] = labels["label_type"].map({"tp": "present", "fp": "absent"})
    files = LabelledRecordings.list(folder).files
    with replaced_folder(output) as draft:
        if format_name not in PER_RECORDING:
            plain_csv.write_plain_csv(labels[LABEL_COLUMNS], draft / "labels.csv")
            return 1, len(labels)
        suffix, write = PER_RECORDING[format_name]
        for recording_id, rows in labels[LABEL_COLUMNS].groupby("recording"):
            name = files.get(str(recording_id), Path(str(recording_id))).name
            path = path_inside(draft, f"{recording_id}.{suffix}", f"recording {recording_id!r}")
            path.parent.mkdir(parents=True, exist_ok=True)
            write(rows.sort_values("t_min", kind="stable"), name, path)
    return labels["recording"].nunique(), len(labels)
