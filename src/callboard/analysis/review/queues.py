"""Queues of a review: labels that the networks doubt, windows of predictions, or a list of a person's own."""

from collections.abc import Sequence
from pathlib import Path

from callboard.analysis.review.list_queue import LIST_COLUMNS, list_queue
from callboard.analysis.review.prediction_queue import prediction_queue
from callboard.analysis.review.session import ReviewQueue
from callboard.analysis.review.suspect_queue import suspect_queue
from callboard.core.errors import UserError
from callboard.data.annotations import read_table
from callboard.data.corrections import CORRECTION_COLUMNS


def open_queue(
    table: Path, recordings: Path | None = None, species: Sequence[str] = (), count: int | None = None
) -> ReviewQueue:
    """Read the items to judge.

    Args:
        table: A folder of predictions, a table of suspects, or a list of windows.
        recordings: Folder of the recordings; None for where they were when they were scored.
        species: Species to judge; empty for all.
        count: Most items without a verdict; None for all of a table, and for WINDOWS_PER_SPECIES windows of
            predictions for each species.

    Raises:
        UserError: The table does not exist, has other columns, or has nothing to judge; a recording is not
            found; or its rows do not fit the annotations.
    """
    if table.is_dir():
        return prediction_queue(table, recordings, species, count)
    if not table.exists():
        raise UserError(
            f"{table}: does not exist; `callboard suspects` writes a table and `callboard predict` a folder "
            "to review"
        )
    header = read_table(table, [], others=True).columns
    if {*CORRECTION_COLUMNS} <= {*header}:
        if recordings:
            raise UserError(
                f"--recordings {recordings}: must be left out, as suspects of {table.name} are in the "
                "workspace's training recordings"
            )
        return suspect_queue(table, species, count)
    if {*LIST_COLUMNS} <= {*header}:
        if recordings is None:
            raise UserError(f"{table}: a list of windows needs --recordings, the folder of its recordings")
        return list_queue(table, recordings, species, count)
    raise UserError(
        f"{table}: must have the columns of `callboard suspects` ({', '.join(CORRECTION_COLUMNS)}) or "
        f"{', '.join(LIST_COLUMNS)}; found {', '.join(header) or 'none'}"
    )
