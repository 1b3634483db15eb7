"""Clips: annotations in seconds to half-open spans of frames, boxes in Hz to half-open spans of mel rows."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.data.annotations import read_table, typed

DTYPES = {
    "clip_id": "int64",
    "recording_id": "str",
    "label_type": "str",
    "species_id": "str",
    "songtype_id": "str",
    "start_frame": "int64",
    "stop_frame": "int64",
    "low_mel": "int64",
    "high_mel": "int64",
    "t_min": "float64",
    "t_max": "float64",
    "f_min": "float64",
    "f_max": "float64",
}
"""Columns of a table of clips: times in seconds, frequencies in Hz, half-open spans in frames of the
recording and in mel rows of the filterbank, row 0 lowest. The span of mel rows is empty for pseudo-labels,
which have no box, and for every annotation if frames are embeddings."""

PROVENANCE_DTYPES = {
    "round": "int64",
    "teacher": "str",
    "score": "float64",
    "votes": "int64",
    "target": "float64",
    "student": "str",
}
"""Additional columns of pseudo-labels: the student's round, the model that scored the recording, its
probability, how many models agreed, the student's target (1 = present, 0 = absent, between = soft), and the
folds that the student holds out, as `2` or `0-2`; blank if the label is for all students of the round."""

END_TOLERANCE_FRAMES = 1e-6
"""Tolerance for rounding errors: a time on a frame boundary stays there (0.29 s at 100 frames/s is 28.999… in
floating point), and no recording ends with a frame that is only a rounding error (0.29 s at 24 kHz is
6959.999… samples)."""


def frame_span(t_min: float, t_max: float, frames_per_s: float, n_frames: int) -> tuple[int, int]:
    """Return the half-open span of frames that a time span touches: at least one frame, inside the recording.

    Anything beyond the end is cut off: `prepare` has refused all but rounding errors.
    """
    start = min(math.floor(t_min * frames_per_s + END_TOLERANCE_FRAMES), n_frames - 1)
    stop = min(math.ceil(t_max * frames_per_s - END_TOLERANCE_FRAMES), n_frames)
    return start, max(start + 1, stop)


def mel_span(f_min: float, f_max: float, centres: NDArray[np.float64]) -> tuple[int, int]:
    """Return the half-open span of mel rows whose centre is in a band, or the row nearest the band's middle.

    Args:
        f_min: Hz, lower edge of the band.
        f_max: Hz, upper edge.
        centres: (mels,) Hz, ascending; empty, like the returned span, if frames have no frequency rows.
    """
    if not len(centres):
        return 0, 0
    low, high = np.searchsorted(centres, f_min), np.searchsorted(centres, f_max, side="right")
    if low == high:
        low = np.abs(centres - (f_min + f_max) / 2).argmin()
        high = low + 1
    return int(low), int(high)


def build_clips(
    annotations: pd.DataFrame,
    n_frames: dict[str, int],
    frames_per_s: float,
    mel_centres: NDArray[np.float64],
) -> pd.DataFrame:
    """Build one clip per annotation whose recording is in `n_frames`, numbered in the given order.

    Args:
        annotations: Tables from read_annotations, concatenated.
        n_frames: Length in frames of each usable recording.
        frames_per_s: Frames per second of recording.
        mel_centres: (mels,) Hz, centre of each row of the filterbank; empty if frames are embeddings.

    Raises:
        UserError: No usable recording has a tp annotation.
    """
    kept = annotations[annotations["recording_id"].isin(list(n_frames))].reset_index(drop=True)
    _refuse_without_tp(kept)
    lengths = kept["recording_id"].map(n_frames)
    spans = [
        frame_span(t_min, t_max, frames_per_s, length)
        for t_min, t_max, length in zip(kept["t_min"], kept["t_max"], lengths, strict=True)
    ]
    bands = [
        mel_span(f_min, f_max, mel_centres) for f_min, f_max in zip(kept["f_min"], kept["f_max"], strict=True)
    ]
    clips = kept.assign(
        clip_id=range(len(kept)),
        start_frame=[start for start, _ in spans],
        stop_frame=[stop for _, stop in spans],
        low_mel=[low for low, _ in bands],
        high_mel=[high for _, high in bands],
    )
    return clips[list(DTYPES)].astype(DTYPES)


def drop_recordings(clips: pd.DataFrame, recording_ids: set[str]) -> pd.DataFrame:
    """Return the clips of all other recordings, renumbered.

    Raises:
        UserError: No tp annotation is left.
    """
    kept = clips[~clips["recording_id"].isin(recording_ids)]
    _refuse_without_tp(kept)
    return kept.assign(clip_id=range(len(kept)))


def write_clips(clips: pd.DataFrame, path: Path) -> None:
    """Write the table as CSV; if interrupted, no partial file remains."""
    with written_whole(path) as unfinished:
        clips.to_csv(unfinished, index=False)


def read_clips(path: Path) -> pd.DataFrame:
    """Read a table of clips, ids as text, with the provenance columns it has.

    Raises:
        UserError: The file or a column is missing, or a row cannot be read.
    """
    table = read_table(path, list(DTYPES), others=True, hint="run crop first")
    dtypes = DTYPES | {name: dtype for name, dtype in PROVENANCE_DTYPES.items() if name in table}
    return typed(table, dtypes, path)


def labels_for(pseudo: pd.DataFrame, student: str) -> pd.DataFrame:
    """Select the pseudo-labels that a student can learn from.

    Args:
        pseudo: Pseudo-labels of one round.
        student: The folds that it holds out, written as in column `student`.
    """
    return pseudo[students_of(pseudo).isin(["", student])]


def students_of(pseudo: pd.DataFrame) -> pd.Series:
    """Return column `student`, or blanks if the table lacks it because its labels are for all students."""
    return pseudo["student"] if "student" in pseudo else pd.Series("", index=pseudo.index)


def _refuse_without_tp(annotations: pd.DataFrame) -> None:
    if not (annotations["label_type"] == "tp").any():
        raise UserError("no confirmed (tp) annotation is in a usable training recording")
