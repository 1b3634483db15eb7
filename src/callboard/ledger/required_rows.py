"""Whether a submission has the rows and columns that its competition wants."""

import csv
import json
from pathlib import Path

from callboard.errors import UserError
from callboard.finished import cached_file

SAMPLE = "sample_submission.csv"
SKIPPED = "skipped.csv"


def refuse_incomplete(submission: Path, data_md5: str, name: str) -> None:
    """Look at a submission before it costs one of a day's few.

    Args:
        submission: The file.
        data_md5: Of data/source behind it, as dvc.lock tells it.
        name: What to call it in errors.

    Raises:
        UserError: a recording or a column is missing or too many, or data/source is not in DVC's cache.
    """
    columns, wanted = _header_and_ids(_of_source(data_md5, SAMPLE))
    with _of_source(data_md5, SKIPPED).open(encoding="utf-8", newline="") as file:
        wanted |= {row["recording_id"] for row in csv.DictReader(file) if row["subset"] == "test"}
    found_columns, found = _header_and_ids(submission)
    if found_columns != columns:
        raise UserError(f"{name}: columns {', '.join(found_columns)}; {SAMPLE} has {', '.join(columns)}")
    for ids, what in ((wanted - found, "without"), (found - wanted, "with too many:")):
        if ids:
            raise UserError(
                f"{name}: {what} {len(ids)} of {len(wanted)} test recordings, first {min(ids)}; Kaggle would "
                "refuse it. Recordings that were skipped are told in data/source/skipped.csv"
            )


def refuse_no_submission(path: Path) -> None:
    """A file that is no submission has an md5 too, which no run will ever have.

    Raises:
        UserError: its first column is not `recording_id`.
    """
    first = (
        path.read_bytes().partition(b"\n")[0].removeprefix(b"\xef\xbb\xbf").partition(b",")[0].strip(b'"\r')
    )
    if first != b"recording_id":
        raise UserError(
            f"{path.name}: no submission, the first column is {first[:40].decode('utf-8', 'replace')!r}, "
            "must be recording_id"
        )


def _header_and_ids(path: Path) -> tuple[list[str], set[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        return header, {row[0] for row in rows if row}


def _of_source(data_md5: str, name: str) -> Path:
    """A file of data/source in DVC's cache, by the list of its files that lies there too."""
    what = "data/source"
    listed = json.loads(cached_file(data_md5, what).read_text(encoding="utf-8"))
    md5 = next((entry["md5"] for entry in listed if entry["relpath"] == name), "")
    return cached_file(md5, f"{what}/{name}")
