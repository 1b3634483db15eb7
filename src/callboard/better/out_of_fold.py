"""Score tables and confirmed annotations as DVC's cache has them; each is read once."""

from functools import cache
from pathlib import Path

import pandas as pd

from callboard.annotations import read_table
from callboard.better.comparison import Precisions, precisions
from callboard.submission import read_score_table


@cache
def precisions_in(scores: Path, clips: Path) -> Precisions:
    """Precision at each confirmed pair of a table of out-of-fold scores.

    Args:
        scores: Of a result, `scores/oof.csv`.
        clips: Of its data, `data/clips.csv`.

    Raises:
        UserError: a file cannot be read.
        MismatchError: a species is confirmed that has no scores.
    """
    return precisions(read_score_table(scores), confirmed_in(clips))


@cache
def confirmed_in(clips: Path) -> pd.DataFrame:
    """recording_id and species_id of the confirmed annotations of `data/clips.csv`.

    Raises:
        UserError: the file cannot be read.
    """
    table = read_table(clips, ["recording_id", "species_id", "label_type"])
    return table[table["label_type"] == "tp"]
