"""The form that labels of every format are read into, and the checks that all formats share."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pandas as pd

from callboard.core.csv_rows import refuse_rows, row_name, utf8_text
from callboard.core.errors import UserError

LABEL_COLUMNS = ["recording", "species", "songtype", "t_min", "t_max", "f_min", "f_max", "verdict"]
"""Columns of labels: the recording's name as in the file, times in seconds from the recording's start,
frequencies in Hz (both NaN if there is no band), and one of LABEL_VERDICTS. The index names file and row."""

LABEL_NUMBERS = ["t_min", "t_max", "f_min", "f_max"]

LABEL_VERDICTS = ("present", "absent", "open")
"""Whether the species calls there; open: nobody has said, or the reviewer was unsure."""

WORDS_OF_VERDICT = {
    "present": ("present", "1", "true", "yes", "tp", "positive", "correct", "confirmed"),
    "absent": ("absent", "not present", "0", "false", "no", "fp", "negative", "incorrect", "rejected"),
    "open": ("open", "", "---", "(not validated)", "unsure", "uncertain", "null", "nan"),
}
"""Words that programs write for each verdict, in lower case."""

DEFAULT_SONGTYPE = "1"

AUDIO_SUFFIX = re.compile(r"\.(wav|flac|mp3|ogg|opus|m4a|aiff?|wma|w4v)$", re.IGNORECASE)

TABLE_SUFFIX = re.compile(
    r"(\.callboard|\.BirdNET|\.HawkEars|\.Table\.\d+|_scores|_HawkEars)?"
    r"(\.selections?|\.selection\.table|\.results|\.labels)?\.(txt|csv|tsv)$",
    re.IGNORECASE,
)
"""End of the name of a table of one recording, after the recording's name."""


class ReadOptions(NamedTuple):
    """Choices of the user that reading depends on."""

    column: str | None = None
    """Column that names the species; None: the usual one of the format."""
    verdict: str | None = None
    """Verdict of all labels of tables that have none; None: present, or open if the labels have scores."""
    known: Collection[str] = ()
    """Ids of the recordings on disk; empty if they are not there."""


@dataclass(frozen=True)
class LabelTable:
    """Labels of one file, with what the file has besides."""

    labels: pd.DataFrame
    """LABEL_COLUMNS."""
    recordings: list[str]
    """Names of all recordings that the file is about, also of those without a label."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Number of rows that are not labels, by reason."""


def first_line(path: Path) -> str:
    """Read the first line of a file.

    Raises:
        UserError: It does not exist, cannot be read, or is not UTF-8 text.
    """
    return utf8_text(path).partition("\n")[0]


def checked_labels(path: Path, cells: pd.DataFrame) -> pd.DataFrame:
    """Convert the cells of a file to labels.

    Args:
        path: The file, for messages.
        cells: Text or numbers, indexed by line: recording, species, t_min, t_max, verdict, and f_min, f_max
            and songtype if there are any. Text may have blanks around it.

    Raises:
        UserError: A recording or species is blank, a number is not finite or negative, an end is not after
            its start, a band has one edge only, or a verdict is not in WORDS_OF_VERDICT.
    """
    text = cells.astype("str").fillna("").apply(lambda column: column.str.strip())
    for name, default in (("f_min", ""), ("f_max", ""), ("songtype", DEFAULT_SONGTYPE)):
        text[name] = text.get(name, default)
    text["songtype"] = text["songtype"].replace("", DEFAULT_SONGTYPE)
    numbers = {
        name: number_column(path, text[name], is_blank_allowed=name.startswith("f")) for name in LABEL_NUMBERS
    }
    words = {word: verdict for verdict, known in WORDS_OF_VERDICT.items() for word in known}
    labels: pd.DataFrame = text.assign(verdict=text["verdict"].str.lower().map(words), **numbers)
    rules = [
        *((text[name] == "", f"{name} is empty") for name in ("recording", "species")),
        (labels["verdict"].isna(), "verdict {verdict!r} is unknown; use one of present, absent, open"),
        *((labels[name] < 0, f"{name} {{{name}}} is negative") for name in LABEL_NUMBERS),
        (labels["t_max"] <= labels["t_min"], "end {t_max} s is not after start {t_min} s"),
        (labels["f_max"] <= labels["f_min"], "band ends at {f_max} Hz, not above its start at {f_min} Hz"),
        (labels["f_min"].isna() != labels["f_max"].isna(), "band {f_min}–{f_max} Hz has only one edge"),
    ]
    refuse_rows(
        (row_name(path.name, line), message.format(**text.loc[line]))
        for is_broken, message in rules
        for line in labels.index[is_broken]
    )
    return labels[LABEL_COLUMNS].set_axis([row_name(path.name, line) for line in labels.index])


def number_column(path: Path, column: pd.Series, *, is_blank_allowed: bool = False) -> pd.Series:
    """Convert text to float, blanks to NaN if they are allowed.

    Raises:
        UserError: A cell is not a finite number; names file and row.
    """
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    is_broken = ~np.isfinite(numbers)
    if is_blank_allowed:
        is_broken &= column.str.strip() != ""
    refuse_rows(
        (row_name(path.name, line), f"{column.name} {column[line]!r} is not a finite number")
        for line in column.index[is_broken]
    )
    return numbers


def verdict_without_column(options: ReadOptions, has_scores: bool) -> str:
    """Return the verdict of labels in a table without verdicts: open if they have scores, else present."""
    return options.verdict or ("open" if has_scores else "present")


def only_column(path: Path, table: pd.DataFrame, usual: Sequence[str], role: str) -> str:
    """Return the one column of a table that is in `usual`, whatever its case.

    Args:
        path: Its file, for messages.
        table: The table.
        usual: Names in lower case.
        role: What the column gives, for messages.

    Raises:
        UserError: There is no such column, or more than one.
    """
    header = [str(name) for name in table]
    found = [name for name in header if name.strip().lower() in usual]
    if len(found) == 1:
        return found[0]
    count = f"{', '.join(found)} could all be it" if found else f"none of {', '.join(usual)} is there"
    choice = "--column NAME says which; " if role == "the species" else ""
    raise UserError(
        f"{path.name}: which column gives {role}? {count}; {choice}columns are {', '.join(header)}"
    )


def species_column(path: Path, table: pd.DataFrame, options: ReadOptions, usual: Sequence[str]) -> str:
    """Return the column that names the species: that of the options, or the one in `usual`.

    Raises:
        UserError: There is no such column, or more than one.
    """
    if options.column is None:
        return only_column(path, table, usual, "the species")
    if options.column not in table:
        raise UserError(
            f"{path.name}: no column {options.column!r}; columns are {', '.join(map(str, table))}"
        )
    return options.column


def recording_of_table(path: Path) -> str:
    """Return the recording that a table is about by its name: rec for rec.Table.1.selections.txt."""
    return TABLE_SUFFIX.sub("", path.name)


def recording_name(text: str) -> str:
    """Return the recording_id of a name or path, also one of Windows: rec for site/rec.WAV."""
    return AUDIO_SUFFIX.sub("", PurePosixPath(text.replace("\\", "/")).name)
