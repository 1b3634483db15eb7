"""recordings.csv: the usable recordings that prepare found."""

from pathlib import Path
from typing import NamedTuple

from callboard.data.annotations import read_table

TEST_SETS = ("test", "external")
"""Sets whose recordings are in no fold; training can use them only with pseudo-labels."""

SUBSETS = ("train", *TEST_SETS)


class Recording(NamedTuple):
    """A row of recordings.csv."""

    recording_id: str
    subset: str
    """One of SUBSETS."""
    path: Path
    n_samples: int
    sample_rate: int
    """Hz, as in the file's header."""
    n_bytes: int
    """Size of the file when prepare looked at it."""


def read_recordings(source: Path) -> list[Recording]:
    """Read all rows of `recordings.csv` in `source`; relative paths are relative to `source`."""
    table = read_table(source / "recordings.csv", list(Recording._fields))
    return [
        Recording(
            recording_id=row["recording_id"],
            subset=row["subset"],
            path=source / row["path"],
            n_samples=int(row["n_samples"]),
            sample_rate=int(row["sample_rate"]),
            n_bytes=int(row["n_bytes"]),
        )
        for row in table.to_dict("records")
    ]
