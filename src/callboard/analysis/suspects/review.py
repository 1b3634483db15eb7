"""A reviewed table of suspects to corrections.csv: whole or not at all."""

from pathlib import Path

import pandas as pd

from callboard.core.console import counted, summarize
from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.data.annotations import read_species
from callboard.data.corrections import (
    CORRECTIONS,
    VERDICTS,
    corrected,
    read_corrections,
    read_labels,
    read_placed,
    train_lengths_s,
)

SOURCE_FOLDER = Path("data/source")


def apply_review(path: Path) -> None:
    """Append the rows with a verdict to corrections.csv, once all of it would be accepted.

    Raises:
        UserError: the table has no verdict at all, or a row that corrections.csv may not have.
    """
    earlier = read_corrections(CORRECTIONS)
    reviewed, n_left = decided(path)
    if not (SOURCE_FOLDER / "species.csv").is_file():
        raise UserError(
            f"{SOURCE_FOLDER}: not there; `dvc repro prepare` makes it, `dvc checkout` restores it"
        )
    corrections = pd.concat([earlier, reviewed])
    species = read_species(SOURCE_FOLDER / "species.csv")
    corrected(read_labels(SOURCE_FOLDER), corrections, species, train_lengths_s(SOURCE_FOLDER))
    with written_whole(CORRECTIONS) as unfinished:
        corrections.to_csv(unfinished, index=False)
    verdicts = reviewed["verdict"].value_counts()
    counts = [f"{verdicts[name]} {name}" for name in VERDICTS if name in verdicts]
    summarize(
        "suspects",
        f"{counted(len(reviewed), 'row')} added to {CORRECTIONS} ({', '.join(counts)})",
        f"{n_left} without verdict left out",
        "data.corrections=true uses them",
    )


def decided(path: Path) -> tuple[pd.DataFrame, int]:
    """The rows with a verdict, as corrections.csv has them, and how many there are without.

    Raises:
        UserError: no such table, or no verdict in it.
    """
    table = read_placed(path).apply(lambda column: column.str.strip())
    has_verdict = table["verdict"] != ""
    if not has_verdict.any():
        raise UserError(
            f"{path}: no row has a verdict; write one of {', '.join(VERDICTS)} where you have listened"
        )
    return table[has_verdict], int((~has_verdict).sum())


def reviewed_boxes(table: pd.DataFrame, corrections: pd.DataFrame) -> "pd.Series[bool]":
    """Rows of a table of suspects that corrections.csv has a verdict on already."""
    ids, times = ["recording_id", "species_id"], ["t_min", "t_max"]
    numbers = corrections[times].apply(pd.to_numeric, errors="coerce").astype(float)
    reviewed = corrections[ids].assign(**numbers)
    pairs = table[ids + times].reset_index(names="row").merge(reviewed, on=ids, suffixes=("", "_reviewed"))
    touches = (pairs["t_min"] < pairs["t_max_reviewed"]) & (pairs["t_max"] > pairs["t_min_reviewed"])
    return pd.Series(table.index.isin(pairs.loc[touches, "row"]), table.index)
