"""recordings.csv: the usable recordings that prepare found, known by content and not by place."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from callboard.core.csv_rows import row_name
from callboard.core.files import path_inside
from callboard.core.reading import reading
from callboard.data.annotations import read_table

RECORDING_COLUMNS = ["recording_id", "subset", "file", "n_samples", "sample_rate", "digest"]
"""Columns of recordings.csv: `file` is a path below the folder of the subset, `digest` that of its bytes."""


class Recording(NamedTuple):
    """A row of recordings.csv."""

    recording_id: str
    subset: str
    """One of recording_folders.SUBSETS."""
    path: Path
    n_samples: int
    sample_rate: int
    """Hz, as in the file's header."""
    digest: str
    """`content_digest` of the file when prepare looked at it."""


def read_recordings(source: Path, folders: Mapping[str, Path]) -> list[Recording]:
    """Read all rows of `recordings.csv` in `source`.

    Args:
        source: The folder that `prepare` wrote.
        folders: The folder of each set, see `recording_folders`.

    Raises:
        UserError: The file or a column is missing, or a row cannot be read.
    """
    path = source / "recordings.csv"
    table = read_table(path, RECORDING_COLUMNS)
    recordings = []
    for line, row in zip(table.index, table.to_dict("records"), strict=True):
        where = row_name(path.name, line)
        with reading(where, "what prepare writes", damaged="run prepare again"):
            recordings.append(
                Recording(
                    recording_id=row["recording_id"],
                    subset=row["subset"],
                    path=path_inside(folders[row["subset"]], row["file"], where),
                    n_samples=int(row["n_samples"]),
                    sample_rate=int(row["sample_rate"]),
                    digest=row["digest"],
                )
            )
    return recordings


def read_digests(path: Path) -> dict[str, str]:
    """Return the digest of each training recording in recordings.csv, by id."""
    table = read_table(path, ["recording_id", "subset", "digest"])
    train = table[table["subset"] == "train"]
    return dict(zip(train["recording_id"], train["digest"], strict=True))


def train_lengths_s(source: Path) -> dict[str, float]:
    """Return the length in seconds of every usable training recording, by id."""
    table = read_table(source / "recordings.csv", ["recording_id", "subset", "n_samples", "sample_rate"])
    train = table[table["subset"] == "train"]
    lengths_s = train["n_samples"].astype(int) / train["sample_rate"].astype(int)
    return dict(zip(train["recording_id"], lengths_s, strict=True))
