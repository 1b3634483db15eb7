"""Window scores to annotations that a student may train on, each with its provenance.

A training recording is judged by the one model that has not trained on it, so no label of its own comes back
to it. CV is optimistic all the same, because the student of fold j learns from teachers that were taught the
labels of fold j. So it is with test recordings, which the models of all folds judge; from the second round
on, those models have trained on the test recordings too.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from callboard.checkpoint import LoadedModel
from callboard.clips import DTYPES, PROVENANCE_DTYPES
from callboard.errors import UserError
from callboard.mel_cache import MelCache
from callboard.outputs import written_whole
from callboard.params.scoring import PseudoParams
from callboard.predict import ScoreParams, score_out_of_fold, score_recordings
from callboard.scores import WindowScores, window_probabilities

HEAD = "attention_max"
"""One of scores.HEAD_WEIGHTS, whatever infer.head is: another pooling of scores must not retrain students."""


class Teacher(NamedTuple):
    """The models of a round, and what they score recordings with."""

    name: str
    """Of the round."""
    models: list[LoadedModel]
    """One per fold."""
    mel: Path
    """Folder with the caches of train and test."""
    params: ScoreParams
    device: torch.device


Heard = tuple[WindowScores, MelCache]
"""What a teacher says of recordings, and the cache that they are in."""


def score_training(teacher: Teacher, clips: pd.DataFrame, folds: pd.DataFrame) -> Heard:
    """All recordings of the folds table out of fold."""
    cache = MelCache.open(teacher.mel / "train")
    models = [loaded for loaded in teacher.models if (folds["fold"] == loaded.fold).any()]
    return score_out_of_fold(models, cache, folds, teacher.params, teacher.device), cache


def score_rejected(teacher: Teacher, clips: pd.DataFrame, folds: pd.DataFrame) -> Heard:
    """The recordings that nothing was confirmed in, out of fold.

    Raises:
        UserError: something was confirmed in each.
    """
    confirmed = clips.loc[clips["label_type"] == "tp", "recording_id"]
    rejected = folds[~folds["recording_id"].isin(confirmed)]
    if rejected.empty:
        raise UserError("pseudo.source train_fp: every annotated recording has a TP annotation; use train")
    return score_training(teacher, clips, rejected)


def score_test(teacher: Teacher, clips: pd.DataFrame, folds: pd.DataFrame) -> Heard:
    """All test recordings by all models."""
    cache = MelCache.open(teacher.mel / "test")
    scores = score_recordings(teacher.models, cache, cache.recording_ids, teacher.params, teacher.device)
    return scores, cache


SOURCES: dict[str, Callable[[Teacher, pd.DataFrame, pd.DataFrame], Heard]] = {
    "train": score_training,
    "train_fp": score_rejected,
    "test": score_test,
}
"""By pseudo.source: from a teacher, the annotations and the folds table to what it says."""


def find_pseudo_labels(
    window_scores: WindowScores,
    clips: pd.DataFrame,
    n_frames: Mapping[str, int],
    params: PseudoParams,
    teacher: str,
) -> pd.DataFrame:
    """Spans where enough models hear a species that nobody has judged there.

    A model has a vote in every window that its probability reaches the threshold in. Of a window with one
    vote of its own fold's model, or `min_votes` where all models scored it: the span around the highest
    segment of its surest model, scored by the mean probability of the models that voted. Best first, and
    none that overlaps an annotation of the species (confirmed or rejected: the expert wins) or a better span
    of it.

    Args:
        window_scores: of training recordings out of fold, of test recordings by all models.
        clips: the annotations, with their spans in frames.
        n_frames: length of each recording.
        params: the `pseudo` section.
        teacher: name of the round that the models are of.

    Returns:
        recording_id, species_id, start_frame, stop_frame, score, votes and teacher, by recording, start and
        species.

    Raises:
        ValueError: the scores are of all models, and of a training recording.
    """
    if window_scores.fold is None and not set(clips["recording_id"]).isdisjoint(window_scores.recording_ids):
        raise ValueError("training recordings need out-of-fold scores: other models have trained on them")
    candidates = _candidates(window_scores, n_frames, params, teacher)
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
    window_scores: WindowScores, n_frames: Mapping[str, int], params: PseudoParams, teacher: str
) -> pd.DataFrame:
    """One row per window and species with enough votes, best first."""
    probability = window_probabilities(window_scores, HEAD)  # (windows, models, species)
    is_vote = probability >= params.threshold
    n_votes = is_vote.sum(axis=1)  # (windows, species)
    window, column = np.nonzero(n_votes >= (params.min_votes if window_scores.fold is None else 1))
    votes = n_votes[window, column]
    recording = window_scores.recording[window]
    recording_ids = np.array(window_scores.recording_ids, dtype=object)[recording]
    length = np.array([n_frames[recording_id] for recording_id in recording_ids], dtype=np.int64)
    surest = probability.argmax(axis=1)[window, column]
    peak = window_scores.peak_frame[window, surest, column].astype(np.int64)
    start = np.clip(peak - params.n_frames // 2, 0, np.maximum(length - params.n_frames, 0))
    table = pd.DataFrame(
        {
            "recording_id": pd.Series(recording_ids, dtype=str),
            "species_id": pd.Series(np.array(window_scores.species, dtype=object)[column], dtype=str),
            "start_frame": start,
            "stop_frame": np.minimum(start + params.n_frames, length),
            "score": (probability * is_vote).sum(axis=1)[window, column] / votes,
            "votes": votes,
            "teacher": _teachers(window_scores, teacher)[recording],
        }
    )
    return table.sort_values(
        ["score", "recording_id", "start_frame"], ascending=[False, True, True], kind="stable"
    )


def _teachers(window_scores: WindowScores, teacher: str) -> NDArray[np.object_]:
    """(recordings,) who scored each: the round, and its fold where it was one model."""
    if window_scores.fold is None:
        return np.full(len(window_scores.recording_ids), teacher, dtype=object)
    return np.array([f"{teacher}/fold{fold}" for fold in window_scores.fold], dtype=object)


def _spans(table: pd.DataFrame) -> list[tuple[str, str, int, int]]:
    columns = ["recording_id", "species_id", "start_frame", "stop_frame"]
    return list(table[columns].itertuples(index=False, name=None))


def as_clips(found: pd.DataFrame, clips: pd.DataFrame, student_round: int) -> pd.DataFrame:
    """The found spans in the columns of the clips table, clip ids continuing, with their provenance.

    The network says in which frames it hears a species, so the box in seconds and Hz stays blank and
    its span of mel rows empty.
    """
    first_id = 0 if clips.empty else int(clips["clip_id"].max()) + 1
    table = found.assign(
        clip_id=np.arange(first_id, first_id + len(found)),
        label_type="pseudo",
        songtype_id="",
        low_mel=0,
        high_mel=0,
        **dict.fromkeys(("t_min", "t_max", "f_min", "f_max"), np.nan),
        round=student_round,
        score=found["score"].astype(np.float64).round(5),
    )
    return table[[*DTYPES, *PROVENANCE_DTYPES]]


def write_pseudo_labels(table: pd.DataFrame, path: Path) -> None:
    """Write the table, whole or not at all."""
    with written_whole(path) as unfinished:
        table.to_csv(unfinished, index=False)
