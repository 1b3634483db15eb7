"""Window scores to annotations that a student can learn from, each with its provenance.

With `pseudo.isolation` recording, a training recording is scored by the one model that has not trained on it,
so none of its own labels comes back to it. CV is still optimistic, because the student of fold j learns from
teachers that have learned the labels of fold j. The same holds for test recordings, which the models of all
folds score; from the second round on, those models have trained on the test recordings too. Without isolation
the models of all folds score training recordings as well.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.data.clips import DTYPES, PROVENANCE_DTYPES
from callboard.features.frame_cache import MelCache
from callboard.features.windows import clip_length
from callboard.model.weights import LoadedModel
from callboard.params.scoring import PseudoParams
from callboard.scoring.parts import ScoreParams
from callboard.scoring.predict import score_out_of_fold, score_recordings
from callboard.scoring.window_scores import Probabilities, WindowScores, window_probabilities

SCORE_DIGITS = 5
"""Decimals of scores and targets in the table."""

LEAST_TARGET = 10.0**-SCORE_DIGITS
"""Least target of a positive: 0 would mean that the species is absent."""

SPAN = ["recording_id", "species_id", "start_frame", "stop_frame"]


class Teacher(NamedTuple):
    """Models of a round, and what they need to score recordings."""

    name: str
    """Name of the round."""
    models: list[LoadedModel]
    """One per fold."""
    mel: Path
    """Folder with the caches of train and test."""
    params: ScoreParams
    device: torch.device
    isolation: str
    """`pseudo.isolation`."""


class TeacherScores(NamedTuple):
    """Scores of recordings by a teacher."""

    scores: WindowScores
    window_frames: int
    """Length of a window."""
    n_frames: dict[str, int]
    """Length of each recording."""


def score_training(teacher: Teacher, clips: pd.DataFrame, folds: pd.DataFrame) -> TeacherScores:
    """Score all recordings of the folds table: out of fold, or without isolation by all models."""
    cache = MelCache.open(teacher.mel / "train")
    if teacher.isolation == "none":
        recording_ids = folds["recording_id"].tolist()
        scores = score_recordings(teacher.models, cache, recording_ids, teacher.params, teacher.device)
    else:
        models = [loaded for loaded in teacher.models if (folds["fold"] == loaded.fold).any()]
        scores = score_out_of_fold(models, cache, folds, teacher.params, teacher.device)
    return _heard(teacher, scores, cache)


def score_rejected(teacher: Teacher, clips: pd.DataFrame, folds: pd.DataFrame) -> TeacherScores:
    """Score the recordings without a TP annotation, as `score_training` does.

    Raises:
        UserError: every recording has a TP annotation.
    """
    confirmed = clips.loc[clips["label_type"] == "tp", "recording_id"]
    rejected = folds[~folds["recording_id"].isin(confirmed)]
    if rejected.empty:
        raise UserError("pseudo.source train_fp: every annotated recording has a TP annotation; use train")
    return score_training(teacher, clips, rejected)


def score_test(teacher: Teacher, clips: pd.DataFrame, folds: pd.DataFrame) -> TeacherScores:
    """Score all test recordings by all models.

    Raises:
        ValueError: one has the name of a training recording, whose labels it would be given.
    """
    return _score_unfolded(teacher, folds, "test")


def score_external(teacher: Teacher, clips: pd.DataFrame, folds: pd.DataFrame) -> TeacherScores:
    """Score all external recordings by all models.

    Raises:
        UserError: there are no external recordings.
        ValueError: one has the name of a training recording, whose labels it would be given.
    """
    heard = _score_unfolded(teacher, folds, "external")
    if not heard.scores.recording_ids:
        raise UserError("pseudo.source external: there are no external recordings; see data.external")
    return heard


def _score_unfolded(teacher: Teacher, folds: pd.DataFrame, subset: str) -> TeacherScores:
    cache = MelCache.open(teacher.mel / subset)
    if shared := sorted(set(cache.recording_ids) & set(folds["recording_id"])):
        raise ValueError(
            f"training recordings need out-of-fold scores: {shared[0]} is among the {subset} recordings too"
        )
    scores = score_recordings(teacher.models, cache, cache.recording_ids, teacher.params, teacher.device)
    return _heard(teacher, scores, cache)


def _heard(teacher: Teacher, scores: WindowScores, cache: MelCache) -> TeacherScores:
    n_frames = dict(zip(cache.recording_ids, cache.n_frames.tolist(), strict=True))
    return TeacherScores(scores, clip_length(teacher.models[0].clip, cache.n_frames), n_frames)


ScoreRecordings = Callable[[Teacher, pd.DataFrame, pd.DataFrame], TeacherScores]
"""Scores recordings, given a teacher, the annotations and the folds table."""

PSEUDO_SOURCES: dict[str, Sequence[ScoreRecordings]] = {
    "train": (score_training,),
    "train_fp": (score_rejected,),
    "test": (score_test,),
    "external": (score_external,),
    "train_test": (score_training, score_test),
    "train_external": (score_training, score_external),
}
"""Functions by `pseudo.source`."""


def label_sets(
    teacher: Teacher, clips: pd.DataFrame, folds: pd.DataFrame, params: PseudoParams
) -> tuple[pd.DataFrame, set[str]]:
    """Label the recordings of every set that `pseudo.source` names.

    Returns:
        The spans found, and the recordings that were scored.
    """
    heard = [score(teacher, clips, folds) for score in PSEUDO_SOURCES[params.source]]
    found = [label_recordings(one, clips, params, teacher.name) for one in heard]
    scored = {recording_id for one in heard for recording_id in one.scores.recording_ids}
    return pd.concat(found, ignore_index=True), scored


def label_recordings(
    heard: TeacherScores, clips: pd.DataFrame, params: PseudoParams, teacher: str
) -> pd.DataFrame:
    """Find the positives in a teacher's scores, then the negatives if there is a `negative_threshold`.

    Args:
        heard: Scores by one round.
        clips: The annotations, with their spans in frames.
        params: The `pseudo` section.
        teacher: Name of the round.

    Returns:
        As `find_pseudo_labels`.
    """
    positives = find_pseudo_labels(heard.scores, clips, heard.n_frames, params, teacher)
    if params.negative_threshold is None:
        return positives
    judged = pd.concat([clips[SPAN], positives[SPAN]])
    return pd.concat([positives, find_negatives(heard, judged, params, teacher)], ignore_index=True)


def find_pseudo_labels(
    window_scores: WindowScores,
    clips: pd.DataFrame,
    n_frames: Mapping[str, int],
    params: PseudoParams,
    teacher: str,
) -> pd.DataFrame:
    """Find spans where enough models detect a species that has no label there.

    A model votes in every window in which its probability reaches the threshold. A window needs one vote of
    its own fold's model, or `min_votes` if all models scored it. Its span is centred on the highest segment
    of its surest model and scored by the mean probability of the models that voted. Spans are taken best
    first; one that overlaps an annotation of the species, confirmed or rejected, or a better span of it is
    dropped.

    Args:
        window_scores: scores of training recordings out of fold, of test recordings by all models.
        clips: the annotations, with their spans in frames.
        n_frames: length of each recording.
        params: the `pseudo` section.
        teacher: name of the round of the models.

    Returns:
        recording_id, species_id, start_frame, stop_frame, score, votes, target and teacher, sorted by
        recording, start and species.

    Raises:
        ValueError: isolation is on, but the scores are of all models and include a training recording.
    """
    is_of_all = window_scores.fold is None and params.isolation != "none"
    if is_of_all and not set(clips["recording_id"]).isdisjoint(window_scores.recording_ids):
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
    """Return one row per window and species with enough votes, best first."""
    probability = window_probabilities(window_scores, params.head)  # (windows, models, species)
    is_vote = probability >= params.threshold
    n_votes = is_vote.sum(axis=1)  # (windows, species)
    window, column = np.nonzero(n_votes >= _votes_needed(window_scores, params))
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
            "target": _targets(window_scores, is_vote, params)[window, column],
            "teacher": _teachers(window_scores, teacher)[recording],
        }
    )
    return table.sort_values(
        ["score", "recording_id", "start_frame"], ascending=[False, True, True], kind="stable"
    )


def _votes_needed(window_scores: WindowScores, params: PseudoParams) -> int:
    return params.min_votes if window_scores.fold is None else 1


def _targets(window_scores: WindowScores, is_vote: NDArray[np.bool_], params: PseudoParams) -> Probabilities:
    """Return (windows, species) targets: 1, or the tempered mean of the models that voted, sharpened.

    The logits of each head are divided by the temperature before the heads' probabilities are averaged.
    """
    if params.labels == "hard":
        return np.ones((is_vote.shape[0], is_vote.shape[2]))
    tempered = window_probabilities(window_scores, params.head, params.temperature)
    mean = (tempered * is_vote).sum(axis=1) / np.maximum(is_vote.sum(axis=1), 1)
    targets: Probabilities = np.clip(mean**params.power, LEAST_TARGET, 1.0)
    return targets


def find_negatives(
    heard: TeacherScores, judged: pd.DataFrame, params: PseudoParams, teacher: str
) -> pd.DataFrame:
    """Find spans of windows in which enough models rule out a species, joining those that touch.

    A model votes in every window in which its probability is at most `negative_threshold`. A window with
    enough votes for presence too, or with a frame that has a label of the species, is left out as a whole: an
    annotation and a positive pseudo-label win.

    Args:
        heard: Scores by one round.
        judged: recording_id, species_id, start_frame, stop_frame of annotations and positive pseudo-labels.
        params: The `pseudo` section, with a `negative_threshold`.
        teacher: Name of the round.

    Returns:
        As `find_pseudo_labels`, with target 0; score is the maximum over the joined windows of the mean of
        the models that voted, and votes the minimum.

    Raises:
        ValueError: there is no `negative_threshold`.
    """
    if params.negative_threshold is None:
        raise ValueError("negatives need a negative_threshold")
    scores = heard.scores
    probability = window_probabilities(scores, params.head)  # (windows, models, species)
    is_vote = probability <= params.negative_threshold
    votes, n_present = is_vote.sum(axis=1), (probability >= params.threshold).sum(axis=1)
    needed = _votes_needed(scores, params)
    is_absent = (votes >= needed) & (n_present < needed)  # (windows, species)
    length = np.array([heard.n_frames[recording_id] for recording_id in scores.recording_ids], dtype=np.int64)
    start = scores.start_frame.astype(np.int64)
    stop = np.minimum(start + heard.window_frames, length[scores.recording])
    is_absent[_cells_of_spans(judged, scores, start, stop)] = False
    column, window = np.nonzero(is_absent.T)  # by species, then in time
    recording = scores.recording[window]
    is_first = (  # window of a span
        np.diff(column, prepend=-1).astype(bool)
        | np.diff(recording, prepend=-1).astype(bool)
        | (start[window] > np.roll(stop[window], 1))
    )
    first, last = np.flatnonzero(is_first), np.flatnonzero(np.roll(is_first, -1))
    windows = pd.DataFrame(
        {
            "score": (probability * is_vote).sum(axis=1)[window, column] / votes[window, column],
            "votes": votes[window, column],
        }
    ).groupby(np.cumsum(is_first))
    table = pd.DataFrame(
        {
            "recording_id": pd.Series(
                np.array(scores.recording_ids, dtype=object)[recording[first]], dtype=str
            ),
            "species_id": pd.Series(np.array(scores.species, dtype=object)[column[first]], dtype=str),
            "start_frame": start[window[first]],
            "stop_frame": stop[window[last]],
            "score": windows["score"].max().to_numpy(),
            "votes": windows["votes"].min().to_numpy(),
            "target": 0.0,
            "teacher": _teachers(scores, teacher)[recording[first]],
        }
    )
    return table.sort_values(["recording_id", "start_frame", "species_id"], ignore_index=True)


def _cells_of_spans(
    spans: pd.DataFrame, scores: WindowScores, start: NDArray[np.int64], stop: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return windows and species, pair by pair, of every window that has a frame of a span of the species."""
    row = pd.Index(scores.recording_ids).get_indexer(pd.Index(spans["recording_id"]))
    column = pd.Index(scores.species).get_indexer(pd.Index(spans["species_id"]))
    is_known = (row >= 0) & (column >= 0)
    row, column = row[is_known], column[is_known]
    n_windows = np.bincount(scores.recording, minlength=len(scores.recording_ids))[row]
    span = np.repeat(np.arange(len(row)), n_windows)  # each span with each window of its recording
    place = np.arange(len(span)) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
    window = scores.first_windows[row][span] + place
    span_start, span_stop = (spans[name].to_numpy()[is_known][span] for name in ("start_frame", "stop_frame"))
    is_over = (start[window] < span_stop) & (span_start < stop[window])
    return window[is_over], column[span[is_over]]


def _teachers(window_scores: WindowScores, teacher: str) -> NDArray[np.object_]:
    """Return (recordings,) the teacher of each: the round, with the fold if it was one model."""
    if window_scores.fold is None:
        return np.full(len(window_scores.recording_ids), teacher, dtype=object)
    return np.array([f"{teacher}/fold{fold}" for fold in window_scores.fold], dtype=object)


def _spans(table: pd.DataFrame) -> list[tuple[str, str, int, int]]:
    return list(table[SPAN].itertuples(index=False, name=None))


def as_clips(found: pd.DataFrame, clips: pd.DataFrame, student_round: int, student: str = "") -> pd.DataFrame:
    """Put spans into the columns of the clips table, clip ids continuing, with their provenance.

    The network says in which frames it detects a species, so the box in seconds and Hz is blank and its span
    of mel rows empty.

    Args:
        found: As `find_pseudo_labels` returns them.
        clips: The annotations.
        student_round: Round of the networks that learn from them.
        student: Folds that their student holds out; blank if they are for all students of the round.
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
        score=found["score"].astype(np.float64).round(SCORE_DIGITS),
        target=found["target"].astype(np.float64).round(SCORE_DIGITS),
        student=student,
    )
    return table[[*DTYPES, *PROVENANCE_DTYPES]]


def write_pseudo_labels(table: pd.DataFrame, path: Path) -> None:
    """Write the table, whole or not at all."""
    with written_whole(path) as unfinished:
        table.to_csv(unfinished, index=False)
