"""A folder of recordings and tables as settings depend on it: lengths, rates, boxes, sites."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from callboard.core.errors import UserError
from callboard.data.annotations import ANNOTATION_COLUMNS
from callboard.data.groups import (
    METADATA,
    NO_METADATA,
    RECORDER_PATTERN,
    assign_groups,
    join_copies,
    read_metadata,
)
from callboard.data.recording_files import read_header
from callboard.data.recording_folders import RECORDING_SUFFIXES, FolderOfRecordings
from callboard.data.source_tables import SourceTables
from callboard.data.sources import SOURCES
from callboard.params.data import DataParams, DemoParams, SplitParams
from callboard.params.features import AudioParams

SITE_COLUMN = "site"

LOW_HZ = 50.0
"""Hz: a box from below this up to half of the sample rate counts as one without a band."""

NEARLY = 0.95
"""Least share of a recording, or of half of its sample rate, that counts as the whole."""


@dataclass(frozen=True)
class Survey:
    """Usable recordings and annotations of a folder."""

    tables: SourceTables
    root: str
    """The folder as `data.root` has it."""
    metadata: pd.DataFrame
    """The user's table of recordings, see `read_metadata`."""
    n_several_channels: int = 0
    """Number of recordings that can be used only with `audio.channel`."""

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
        """Boxes over a part of their recording; if there are none, all boxes."""
        is_whole = self.boxes["is_whole"]
        return self.boxes if is_whole.all() else self.boxes[~is_whole]

    @cached_property
    def site_group(self) -> str:
        """Value of `split.group` that keeps the recordings of a site together; empty if sites are unknown."""
        return next((group for group in (SITE_COLUMN, RECORDER_PATTERN) if not self._sites(group).empty), "")

    @cached_property
    def sites(self) -> pd.Series:
        """Site of each annotated recording by id, joined by copies; empty if sites are unknown."""
        return self._sites(self.site_group) if self.site_group else pd.Series(dtype=str)

    def _sites(self, group: str) -> pd.Series:
        """Return the sites, none if they are unknown.

        Raises:
            UserError: the table has sites, but none for some recording, or two that are spelled alike.
        """
        split, ids = SplitParams(group=group), self.boxes["recording_id"]
        try:
            found = assign_groups(ids, split, self.metadata)
        except UserError:
            if group in self.metadata and self.metadata["recording_id"].isin(ids).any():
                raise
            return pd.Series(dtype=str)
        digests = self.recordings["digest"]
        return join_copies(found, dict(zip(digests.index.astype(str), digests.astype(str), strict=True)))

    @cached_property
    def tp_contents(self) -> pd.Series:
        """Digest of each TP annotation's recording: copies under several ids have one."""
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
    path = folder / METADATA
    metadata = read_metadata(path) if path.is_file() else NO_METADATA
    data = DataParams(source="own", root=root, on_bad_recording="skip", demo=DemoParams())
    tables = SOURCES[data.source](data, AudioParams(on_other_rate="resample", channel="mean"), folder)
    survey = Survey(tables, root, metadata, _n_several_channels(tables, folder))
    if survey.n_tp_recordings < 2:
        raise UserError(f"{folder}: calls are in one recording only; cross-validation needs at least two")
    return survey


def _n_several_channels(tables: SourceTables, folder: Path) -> int:
    """Return the number of usable recordings that have more than one channel."""
    mono = AudioParams(on_other_rate="resample", channel=None)
    recordings = tables.recordings[["recording_id", "subset", "file"]].itertuples(index=False)
    return sum(
        bool(read_header(name, subset, folder / subset / file, mono).reason)
        for name, subset, file in recordings
    )
