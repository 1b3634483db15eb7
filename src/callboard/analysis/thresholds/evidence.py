"""Judged scores of a result, boxes out of fold and verdicts on predictions, and all scores around them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.analysis.suspects.ranking import WindowEvidence, doubted_labels, window_evidence
from callboard.analysis.suspects.review import HearingParams, read_window_scores
from callboard.analysis.thresholds.precision import JudgedCells, count_windows
from callboard.core.console import warn
from callboard.core.csv_rows import refuse_rows, row_name
from callboard.core.errors import UserError, nearest
from callboard.data.clips import read_clips
from callboard.data.folds import group_of, read_folds
from callboard.data.verdicts import VERDICT_TABLE, read_window_verdicts
from callboard.features.windows import clip_length
from callboard.params.base import validate
from callboard.params.scoring import InferParams
from callboard.results.result import CLIPS, FOLDS, Result
from callboard.results.rows import is_unisolated
from callboard.scoring.detections import StoredPredictions
from callboard.scoring.detector import Detector
from callboard.scoring.predictions import ABOUT, read_detector
from callboard.scoring.prevalence import with_odds_times
from callboard.scoring.set_scores import WINDOW_TABLE
from callboard.scoring.window_scores import WindowScores, window_means


@dataclass(frozen=True)
class SpeciesEvidence:
    """Judged scores of one species, and the number of all its windows at each score."""

    kind: Literal["boxes", "verdicts"]
    cells: JudgedCells
    windows: NDArray[np.int64]
    """(W,) all windows by score, see precision.count_windows."""
    floor: float = 0.0
    """Score from which `windows` are known."""


class _WindowParams(HearingParams):
    infer: InferParams


def box_evidence(result: Result, detector: Detector) -> dict[str, SpeciesEvidence]:
    """Read the boxes of a result that people confirmed or rejected, with out-of-fold scores.

    Args:
        result: A result with windows of its own, not a blend.
        detector: Its detector.

    Raises:
        UserError: A file is not in DVC's cache.
    """
    if is_unisolated(result.params):
        warn(f"{result.name}: its teachers saw all recordings, so scores at boxes may be too good")
    clips, folds = read_clips(result.output(CLIPS)), read_folds(result.output(FOLDS))
    return evidence_of_boxes(clips, folds, read_out_of_fold(result, detector, clips))


def read_out_of_fold(result: Result, detector: Detector, clips: pd.DataFrame) -> WindowEvidence:
    """Read the out-of-fold scores of all windows of a result's training recordings.

    Args:
        result: As in `box_evidence`.
        detector: Its detector.
        clips: Its annotations, see clips.DTYPES.

    Raises:
        UserError: The scores are not in DVC's cache.
    """
    sections = result.sections(*_WindowParams.model_fields)
    params = validate(_WindowParams, sections, f"params.yaml of {result.name}")
    frames = clip_length(params.clip, clips["stop_frame"].to_numpy())
    scores = read_window_scores(result)
    return judged_out_of_fold(scores, params.infer, detector, frames, params.frames_per_s)


def judged_out_of_fold(
    scores: WindowScores, infer: InferParams, detector: Detector, clip_frames: int, frames_per_s: float
) -> WindowEvidence:
    """Return out-of-fold scores after all steps that those of new recordings go through."""
    evidence = window_evidence(scores, infer.head, clip_frames, frames_per_s)
    probability = window_means(scores, infer)
    if detector.factors is not None:
        order = [detector.species.index(name) for name in scores.species]
        probability = with_odds_times(probability, detector.factors[order])
    return replace(evidence, probability=probability)


def evidence_of_boxes(
    clips: pd.DataFrame, folds: pd.DataFrame, evidence: WindowEvidence
) -> dict[str, SpeciesEvidence]:
    """Give each box the score of its species there, see `doubted_labels`.

    Args:
        clips: Confirmed and rejected boxes, see clips.DTYPES.
        folds: recording_id, fold and, if recordings are grouped, group.
        evidence: Out-of-fold scores of all windows of their recordings.
    """
    boxes = doubted_labels(clips, evidence)
    groups = group_of(folds)
    names = folds["recording_id"] if groups is None else groups
    unit = boxes["recording_id"].map(dict(zip(folds["recording_id"], names, strict=True)))
    return {
        name: SpeciesEvidence(
            "boxes",
            _cells(boxes["probability"], boxes["kind"] == "tp", unit, boxes["species_id"] == name),
            count_windows(evidence.probability[:, column]),
        )
        for column, name in enumerate(evidence.species)
    }


def verdict_evidence(folders: Sequence[Path], detector: Detector) -> dict[str, SpeciesEvidence]:
    """Read the verdicts on predictions of a detector, and count all of their windows.

    Args:
        folders: Folders of predictions with a table of verdicts.
        detector: The detector that must have made them.

    Raises:
        UserError: A folder is given twice, has no verdicts or is not one of predictions, is of a different
            detector, or a verdict is on an unknown species.
    """
    _refuse_twice(folders)
    tables, floor = [], 0.0
    windows = {name: count_windows(np.empty(0)) for name in detector.species}
    for folder in folders:
        refuse_different_detector(folder, detector)
        predictions = StoredPredictions.open(folder)
        verdicts = _read_verdicts(folder / VERDICT_TABLE, predictions.species)
        tables.append(verdicts.assign(unit=f"{folder}/" + verdicts["recording"]))
        floor = max(floor, predictions.floor)
        for shard in predictions.shards:
            for name, scores in predictions.table(WINDOW_TABLE, shard).groupby("species")["score"]:
                windows[str(name)] += count_windows(scores.to_numpy())
    table = pd.concat(tables, ignore_index=True)
    table = table[table["verdict"] != "unsure"]
    is_present = table["verdict"] == "present"
    return {
        name: SpeciesEvidence(
            "verdicts",
            _cells(table["score"], is_present, table["unit"], table["species"] == name),
            counts,
            floor,
        )
        for name, counts in windows.items()
    }


def _refuse_twice(folders: Sequence[Path]) -> None:
    seen: dict[Path, Path] = {}
    for folder in folders:
        if seen.setdefault(folder.resolve(), folder) is not folder:
            raise UserError(f"--verdicts {folder}: is given twice, so that its verdicts would count twice")


def refuse_different_detector(folder: Path, detector: Detector) -> None:
    """Refuse a folder of predictions that a different detector made.

    Raises:
        UserError: It did, or the description in the folder is missing or damaged.
    """
    reference, key, _ = read_detector(folder / ABOUT)
    if key != detector.key and reference != detector.reference:  # exported, it has a different key
        raise UserError(
            f"{folder}: has predictions of {reference}, not of {detector.reference}, so its verdicts are on "
            "different scores"
        )


def _read_verdicts(path: Path, species: Sequence[str]) -> pd.DataFrame:
    verdicts = read_window_verdicts(path)
    refuse_rows(
        (row_name(path.name, line), f"unknown species {name!r}{nearest(name, species)}")
        for line, name in enumerate(verdicts["species"], start=2)
        if name not in species
    )
    return verdicts


def _cells(
    score: pd.Series, is_present: pd.Series, unit: pd.Series, is_chosen: "pd.Series[bool]"
) -> JudgedCells:
    return JudgedCells(
        score[is_chosen].to_numpy(dtype=np.float64),
        is_present[is_chosen].to_numpy(dtype=bool),
        unit[is_chosen].to_numpy(dtype=str),
    )


def best_evidence(
    boxes: Mapping[str, SpeciesEvidence], verdicts: Mapping[str, SpeciesEvidence], least: int
) -> dict[str, SpeciesEvidence]:
    """Choose for each species its verdicts if there are at least `least`, or no boxes; else its boxes."""
    return {
        name: verdicts[name]
        if name in verdicts and (len(verdicts[name].cells.score) >= least or name not in boxes)
        else boxes[name]
        for name in boxes or verdicts
    }
