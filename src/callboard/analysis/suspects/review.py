"""Suspicious labels of one result, written for a reviewer, and the review added to corrections.csv."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.analysis.suspects.ranking import WindowEvidence, rank, window_evidence
from callboard.core.console import Stopwatch, counted, summarize, warn
from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.data.annotations import ANNOTATION_COLUMNS, read_species, read_table, typed, without_formulas
from callboard.data.clips import read_clips
from callboard.data.corrections import (
    CORRECTION_KINDS,
    CORRECTIONS,
    VERDICTS,
    corrected,
    read_corrections,
    read_labels,
    read_placed,
    write_corrections,
)
from callboard.data.recordings import train_lengths_s
from callboard.features.windows import clip_length
from callboard.params.base import validate
from callboard.params.features import FrontEndParams
from callboard.params.training import ClipParams
from callboard.results.dvc_cache import NotCachedError, cached_in_folder
from callboard.results.result import CLIPS, SOURCE, Result
from callboard.results.rows import is_unisolated, result_named
from callboard.scoring.window_scores import WindowScores, load_scores

SOURCE_FOLDER = Path("data/source")

TRUTH = "hidden/train_labels.csv"
"""Path below data/source; only the soundscapes have it."""

TRUTH_DTYPES = {"recording_id": "str", "species_id": "str", "t_min": "float64", "t_max": "float64"}

NUMBERS_SHOWN = (10, 20, 50, 100)
"""Numbers of first suspects among which mistakes are counted."""


class HearingParams(FrontEndParams):
    """Parameters that place a window of scores in its recording."""

    clip: ClipParams


def write_suspects(reference: str | None, kinds: Sequence[str], n_top: int, output: Path) -> None:
    """Rank the labels of one result, write the first of each kind and print one line about it.

    Args:
        reference: See lookup.find; None for the result of HEAD.
        kinds: Kinds of suspects, from CORRECTION_KINDS.
        n_top: Number of rows of each kind.
        output: The file to write.

    Raises:
        UserError: the result does not exist, its scores or annotations are not in the cache, or `output`
            contains verdicts.
    """
    watch = Stopwatch()
    refuse_reviewed(output)
    result = result_named(reference)
    suspects = read_suspects(result)
    calls = read_calls_of(result)
    suspects, n_reviewed = without_reviewed(suspects)
    chosen = suspects[suspects["kind"].isin(kinds) & (suspects["rank"] <= n_top)]
    with written_whole(output) as unfinished:
        without_formulas(chosen).to_csv(unfinished, index=False)
    counts = chosen["kind"].value_counts()
    summarize(
        "suspects",
        f"{counted(len(chosen), 'row')} of {result.name} in {output}",
        *(f"{counts.get(kind, 0)} {kind}" for kind in CORRECTION_KINDS if kind in kinds),
        *([f"{n_reviewed} reviewed before left out"] if n_reviewed else []),
        f"{watch.elapsed_s:.1f} s",
    )
    if calls is not None:
        print(precision_table(suspects[suspects["kind"].isin(kinds)], calls))


def refuse_reviewed(path: Path) -> None:
    """Refuse to overwrite a table that a person has edited.

    Raises:
        UserError: it contains verdicts.
    """
    if not path.is_file():
        return
    n_verdicts = int((read_table(path, ["verdict"])["verdict"].str.strip() != "").sum())
    if n_verdicts:
        raise UserError(
            f"{path}: contains {counted(n_verdicts, 'verdict')}; `callboard suspects --apply {path}` applies "
            "them, --output writes to a different file"
        )


def read_suspects(result: Result) -> pd.DataFrame:
    """Rank every label of a result's training recordings, see `rank`.

    Raises:
        UserError: the result is a blend, or a file it needs is not in the cache.
    """
    params = result.params
    result.refuse_blend()
    if is_unisolated(params):
        warn(f"{result.name}: its teachers saw all recordings, so labels may confirm themselves")
    final = params.get("pseudo.rounds", "0")
    clips = read_clips(result.output(CLIPS))
    return rank(clips, _hearing(result, clips), f"{result.ref.reference} r{final}")


def without_reviewed(suspects: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Drop suspects that corrections.csv has a verdict on, and rank anew; also return the number dropped."""
    if not CORRECTIONS.is_file():
        return suspects, 0
    is_reviewed = reviewed_boxes(suspects, read_corrections(CORRECTIONS))
    left = suspects[~is_reviewed]
    return left.assign(rank=left.groupby("kind").cumcount() + 1), int(is_reviewed.sum())


def _hearing(result: Result, clips: pd.DataFrame) -> WindowEvidence:
    sections = result.sections(*HearingParams.model_fields)
    params = validate(HearingParams, sections, f"params.yaml of {result.name}")
    clip_frames = clip_length(params.clip, clips["stop_frame"].to_numpy())
    scores = read_window_scores(result)
    return window_evidence(scores, result.params["infer.head"], clip_frames, params.frames_per_s)


def read_window_scores(result: Result) -> WindowScores:
    """Read the out-of-fold scores of the windows of a result's training recordings.

    Raises:
        UserError: They are not in DVC's cache.
    """
    with result.folder(result.window_scores, "oof.npz") as folder:
        return load_scores(folder / "oof.npz")


def read_calls_of(result: Result) -> pd.DataFrame | None:
    """Read every call of the training recordings; None if the source does not have them."""
    try:
        return read_calls(cached_in_folder(result.output(SOURCE), TRUTH, SOURCE))
    except NotCachedError:
        return None


class ReviewOutcome(NamedTuple):
    """Rows of a review that were copied to corrections.csv, and those that were not."""

    verdicts: list[str]
    """Verdicts of the rows that were added."""
    n_there: int
    """Number of rows that corrections.csv has already."""
    n_left: int
    """Number of rows without a verdict."""

    @property
    def added(self) -> str:
        """Number of rows that were added, and of each verdict, in words."""
        counts = [f"{self.verdicts.count(name)} {name}" for name in VERDICTS if name in self.verdicts]
        in_words = f" ({', '.join(counts)})" if counts else ""
        return f"{counted(len(self.verdicts), 'row')} added to {CORRECTIONS}{in_words}"

    @property
    def there(self) -> list[str]:
        """Number of rows that were there already, in words; empty without any."""
        return [f"{self.n_there} there already"] if self.n_there else []


def apply_review(path: Path) -> None:
    """Append the rows with a verdict to corrections.csv, see `add_reviewed`, and print how many."""
    outcome = add_reviewed(path)
    summarize(
        "suspects",
        outcome.added,
        *outcome.there,
        f"{outcome.n_left} without verdict left out",
        "data.corrections=true uses them",
    )


def add_reviewed(path: Path) -> ReviewOutcome:
    """Append the rows with a verdict to corrections.csv, if the whole would be accepted.

    Rows that are there already are left out, so that a review can be applied while it goes on.

    Raises:
        UserError: the table has no verdict, or a row that corrections.csv does not allow.
    """
    earlier = read_corrections(CORRECTIONS)
    reviewed, n_left = decided(path)
    refuse_unprepared()
    added = without_repeats(reviewed, earlier)
    corrections = pd.concat([earlier, added])
    species = read_species(SOURCE_FOLDER / "species.csv")
    corrected(read_labels(SOURCE_FOLDER), corrections, species, train_lengths_s(SOURCE_FOLDER))
    if len(added):
        write_corrections(corrections, CORRECTIONS)
    return ReviewOutcome(added["verdict"].tolist(), len(reviewed) - len(added), n_left)


def refuse_unprepared() -> None:
    """Refuse a workspace without prepared annotations.

    Raises:
        UserError: `prepare` has not run, or its output was removed.
    """
    if not (SOURCE_FOLDER / "species.csv").is_file():
        raise UserError(
            f"{SOURCE_FOLDER}: does not exist; `dvc repro prepare` makes it, `dvc checkout` restores it"
        )


def without_repeats(reviewed: pd.DataFrame, corrections: pd.DataFrame) -> pd.DataFrame:
    """Drop rows that corrections.csv has with the same box and verdict, all as text."""
    identity = ["kind", *ANNOTATION_COLUMNS, "verdict"]
    there = set(corrections[identity].itertuples(index=False, name=None))
    return reviewed[[row not in there for row in reviewed[identity].itertuples(index=False, name=None)]]


def decided(path: Path) -> tuple[pd.DataFrame, int]:
    """Read the rows with a verdict, in the format of corrections.csv, and count those without.

    Raises:
        UserError: the table does not exist, or has no verdict.
    """
    table = read_placed(path).apply(lambda column: column.str.strip())
    has_verdict = table["verdict"] != ""
    if not has_verdict.any():
        raise UserError(
            f"{path}: no row has a verdict; write one of {', '.join(VERDICTS)} where you have listened"
        )
    return table[has_verdict], int((~has_verdict).sum())


def reviewed_boxes(table: pd.DataFrame, corrections: pd.DataFrame) -> "pd.Series[bool]":
    """Mark the rows of a table of suspects that corrections.csv already has a verdict on."""
    ids, times = ["recording_id", "species_id"], ["t_min", "t_max"]
    numbers = corrections[times].apply(pd.to_numeric, errors="coerce").astype(float)
    reviewed = corrections[ids].assign(**numbers)
    pairs = table[ids + times].reset_index(names="row").merge(reviewed, on=ids, suffixes=("", "_reviewed"))
    touches = (pairs["t_min"] < pairs["t_max_reviewed"]) & (pairs["t_max"] > pairs["t_min_reviewed"])
    return pd.Series(table.index.isin(pairs.loc[touches, "row"]), table.index)


def read_calls(path: Path) -> pd.DataFrame:
    """Read every call of a species in a training recording, TRUTH_DTYPES.

    Raises:
        UserError: the file does not exist, or is not a table of calls.
    """
    return typed(read_table(path, list(TRUTH_DTYPES)), TRUTH_DTYPES, path)


def is_mistake(suspects: pd.DataFrame, calls: pd.DataFrame) -> NDArray[np.bool_]:
    """Return whether each label is wrong, by the known calls of the recordings.

    Wrong are a tp row whose box no call of the species touches, an fp row whose box one touches, and a
    missing label of a species that calls anywhere in the recording.
    """
    spans = {
        cell: group[["t_min", "t_max"]].to_numpy()
        for cell, group in calls.groupby(["recording_id", "species_id"])
    }
    nowhere = np.empty((0, 2))
    found = []
    for kind, recording_id, species_id, t_min, t_max in suspects[
        ["kind", "recording_id", "species_id", "t_min", "t_max"]
    ].itertuples(index=False):
        own = spans.get((recording_id, species_id), nowhere)
        touches = bool(((own[:, 0] < t_max) & (own[:, 1] > t_min)).any())
        found.append({"tp": not touches, "fp": touches, "missing": len(own) > 0}[kind])
    return np.array(found, dtype=bool)


def precision_table(suspects: pd.DataFrame, calls: pd.DataFrame) -> str:
    """Count, for each kind, how many of its first N are mistakes, and their share of all its mistakes.

    Args:
        suspects: All suspects, in order.
        calls: As read_calls returns them.
    """
    wrong = is_mistake(suspects, calls)
    lines = []
    for kind in CORRECTION_KINDS:
        own = wrong[(suspects["kind"] == kind).to_numpy()]
        if not own.any():
            lines.append(f"  {kind}: none of {len(own)} is a mistake")
            continue
        parts = [
            f"first {n}: {own[:n].sum()} ({own[:n].sum() / own.sum():.0%} of all)"
            for n in NUMBERS_SHOWN
            if n <= len(own)
        ]
        first = f"; {', '.join(parts)}" if parts else ""
        lines.append(f"  {kind}: {counted(int(own.sum()), 'mistake')} among {len(own)}{first}")
    return "\n".join(lines)
