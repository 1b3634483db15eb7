"""Training and validation data of one fold; no annotation of a validation recording is trained on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from callboard.core.errors import UserError
from callboard.data.folds import needs_fold
from callboard.data.presence import species_presence
from callboard.features.frame_cache import MappedFrames, TrainingCache
from callboard.model.class_axis import ClassAxis, spread_over_classes

Integers = NDArray[np.int64]
Frames = MappedFrames | Tensor
"""The packed frames (total_frames, mels), mapped from disk or on a device."""

TRAINING_LABEL_TYPES = ("tp", "fp", "pseudo")
ANNOTATION_KINDS = (*TRAINING_LABEL_TYPES, "negative")
"""Kinds in the order in which a recording's annotations are stored; negative: a pseudo-label of target 0."""

REJECTED, CONFIRMED = 2.0, 3.0
"""Verdicts of annotators, above those of all pseudo-labels."""


class Annotations(NamedTuple):
    """Annotations of the training part: a row per recording of the cache, in the order of ANNOTATION_KINDS.

    Negatives of a class that touch or overlap are merged, so one row covers a clip that they cover together.
    """

    start: Integers
    """(recordings, annotations) first frame, in the recording."""
    stop: Integers
    """(recordings, annotations) frame after the last; padding has stop = start."""
    low: Integers
    """(recordings, annotations) lowest mel row of the filterbank."""
    high: Integers
    """(recordings, annotations) row after the highest; equal to `low` for a pseudo-label: it has no rows."""
    species: Integers
    """(recordings, annotations) position on the class axis."""
    verdict: NDArray[np.float64]
    """(recordings, annotations) CONFIRMED (TP), REJECTED (FP) or the target of a pseudo-label, 0 = absent.
    Where several annotations cover a cell, the largest verdict holds: annotations before pseudo-labels,
    present before absent."""
    n_tp: Integers
    """(recordings,) number of TP annotations."""
    n_fp: Integers
    """(recordings,) number of FP annotations."""
    n_pseudo: Integers
    """(recordings,) number of pseudo-labels with a target above 0."""
    n_negative: Integers
    """(recordings,) number of negatives, after merging."""

    @property
    def is_fp(self) -> NDArray[np.bool_]:
        """Whether an annotator rejected each annotation, (recordings, annotations)."""
        is_rejected: NDArray[np.bool_] = self.verdict == REJECTED
        return is_rejected

    @property
    def has_positive_clip(self) -> NDArray[np.bool_]:
        """Whether each epoch shows a recording, (recordings,): a TP, or positive pseudo-labels and no FP."""
        is_pseudo_alone = (self.n_pseudo > 0) & (self.n_fp == 0)
        has_positive: NDArray[np.bool_] = (self.n_tp > 0) | is_pseudo_alone
        return has_positive

    @property
    def has_window(self) -> NDArray[np.bool_]:
        """Whether each epoch shows its windows, (recordings,): as above, or negatives and no FP."""
        is_negative_alone = (self.n_negative > 0) & (self.n_fp == 0)
        has_window: NDArray[np.bool_] = self.has_positive_clip | is_negative_alone
        return has_window


@dataclass(frozen=True)
class FoldData:
    """Training and validation data of one fold; `annotations` has none of a validation recording."""

    frames: Frames
    first_frame: Integers
    """(recordings,) first frame of each recording of the cache in `frames`."""
    n_frames: Integers
    """(recordings,) length of each recording."""
    annotations: Annotations
    n_tp_annotations: Integers
    """(classes,) TP annotations of the training part."""
    class_species: Integers
    """(classes,) position of each class's species, ascending; 0, 1, 2, … where classes are species."""
    validation: Integers
    """Recordings of the validation part with a TP annotation, as rows of the cache."""
    is_present: NDArray[np.bool_]
    """(validation recordings, species) whether a TP annotation of the species is in the recording."""

    @property
    def n_classes(self) -> int:
        """Length of the class axis."""
        return len(self.n_tp_annotations)


def confirmed_labels(training: pd.DataFrame) -> pd.DataFrame:
    """Return the annotations unchanged."""
    return training


def rejected_labels(training: pd.DataFrame) -> pd.DataFrame:
    """Relabel FP rows as TP and drop the TP rows, to test whether FP can be learned; no FP rows remain."""
    others = training[training["label_type"] != "tp"]
    return others.assign(label_type=others["label_type"].replace("fp", "tp"))


LABELS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {"tp": confirmed_labels, "fp": rejected_labels}
"""By `train.labels`: functions of the training part's annotations to those trained on."""


def select_fold(
    cache: TrainingCache, clips: pd.DataFrame, folds: pd.DataFrame, fold: int, axis: ClassAxis, labels: str
) -> FoldData:
    """Select the data of one fold.

    Pseudo-labels of test recordings are in the training part of every fold.

    Args:
        cache: Frames of the training recordings, and of test recordings with pseudo-labels.
        clips: TP, FP and pseudo annotations with their frame spans; a pseudo-label without a target, or in a
            table without that column, has target 1.
        folds: recording_id, fold.
        fold: The validation part; all other folds are the training part.
        axis: The class axis.
        labels: Key of LABELS. Validation always uses the original TP annotations.

    Raises:
        UserError: the folds table lacks the fold or an annotated recording, an annotated species or label
            type is unknown, a target is outside [0, 1], or the training part has no annotation to learn from.
    """
    fold_of = dict(zip(folds["recording_id"], folds["fold"], strict=True))
    _refuse_unknown(clips, fold_of, cache, axis.species)
    if fold not in fold_of.values():
        raise UserError(f"fold {fold} is not in the folds table, which has {sorted(set(fold_of.values()))}")
    is_validation = clips["recording_id"].map(fold_of) == fold
    validated = clips[is_validation & (clips["label_type"] == "tp")]
    recording_ids = sorted(set(validated["recording_id"]))
    training = spread_over_classes(LABELS[labels](clips[~is_validation]), axis)
    is_tp = training["label_type"] == "tp"
    if not is_tp.any():
        raise UserError(
            f"fold {fold}: its training part has no {labels.upper()} annotation, so there is nothing to learn"
        )
    return FoldData(
        frames=cache.frames,
        first_frame=cache.offsets,
        n_frames=cache.n_frames,
        annotations=_pad_annotations(training, cache),
        n_tp_annotations=np.bincount(training["class_position"][is_tp], minlength=len(axis.class_species)),
        class_species=axis.class_species,
        validation=np.array([cache.row(recording_id) for recording_id in recording_ids], dtype=np.int64),
        is_present=species_presence(validated, recording_ids, axis.species),
    )


def _refuse_unknown(
    clips: pd.DataFrame, fold_of: dict[str, int], cache: TrainingCache, species: list[str]
) -> None:
    folded = clips[needs_fold(clips, cache.other_ids)]
    checks = (("recording_id", folded, fold_of, "folds"), ("species_id", clips, species, "species"))
    for column, rows, known, table in checks:
        unknown = rows[~rows[column].isin(list(known))]
        if not unknown.empty:
            row = unknown.iloc[0]
            raise UserError(
                f"{len(unknown)} annotation(s) have a {column} that the {table} table lacks, first: "
                f"{row['label_type']} of species {row['species_id']} in recording {row['recording_id']}"
            )
    if bad := sorted(set(clips["label_type"]) - set(TRAINING_LABEL_TYPES)):
        raise UserError(
            f"label_type must be one of {', '.join(TRAINING_LABEL_TYPES)}, found {', '.join(bad)}"
        )
    if "target" in clips and not (wrong := clips[(clips["target"] < 0) | (clips["target"] > 1)]).empty:
        row = wrong.iloc[0]
        raise UserError(
            f"{len(wrong)} annotation(s) have a target outside [0, 1], first: {row['target']} of species "
            f"{row['species_id']} in recording {row['recording_id']}"
        )


def _join_negatives(clips: pd.DataFrame) -> pd.DataFrame:
    """Merge negatives of a recording and class that touch or overlap, and put them after the other rows.

    Args:
        clips: Annotations with `verdict` and `class_position`.
    """
    is_negative = clips["verdict"] == 0
    if not is_negative.any():
        return clips
    of_class = ["recording_id", "class_position"]
    negatives = clips[is_negative].sort_values([*of_class, "start_frame"], kind="stable")
    grouped = negatives.groupby(of_class, sort=False)
    reach = grouped["stop_frame"].cummax().groupby([negatives[name] for name in of_class], sort=False).shift()
    span = (~(negatives["start_frame"] <= reach)).cumsum()  # NaN where a class begins
    joined = negatives[~span.duplicated()].copy()
    joined["stop_frame"] = negatives["stop_frame"].groupby(span).max().to_numpy()
    return pd.concat([clips[~is_negative], joined])


def _pad_annotations(clips: pd.DataFrame, cache: TrainingCache) -> Annotations:
    clips = clips.reset_index(drop=True)
    clips = _join_negatives(clips.assign(verdict=_verdicts(clips)))
    row = np.array([cache.row(recording_id) for recording_id in clips["recording_id"]], dtype=np.int64)
    verdict = clips["verdict"].to_numpy()
    kind = np.where(
        verdict == 0,
        ANNOTATION_KINDS.index("negative"),
        clips["label_type"].map(ANNOTATION_KINDS.index).to_numpy(),
    )
    order = np.lexsort((kind, row))
    row, kind = row[order], kind[order]
    n_annotations = np.bincount(row, minlength=len(cache))
    slot = np.arange(len(row)) - np.repeat(np.cumsum(n_annotations) - n_annotations, n_annotations)
    columns = ["start_frame", "stop_frame", "low_mel", "high_mel", "class_position"]
    padded = np.zeros((len(columns), len(cache), n_annotations.max()), dtype=np.int64)
    padded[:, row, slot] = clips[columns].to_numpy()[order].T
    verdicts = np.zeros(padded.shape[1:])
    verdicts[row, slot] = verdict[order]
    counts = (
        np.bincount(row[kind == number], minlength=len(cache)) for number in range(len(ANNOTATION_KINDS))
    )
    return Annotations._make([*padded, verdicts, *counts])


def _verdicts(clips: pd.DataFrame) -> NDArray[np.float64]:
    """Return (annotations,) verdicts, as in Annotations.verdict."""
    target = clips["target"].fillna(1.0) if "target" in clips else pd.Series(1.0, clips.index)
    of_expert = clips["label_type"].map({"tp": CONFIRMED, "fp": REJECTED})
    return np.where(clips["label_type"] == "pseudo", target, of_expert).astype(np.float64)
