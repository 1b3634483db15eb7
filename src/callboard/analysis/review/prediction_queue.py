"""Queue of windows of predictions, whose verdicts stay beside them."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from callboard.analysis.review.choosing import path_from_here, refuse_unknown_species
from callboard.analysis.review.sampling import sample_windows
from callboard.analysis.review.session import ReviewQueue
from callboard.analysis.review.verdict_files import ReviewItem, WindowVerdicts
from callboard.core.console import counted, warn
from callboard.core.errors import UserError
from callboard.core.files import path_inside
from callboard.data.verdicts import VERDICT_COLUMNS, VERDICT_TABLE, read_window_verdicts
from callboard.scoring.detections import DETECTION_COLUMNS, StoredPredictions

WINDOWS_PER_SPECIES = 25
"""Default number of windows to judge of each species: enough for a threshold even if some are unsure."""


def prediction_queue(
    folder: Path, recordings: Path | None, species: Sequence[str], count: int | None
) -> ReviewQueue:
    """Queue windows of a folder that `callboard predict` wrote; see `open_queue`."""
    predictions = StoredPredictions.open(folder)
    refuse_unknown_species(species, predictions.species, folder)
    table = folder / VERDICT_TABLE
    judged = read_window_verdicts(table) if table.exists() else _no_verdicts()
    scored = {} if recordings else predictions.paths()

    def place(name: str) -> Path:
        return path_inside(recordings, name, str(folder)) if recordings else scored.get(name, Path(name))

    most = count or _rest_of_round(judged, species or predictions.species)
    windows, gone = sample_windows(predictions, judged, most, species, lambda name: place(name).is_file())
    if gone:
        lost = f"{folder.name}: {counted(len(gone), 'recording')} not found, first {place(gone[0])}"
        if windows.empty:
            raise UserError(f"{lost}; --recordings names the folder where they are now")
        warn(f"{lost}; their windows are left out")
    if windows.empty:
        judged_before = f"; {counted(len(judged), 'verdict')} before" if len(judged) else ""
        of = f" of {', '.join(species)}" if species else ""
        raise UserError(f"{folder}: has no window{of} without a verdict{judged_before}")
    paths = {name: place(name) for name in windows["recording"].unique()}
    top_hz = predictions.band_hz[1]
    items = [
        ReviewItem(name, paths[name], one, start_s, end_s, top_hz=top_hz, score=score)
        for name, start_s, end_s, one, score in zip(
            *(windows[column].tolist() for column in DETECTION_COLUMNS), strict=True
        )
    ]
    return ReviewQueue(
        folder.name,
        items,
        WindowVerdicts(table, judged, items),
        f"The verdicts stay in {table.name} of this folder.",
        [
            shlex.join(
                ["callboard", "thresholds", predictions.reference, "--verdicts", path_from_here(folder)]
            )
        ],
    )


def _rest_of_round(judged: pd.DataFrame, species: Sequence[str]) -> int:
    """Return how many windows of WINDOWS_PER_SPECIES for each species an earlier review left."""
    whole = WINDOWS_PER_SPECIES * len(species)
    return whole - int(judged["species"].isin(species).sum()) % whole


def _no_verdicts() -> pd.DataFrame:
    numbers = {"start_s": float, "end_s": float, "score": float}
    return pd.DataFrame(columns=VERDICT_COLUMNS, dtype=str).astype(numbers)
