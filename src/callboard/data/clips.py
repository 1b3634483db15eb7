"""Where to cut: annotations in seconds to half-open spans of frames, boxes in Hz to spans of mel rows."""

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
recording and in mel rows of the filterbank, row 0 lowest. A pseudo-label has no box: its rows are none. So
are those of every box where frames are embeddings."""

PROVENANCE_DTYPES = {
    "round": "int64",
    "teacher": "str",
    "score": "float64",
    "votes": "int64",
    "target": "float64",
    "student": "str",
}
"""Further columns of pseudo-labels: the student's round, the model that scored the recording, its
probability, how many models agreed, the student's target (1 = present, 0 = absent, between = soft), and the
folds that the student holds out, as `2` or `0-2`; blank where the label is for all students of the round."""

END_TOLERANCE_FRAMES = 1e-6
"""Keeps a time on the frame boundary where it lies: 0.29 s at 100 frames/s is 28.999… in floating point, and
ends no recording with a frame of a rounding error: 0.29 s at 24 kHz is 6959.999… samples."""


def frame_span(t_min: float, t_max: float, frames_per_s: float, n_frames: int) -> tuple[int, int]:
    """The half-open span of frames that a time span touches: at least one frame, inside the recording.

    What lies beyond the end is cut off: `prepare` has refused all but what rounding explains.
    """
    start = min(math.floor(t_min * frames_per_s + END_TOLERANCE_FRAMES), n_frames - 1)
    stop = min(math.ceil(t_max * frames_per_s - END_TOLERANCE_FRAMES), n_frames)
    return start, max(start + 1, stop)


def mel_span(f_min: float, f_max: float, centres: NDArray[np.float64]) -> tuple[int, int]:
    """The half-open span of mel rows whose centre lies in a band; if none does, the one nearest its middle.

    Args:
        f_min: Hz, lower edge of the band.
        f_max: Hz, upper edge.
        centres: (mels,) Hz, ascending; where frames have no rows of frequencies it is empty, as is the span.
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
    """One row per annotation whose recording is in `n_frames`, numbered in the order given.

    Args:
        annotations: As read_annotations gives them, tables concatenated.
        n_frames: Length of each recording that can be used.
        frames_per_s: Frames per second of recording.
        mel_centres: (mels,) Hz, centre of each row of the filterbank; empty where frames are embeddings.

    Raises:
        UserError: no tp annotation has a recording.
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
    """The clips of all other recordings, numbered anew.

    Raises:
        UserError: no tp annotation is left.
    """
    kept = clips[~clips["recording_id"].isin(recording_ids)]
    _refuse_without_tp(kept)
    return kept.assign(clip_id=range(len(kept)))


def write_clips(clips: pd.DataFrame, path: Path) -> None:
    """All of the table or none of it."""
    with written_whole(path) as unfinished:
        clips.to_csv(unfinished, index=False)


def read_clips(path: Path) -> pd.DataFrame:
    """A table of clips, ids as text.

    Raises:
        UserError: no such table, columns missing, or a row that cannot be read.
    """
    table = read_table(path, list(DTYPES), others=True, hint="run crop first")
    dtypes = DTYPES | {name: dtype for name, dtype in PROVENANCE_DTYPES.items() if name in table}
    return typed(table, dtypes, path)


def labels_for(pseudo: pd.DataFrame, student: str) -> pd.DataFrame:
    """The pseudo-labels that a student may learn from.

    Args:
        pseudo: Of one round.
        student: The folds that it holds out, as the table tells them.
    """
    return pseudo[students_of(pseudo).isin(["", student])]


def students_of(pseudo: pd.DataFrame) -> pd.Series:
    """Column `student`; blank in tables without it, whose labels are for all."""
    return pseudo["student"] if "student" in pseudo else pd.Series("", index=pseudo.index)


def _refuse_without_tp(annotations: pd.DataFrame) -> None:
    if not (annotations["label_type"] == "tp").any():
        raise UserError("no confirmed (tp) annotation lies in a usable training recording")
