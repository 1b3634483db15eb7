"""A folder of recordings and tables as settings depend on it: lengths, rates, boxes, sites."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from callboard.core.errors import UserError
from callboard.data.annotations import ANNOTATION_COLUMNS
from callboard.data.recording_folders import RECORDING_SUFFIXES, FolderOfRecordings
from callboard.data.source_tables import SourceTables
from callboard.data.sources import SOURCES
from callboard.params.data import DataParams, DemoParams
from callboard.params.features import AudioParams

SITE = re.compile(r"(?P<site>.+)_\d{8}_\d{6}(\D.*)?")
"""Form of the ids of most recorders: site, date and time."""

LOW_HZ = 50.0
"""Lower edge of a band from which on it counts as one, if it also reaches up to half of the sample rate."""

NEARLY = 0.95
"""Share of a recording, or of half of its sample rate, that counts as all of it."""


@dataclass(frozen=True)
class Survey:
    """Usable recordings and annotations of a folder."""

    tables: SourceTables
    root: str
    """The folder as `data.root` has it."""

    @cached_property
    def recordings(self) -> pd.DataFrame:
        """Usable recordings by id, with length_s and nyquist_hz."""
        table = self.tables.recordings.set_index("recording_id")
        rate = table["sample_rate"]
        return table.assign(length_s=table["n_samples"] / rate, nyquist_hz=rate / 2)

    @cached_property
    def boxes(self) -> pd.DataFrame:
        """All annotations, with length_s, is_whole (over a whole recording) and has_band."""
        boxes = pd.concat([self.tables.train_tp, self.tables.train_fp], ignore_index=True)
        of_box = self.recordings.loc[boxes["recording_id"]].set_axis(boxes.index)
        length_s = boxes["t_max"] - boxes["t_min"]
        return boxes.assign(
            length_s=length_s,
            is_whole=length_s > NEARLY * of_box["length_s"],
            has_band=(boxes["f_max"] < NEARLY * of_box["nyquist_hz"]) | (boxes["f_min"] > LOW_HZ),
        )

    @property
    def partial_boxes(self) -> pd.DataFrame:
        """Boxes that are a part of their recording, or all if none is."""
        is_whole = self.boxes["is_whole"]
        return self.boxes if is_whole.all() else self.boxes[~is_whole]

    @cached_property
    def sites(self) -> pd.Series:
        """Site of each annotated recording by id, if all ids have the form of `SITE`; otherwise empty."""
        ids = sorted(set(self.boxes["recording_id"]))
        found = [SITE.fullmatch(recording_id) for recording_id in ids]
        if not all(found):
            return pd.Series(dtype=str)
        return pd.Series([match["site"] for match in found if match], index=ids, dtype=str)

    @cached_property
    def tp_contents(self) -> pd.Series:
        """Content of each TP annotation's recording: copies under several ids are one."""
        return self.tables.train_tp["recording_id"].map(self.recordings["digest"])

    @property
    def n_tp_recordings(self) -> int:
        """Number of different recordings with calls."""
        return int(self.tp_contents.nunique())


def survey_folder(folder: Path, root: str) -> Survey:
    """Read the tables and the headers of the recordings of a folder, as `prepare` does.

    Recordings that cannot be used are left out and listed.

    Args:
        folder: The folder.
        root: The folder as `data.root` will have it.

    Raises:
        UserError: the folder, its tables or its recordings are missing, or a table is wrong.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: folder does not exist; give the folder of train/, test/ and train_tp.csv")
    for name in ("train_tp.csv", "train_fp.csv"):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder}: no {name}; `callboard labels import TABLES --to {folder}` writes both tables "
                f"from labels of other programs, or write it with the columns {','.join(ANNOTATION_COLUMNS)}"
            )
    train = FolderOfRecordings.list(folder / "train", "train")
    if not train.files:
        raise UserError(
            f"{train.path}: no recordings{train.left_out and f' ({train.left_out})'}; put those that the "
            f"tables name there, as {', '.join(RECORDING_SUFFIXES[:4])} …"
        )
    data = DataParams(source="own", root=root, on_bad_recording="skip", demo=DemoParams())
    tables = SOURCES[data.source](data, AudioParams(on_other_rate="resample"), folder)
    survey = Survey(tables, root)
    if survey.n_tp_recordings < 2:
        raise UserError(f"{folder}: calls are in one recording only; cross-validation needs at least two")
    return survey
