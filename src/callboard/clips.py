"""Where to cut: annotations in seconds to half-open spans of frames."""

import math
from pathlib import Path

import pandas as pd

from callboard.errors import UserError

DTYPES = {
    "clip_id": "int64",
    "recording_id": "str",
    "label_type": "str",
    "species_id": "str",
    "songtype_id": "str",
    "start_frame": "int64",
    "stop_frame": "int64",
    "t_min": "float64",
    "t_max": "float64",
    "f_min": "float64",
    "f_max": "float64",
}
"""Columns of a table of clips: times in seconds, frequencies in Hz, spans in frames of the recording."""

BLANK_NUMBERS = {name: [""] for name, dtype in DTYPES.items() if dtype == "float64"}

END_TOLERANCE_FRAMES = 1e-6
"""Keeps a time on the frame boundary where it lies: 0.29 s at 100 frames/s is 28.999… in floating point."""


def frame_span(t_min: float, t_max: float, frames_per_s: float, n_frames: int) -> tuple[int, int]:
    """The half-open span of frames that a time span touches: at least one frame, inside the recording."""
    start = min(math.floor(t_min * frames_per_s + END_TOLERANCE_FRAMES), n_frames - 1)
    stop = min(math.ceil(t_max * frames_per_s - END_TOLERANCE_FRAMES), n_frames)
    return start, max(start + 1, stop)


def build_clips(annotations: pd.DataFrame, n_frames: dict[str, int], frames_per_s: float) -> pd.DataFrame:
    """One row per annotation whose recording is in `n_frames`, numbered in the order given.

    Args:
        annotations: As read_annotations gives them, tables concatenated.
        n_frames: Length of each recording that can be used.
        frames_per_s: Frames per second of recording.

    Raises:
        UserError: an annotation ends after its recording, or no tp annotation has a recording.
    """
    kept = annotations[annotations["recording_id"].isin(list(n_frames))].reset_index(drop=True)
    _refuse_without_tp(kept)
    lengths = kept["recording_id"].map(n_frames)
    _refuse_beyond_end(kept, lengths / frames_per_s)
    spans = [
        frame_span(t_min, t_max, frames_per_s, length)
        for t_min, t_max, length in zip(kept["t_min"], kept["t_max"], lengths, strict=True)
    ]
    clips = kept.assign(
        clip_id=range(len(kept)),
        start_frame=[start for start, _ in spans],
        stop_frame=[stop for _, stop in spans],
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
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
        clips.to_csv(partial, index=False)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_clips(path: Path) -> pd.DataFrame:
    """A table of clips, ids as text; `start_frame` and `stop_frame` are a half-open span in the recording.

    Raises:
        UserError: no such table, or columns missing.
    """
    try:
        clips = pd.read_csv(path, dtype=DTYPES, keep_default_na=False, na_values=BLANK_NUMBERS)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run crop first") from None
    if missing := [name for name in DTYPES if name not in clips]:
        raise UserError(
            f"{path.name}: missing column(s) {', '.join(missing)}; found {', '.join(clips.columns)}"
        )
    return clips


def _refuse_beyond_end(annotations: pd.DataFrame, ends_s: pd.Series) -> None:
    beyond = annotations[annotations["t_max"] > ends_s]
    if beyond.empty:
        return
    first = beyond.iloc[0]
    raise UserError(
        f"{len(beyond)} annotation(s) end after their recording, first: {first['label_type']} of species "
        f"{first['species_id']} in recording {first['recording_id']}: t_max {first['t_max']} s, "
        f"the recording ends at {ends_s[beyond.index[0]]:.3f} s"
    )


def _refuse_without_tp(annotations: pd.DataFrame) -> None:
    if not (annotations["label_type"] == "tp").any():
        raise UserError("no confirmed (tp) annotation lies in a usable training recording")
