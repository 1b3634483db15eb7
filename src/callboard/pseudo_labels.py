"""Out-of-fold window scores to annotations that a student may train on, each with its provenance."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.clips import DTYPES, PROVENANCE_DTYPES
from callboard.outputs import written_whole
from callboard.params.scoring import PseudoParams
from callboard.scores import WindowScores, window_probabilities

HEAD = "attention_max"


def find_pseudo_labels(
    window_scores: WindowScores, clips: pd.DataFrame, n_frames: Mapping[str, int], params: PseudoParams
) -> pd.DataFrame:
    """Spans where a teacher that never trained on the recording hears a species nobody has judged there.

    Of every window whose probability reaches the threshold, the span around the highest segment; best first,
    and none that overlaps an annotation of the species (confirmed or rejected: the expert wins) or a better
    span of it.

    Args:
        window_scores: out-of-fold, so that each recording was scored by its own fold's model.
        clips: the annotations, with their spans in frames.
        n_frames: length of each recording.
        params: the `pseudo` section.

    Returns:
        recording_id, species_id, start_frame, stop_frame, score and fold, by recording, start and species.

    Raises:
        ValueError: the scores are of all models.
    """
    if window_scores.fold is None:
        raise ValueError("pseudo-labels need out-of-fold scores: other models have trained on the recording")
    candidates = _candidates(window_scores, window_scores.fold, n_frames, params)
    taken: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for recording_id, species_id, start, stop in _spans(clips):
        taken[recording_id, species_id].append((start, stop))
    is_new = []
    for recording_id, species_id, start, stop in _spans(candidates):
        spans = taken[recording_id, species_id]
        is_new.append(all(stop <= other_start or other_stop <= start for other_start, other_stop in spans))
        if is_new[-1]:
            spans.append((start, stop))
    found = candidates[np.array(is_new, dtype=bool)]
    return found.sort_values(["recording_id", "start_frame", "species_id"], ignore_index=True)


def _candidates(
    window_scores: WindowScores, fold: NDArray[np.int64], n_frames: Mapping[str, int], params: PseudoParams
) -> pd.DataFrame:
    """One row per window and species that reaches the threshold, best first."""
    probability = window_probabilities(window_scores, HEAD)[:, 0]  # (windows, species)
    window, column = np.nonzero(probability >= params.threshold)
    recording = window_scores.recording[window]
    recording_ids = np.array(window_scores.recording_ids, dtype=object)[recording]
    length = np.array([n_frames[recording_id] for recording_id in recording_ids], dtype=np.int64)
    peak = window_scores.peak_frame[window, 0, column].astype(np.int64)
    start = np.clip(peak - params.n_frames // 2, 0, np.maximum(length - params.n_frames, 0))
    table = pd.DataFrame(
        {
            "recording_id": pd.Series(recording_ids, dtype=str),
            "species_id": pd.Series(np.array(window_scores.species, dtype=object)[column], dtype=str),
            "start_frame": start,
            "stop_frame": np.minimum(start + params.n_frames, length),
            "score": probability[window, column],
            "fold": fold[recording],
        }
    )
    return table.sort_values(
        ["score", "recording_id", "start_frame"], ascending=[False, True, True], kind="stable"
    )


def _spans(table: pd.DataFrame) -> list[tuple[str, str, int, int]]:
    columns = ["recording_id", "species_id", "start_frame", "stop_frame"]
    return list(table[columns].itertuples(index=False, name=None))


def as_clips(
    found: pd.DataFrame, clips: pd.DataFrame, teacher_round: str, student_round: int
) -> pd.DataFrame:
    """The found spans in the columns of the clips table, clip ids continuing, with their provenance.

    The network says in which frames it hears a species, so the box in seconds and Hz stays blank.
    """
    first_id = 0 if clips.empty else int(clips["clip_id"].max()) + 1
    table = found.assign(
        clip_id=np.arange(first_id, first_id + len(found)),
        label_type="pseudo",
        songtype_id="",
        **dict.fromkeys(("t_min", "t_max", "f_min", "f_max"), np.nan),
        round=student_round,
        teacher=[f"{teacher_round}/fold{fold}" for fold in found["fold"]],
        score=found["score"].astype(np.float64).round(5),
        votes=1,
    )
    return table[[*DTYPES, *PROVENANCE_DTYPES]]


def write_pseudo_labels(table: pd.DataFrame, path: Path) -> None:
    """Write the table, whole or not at all."""
    with written_whole(path) as unfinished:
        table.to_csv(unfinished, index=False)
