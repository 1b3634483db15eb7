"""Exports of Arbimon's pattern matching: of one job, of all jobs (a mailed zip), and of a project's backup.

A recording of Arbimon lasts a minute, so several can have the name of one original file; numbers are unique.
"""

import re
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from callboard.core.csv_rows import refuse_missing, refuse_rows, row_name
from callboard.core.errors import UserError
from callboard.data.annotations import read_table
from callboard.data.label_formats.form import (
    LabelTable,
    ReadOptions,
    checked_labels,
    number_column,
    recording_name,
    species_column,
)

BOX = {"t_min": "x1", "t_max": "x2", "f_min": "y1", "f_max": "y2", "verdict": "validated"}
JOB_COLUMNS = {"recording", "hour", "minute", "species", "songtype", "url", *BOX.values()}
BACKUP_COLUMNS = {"recording_id", "species_id", "songtype_id", *BOX.values()}
BULK_COLUMNS = {"recording_id", *BOX.values()}

JOBS_TABLE = "_pattern_matching.csv"
"""Table of the mailed zip that has the species of each job."""
JOBS_COLUMNS = ["job_id", "scientific_name", "songtype"]

JOB_OF_NAME = re.compile(r"pm_.*_(\d+)\.csv")
NUMBER_OF_URL = re.compile(r"/(\d+)/?$")
START_OF_NAME = re.compile(r"\d{8}_(\d{2})(\d{2})\d{2}")
"""Hour and minute at which an original file starts, in its name."""
DAY_MINUTES = 24 * 60


def is_arbimon(header: set[str]) -> bool:
    """Return whether a header is that of one of the exports."""
    return header >= JOB_COLUMNS or header >= BULK_COLUMNS or set(JOBS_COLUMNS) <= header


def read_arbimon(path: Path, options: ReadOptions) -> LabelTable:
    """Read one table of an export.

    A table of the mailed zip needs JOBS_TABLE beside it, which itself has no labels.

    Raises:
        UserError: The table or a row is wrong, or JOBS_TABLE lacks the job.
    """
    table = read_table(path, [], others=True)
    header = set(table)
    if set(JOBS_COLUMNS) <= header:
        return LabelTable(checked_labels(path, pd.DataFrame(columns=["recording", "species", *BOX])), [])
    if missing := sorted(set(BOX.values()) - header):
        raise UserError(
            f"{path.name}: missing column(s) {', '.join(missing)}; found {', '.join(map(str, table))}"
        )
    cells = pd.DataFrame({name: table[column] for name, column in BOX.items()})
    if header >= JOB_COLUMNS:
        species, cells["songtype"] = "species", table["songtype"]
        cells = _with_recordings(path, cells, table, options.known)
    elif header >= BACKUP_COLUMNS:
        species, cells["songtype"] = "species_id", table["songtype_id"]
        cells["recording"] = table["recording_id"]
    else:
        refuse_missing(path.name, [str(name) for name in table], ["recording_id"])
        species = "scientific_name"
        table[species], cells["songtype"] = _job(path)
        cells["recording"] = table["recording_id"]
    cells["species"] = table[species_column(path, table, options, (species,))]
    labels = checked_labels(path, cells)
    return LabelTable(labels, sorted(set(labels["recording"])))


def _job(path: Path) -> tuple[str, str]:
    """Return species and song type of the job of a table of the mailed zip."""
    jobs = path.with_name(JOBS_TABLE)
    job = JOB_OF_NAME.fullmatch(path.name)
    if job is None:
        raise UserError(f"{path.name}: the name must be pm_<name>_<job>.csv, since it alone gives the job")
    table = read_table(jobs, JOBS_COLUMNS, hint=f"it gives the species of {path.name}; unpack the whole zip")
    rows = table[table["job_id"] == job[1]]
    if len(rows) != 1:
        raise UserError(f"{jobs}: {len(rows)} rows for job {job[1]} of {path.name}, expected one")
    return rows["scientific_name"].iloc[0], rows["songtype"].iloc[0]


def _with_recordings(
    path: Path, cells: pd.DataFrame, table: pd.DataFrame, known: Collection[str]
) -> pd.DataFrame:
    """Add the recording of each row of a job, and shift the times of rows whose original file is on disk.

    The recording is the number at the end of `url`, unless a file has the name of the original and none has
    the number. Rows of an original file start as many minutes into it as their minute is after its name's.
    """
    number = table["url"].str.extract(NUMBER_OF_URL.pattern, expand=False)
    refuse_rows(
        (row_name(path.name, line), f"url {table.at[line, 'url']!r} does not end in the recording's number")
        for line in table.index[number.isna()]
    )
    original = table["recording"].map(recording_name)
    is_original = original.isin(list(known)) & ~number.isin(list(known))
    start = table["recording"].str.extract(START_OF_NAME.pattern).astype(float)
    hour, minute = (number_column(path, table[name]) for name in ("hour", "minute"))
    minutes = (hour - start[0]) * 60 + minute - start[1]
    is_split = table.groupby("recording")["url"].transform("nunique") > 1
    refuse_rows(
        (
            row_name(path.name, line),
            f"recording {table.at[line, 'recording']!r} has no start time in its name",
        )
        for line in table.index[is_original & is_split & minutes.isna()]
    )
    shift_s = (minutes.fillna(0) % DAY_MINUTES * 60).where(is_original, 0)
    for name in ("t_min", "t_max"):
        cells[name] = number_column(path, cells[name]) + shift_s
    return cells.assign(recording=number.where(~is_original, original))
