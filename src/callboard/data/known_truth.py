"""The user's table of the species in test recordings, and the truth that a submission is scored with."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from callboard.core.csv_rows import refuse_rows, row_name
from callboard.core.errors import nearest
from callboard.data.annotations import read_table
from callboard.data.score_tables import score_table

TEST_LABELS = "test_labels.csv"
"""Name of both tables: the user's in `data.root` and the truth in hidden/."""

USAGES = ("public", "private")
"""Parts of a test set that are scored apart: in the competition, during it and after it."""


def read_test_labels(path: Path, species: Sequence[str], test_ids: Sequence[str]) -> pd.DataFrame:
    """Read which species are in test recordings, as a score table with `usage`: 1 = present, 0 = absent.

    Recordings without a row have no species. Without a column `usage`, all are public.

    Args:
        path: CSV with recording_id, species_id and, if wanted, usage: a row for each species of a recording.
        species: In class order.
        test_ids: Ids of all test recordings, in the order of the truth.

    Raises:
        UserError: a column is missing, or rows are bad: an unknown recording or species, a repetition, a
            usage other than USAGES, or two of one recording.
    """
    table = read_table(path, ["recording_id", "species_id"], others=True)
    usage = table["usage"] if "usage" in table else pd.Series(USAGES[0], index=table.index)
    table = table[["recording_id", "species_id"]].assign(usage=usage)
    refuse_rows((row_name(path.name, line), why) for line, why in _problems(table, species, test_ids))
    is_present = np.zeros((len(test_ids), len(species)))
    row_of, column_of = (pd.Series(range(len(names)), index=list(names)) for names in (test_ids, species))
    is_present[table["recording_id"].map(row_of), table["species_id"].map(column_of)] = 1
    of_recording = dict(zip(table["recording_id"], table["usage"], strict=True))
    truth = score_table(test_ids, species, is_present)
    truth.insert(1, "usage", [of_recording.get(recording_id, USAGES[0]) for recording_id in test_ids])
    return truth


def _problems(
    table: pd.DataFrame, species: Sequence[str], test_ids: Sequence[str]
) -> Iterator[tuple[int, str]]:
    known_ids, known_species = set(test_ids), set(species)
    usages: dict[str, str] = {}
    seen: dict[tuple[str, str], int] = {}
    for line, recording_id, species_id, usage in table.itertuples():
        if recording_id not in known_ids:
            yield line, f"no test recording {recording_id!r}{nearest(recording_id, test_ids)}"
        if species_id not in known_species:
            yield line, f"unknown species {species_id!r}{nearest(species_id, species)}"
        if usage not in USAGES:
            yield line, f"usage must be one of {', '.join(USAGES)}, found {usage!r}"
        if (first := usages.setdefault(recording_id, usage)) != usage:
            yield line, f"usage {usage} of {recording_id}, which an earlier row has as {first}"
        if (earlier := seen.setdefault((recording_id, species_id), line)) != line:
            yield line, f"repeats row {earlier}"
