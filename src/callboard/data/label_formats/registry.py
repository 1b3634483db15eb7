"""The formats of labels by name, in the order in which they are recognised."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from callboard.core.csv_rows import csv_rows
from callboard.core.errors import UserError
from callboard.data.label_formats import arbimon, audacity, birdnet, hawkears, plain_csv, raven
from callboard.data.label_formats.form import LabelTable, ReadOptions, first_line


class LabelFormat(NamedTuple):
    """A format that labels can be read from."""

    recognises: Callable[[str], bool]
    """Whether a first line is of this format."""
    read: Callable[[Path, ReadOptions], LabelTable]


def _by_header(is_known: Callable[[set[str]], bool]) -> Callable[[str], bool]:
    def recognises(line: str) -> bool:
        row = next(csv_rows(line, delimiter="\t" if "\t" in line else ","), None)
        return row is not None and is_known(set(row.cells))

    return recognises


LABEL_FORMATS = {
    "arbimon": LabelFormat(_by_header(arbimon.is_arbimon), arbimon.read_arbimon),
    "hawkears": LabelFormat(_by_header(hawkears.is_hawkears), hawkears.read_hawkears),
    "birdnet": LabelFormat(_by_header(birdnet.is_birdnet), birdnet.read_birdnet),
    "raven": LabelFormat(_by_header(raven.is_raven), raven.read_raven),
    "audacity": LabelFormat(audacity.is_audacity, audacity.read_audacity),
    "csv": LabelFormat(_by_header(plain_csv.is_plain_csv), plain_csv.read_plain_csv),
}


def recognised_format(path: Path) -> str:
    """Return the name of the format of a file, or of a folder of segments.

    Raises:
        UserError: The file cannot be read, is empty, or is of no known format.
    """
    if path.is_dir():
        return "birdnet"
    line = first_line(path)
    if not line.strip():
        raise UserError(f"{path}: is empty; --from audacity reads it as a recording without any label")
    for name, one in LABEL_FORMATS.items():
        if one.recognises(line):
            return name
    raise UserError(
        f"{path}: its format is not recognised, it begins with {line[:80]!r}; "
        f"--from {'|'.join(LABEL_FORMATS)} says what it is"
    )
