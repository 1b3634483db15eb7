"""Labels that the models doubt: annotations, and species without any, compared with out-of-fold scores.

Letters in shapes: R recordings, N windows of all recordings, S species.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.core.errors import UserError
from callboard.data.annotations import ANNOTATION_COLUMNS, LABEL_TYPES
from callboard.data.presence import species_presence
from callboard.scoring.window_scores import WindowScores, window_probabilities

GIVEN = {"tp": "present", "fp": "absent", "missing": ""}
"""Maps a kind to the annotation's statement; empty if an annotation may be missing."""

SUSPECT_COLUMNS = [
    "rank",
    "kind",
    *ANNOTATION_COLUMNS,
    "given",
    "probability",
    "score",
    "fold",
    "model",
    "verdict",
    "note",
]
"""Columns of a suspect: an annotation's box and the evidence against it; the last two are the reviewer's."""


@dataclass(frozen=True)
class WindowEvidence:
    """Scores of each window by a model that has not trained on the window's recording."""

    recording_ids: list[str]
    """R recording ids."""
    species: list[str]
    """S species ids."""
    fold: NDArray[np.int64]
    """(R,) fold of each recording."""
    window_bounds: NDArray[np.int64]
    """(R + 1,) index of each recording's first window; N at the end."""
    start_frame: NDArray[np.int32]
    """(N,) first frame of the window."""
    probability: NDArray[np.float64]
    """(N, S) probability of the species in the window."""
    peak_frame: NDArray[np.int32]
    """(N, S) frame at the centre of the highest segment."""
    clip_frames: int
    """Length of a window in frames."""
    frames_per_s: float

    def windows_with(self, row: int, start_frame: int, stop_frame: int) -> NDArray[np.int64]:
        """Return the windows of a recording that contain most of a span: all of it, if any does."""
        windows = np.arange(self.window_bounds[row], self.window_bounds[row + 1])
        starts = self.start_frame[windows]
        held = np.minimum(starts + self.clip_frames, stop_frame) - np.maximum(starts, start_frame)
        most: NDArray[np.int64] = windows[held == held.max()]
        return most


def window_evidence(scores: WindowScores, head: str, clip_frames: int, frames_per_s: float) -> WindowEvidence:
    """Turn out-of-fold scores into probabilities.

    Args:
        scores: Out-of-fold scores.
        head: Name of the head, as in infer.head.
        clip_frames: Length of a window in frames.
        frames_per_s: Frames per second of recording.

    Raises:
        UserError: the scores are not out of fold, or lack the head.
    """
    if scores.fold is None:
        raise UserError("scores are of all models, not out-of-fold: a label would confirm itself")
    return WindowEvidence(
        recording_ids=scores.recording_ids,
        species=scores.species,
        fold=scores.fold,
        window_bounds=np.append(scores.first_windows, len(scores.recording)),
        start_frame=scores.start_frame,
        probability=window_probabilities(scores, head)[:, 0],
        peak_frame=scores.peak_frame[:, 0],
        clip_frames=clip_frames,
        frames_per_s=frames_per_s,
    )


def rank(clips: pd.DataFrame, heard: WindowEvidence, model: str) -> pd.DataFrame:
    """Return a table of SUSPECT_COLUMNS: the most suspicious of each kind first, kinds alternating.

    Args:
        clips: TP and FP annotations, see clips.DTYPES.
        heard: Evidence for all their recordings.
        model: Name of the models, to which the fold is added.

    Raises:
        UserError: an annotated recording or species has no scores.
    """
    for name, known in (("recording_id", heard.recording_ids), ("species_id", heard.species)):
        if unknown := sorted(set(clips[name]) - set(known)):
            raise UserError(f"clips and scores are of different data: {name} {unknown[0]} has no scores")
    table = pd.concat([doubted_labels(clips, heard), missing_labels(clips, heard)], ignore_index=True)
    table = table.sort_values("score", kind="stable")
    table = table.assign(rank=table.groupby("kind").cumcount() + 1, given=table["kind"].map(GIVEN))
    turn = table["kind"].map({kind: number for number, kind in enumerate(GIVEN)})
    in_order = table.assign(turn=turn).sort_values(["rank", "turn"], ignore_index=True)
    rounded = in_order.assign(**in_order[["probability", "score"]].round(4), verdict="", note="")
    models = [f"{model}/fold{fold}" for fold in rounded["fold"]]
    return rounded.assign(model=models)[SUSPECT_COLUMNS]


def doubted_labels(clips: pd.DataFrame, heard: WindowEvidence) -> pd.DataFrame:
    """List every annotation with the probability of its species in the windows that contain its box.

    The score of a tp row is that probability, that of an fp row 1 minus it.
    """
    rows = pd.Index(heard.recording_ids).get_indexer(pd.Index(clips["recording_id"])).tolist()
    columns = pd.Index(heard.species).get_indexer(pd.Index(clips["species_id"])).tolist()
    probability = [
        heard.probability[heard.windows_with(row, start, stop), column].max()
        for row, column, start, stop in zip(
            rows, columns, clips["start_frame"], clips["stop_frame"], strict=True
        )
    ]
    table = clips[ANNOTATION_COLUMNS].assign(
        kind=clips["label_type"], probability=probability, fold=heard.fold[rows]
    )
    score = table["probability"].where(table["kind"] == "tp", 1 - table["probability"])
    return table.assign(score=score)


def missing_labels(clips: pd.DataFrame, heard: WindowEvidence) -> pd.DataFrame:
    """List every recording and species without any annotation, at the highest window's peak.

    The span around the peak is as long as the species' boxes usually are, and its band and song type are
    those of its commonest box.
    """
    is_labeled = species_presence(clips, heard.recording_ids, heard.species)
    highest = np.maximum.reduceat(heard.probability, heard.window_bounds[:-1], axis=0)  # (R, S)
    rows, columns = np.nonzero(~is_labeled)
    peaks_s = [_peak_s(heard, int(row), int(column)) for row, column in zip(rows, columns, strict=True)]
    boxes = usual_boxes(clips, heard.species).iloc[columns].reset_index(drop=True)
    probability = highest[rows, columns]
    table = boxes.assign(
        recording_id=np.array(heard.recording_ids)[rows],
        t_min=np.maximum(np.array(peaks_s) - boxes["duration_s"] / 2, 0).round(3),
        t_max=(np.array(peaks_s) + boxes["duration_s"] / 2).round(3),
        probability=probability,
        score=1 - probability,
        fold=heard.fold[rows],
        kind="missing",
    )
    return table.drop(columns="duration_s")


def usual_boxes(clips: pd.DataFrame, species: Sequence[str]) -> pd.DataFrame:
    """Return species_id, songtype_id, f_min, f_max and duration_s of each species' commonest box.

    TP boxes if there are any, else FP ones; a species without either gets the band and length of all.
    """
    boxes = clips.assign(duration_s=(clips["t_max"] - clips["t_min"]).round(3))
    columns = ["songtype_id", "f_min", "f_max", "duration_s"]
    whole = ("1", boxes["f_min"].min(), boxes["f_max"].max(), boxes["duration_s"].median())
    usual = []
    for name in species:
        own = boxes[boxes["species_id"] == name]
        groups = [own[own["label_type"] == kind].groupby(columns).size() for kind in LABEL_TYPES]
        commonest = next((list(group.index)[int(group.argmax())] for group in groups if len(group)), whole)
        usual.append((name, *commonest))
    return pd.DataFrame(usual, columns=["species_id", *columns])


def _peak_s(heard: WindowEvidence, row: int, column: int) -> float:
    """Return the time of the species' peak in the recording's highest window, in seconds."""
    windows = slice(heard.window_bounds[row], heard.window_bounds[row + 1])
    highest = heard.probability[windows, column].argmax()
    return float(heard.peak_frame[windows, column][highest] / heard.frames_per_s)
