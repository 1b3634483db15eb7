"""The suspicious labels of one result, found in git and DVC's cache: ranked and written for a reviewer."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from callboard.analysis.suspects.ranking import WindowEvidence, rank, window_evidence
from callboard.analysis.suspects.review import reviewed_boxes
from callboard.analysis.suspects.truth import TRUTH, precision_table, read_calls
from callboard.core.console import Stopwatch, counted, summarize, warn
from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.data.annotations import read_table
from callboard.data.clips import read_clips
from callboard.data.corrections import CORRECTION_KINDS, CORRECTIONS, read_corrections
from callboard.features.windows import clip_length
from callboard.params.base import validate
from callboard.params.features import FrontEndParams
from callboard.params.training import ClipParams
from callboard.results.dvc_cache import cached_in_folder
from callboard.results.lookup import find_result
from callboard.results.result import CLIPS, SOURCE, Result
from callboard.results.rows import board_refs, is_unisolated, read_board
from callboard.scoring.window_scores import load_scores


class HearingParams(FrontEndParams):
    """What says where a window of scores lies in its recording."""

    clip: ClipParams


def write_suspects(reference: str | None, kinds: Sequence[str], n_top: int, output: Path) -> None:
    """Rank the labels of one result, write the first of each kind and print one line about it.

    Args:
        reference: See lookup.find; None for the result of HEAD.
        kinds: Of CORRECTION_KINDS.
        n_top: Rows of each kind.
        output: The file.

    Raises:
        UserError: no such result, its scores or annotations are not in the cache, or `output` holds verdicts.
    """
    watch = Stopwatch()
    refuse_reviewed(output)
    rows, _ = read_board()
    result = find_result(reference, board_refs(rows))
    suspects = read_suspects(result)
    calls = read_calls_of(result)
    suspects, n_reviewed = without_reviewed(suspects)
    chosen = suspects[suspects["kind"].isin(kinds) & (suspects["rank"] <= n_top)]
    with written_whole(output) as unfinished:
        chosen.to_csv(unfinished, index=False)
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
    """A table that a person has worked on is not written over.

    Raises:
        UserError: it holds verdicts.
    """
    if not path.is_file():
        return
    n_verdicts = int((read_table(path, ["verdict"])["verdict"].str.strip() != "").sum())
    if n_verdicts:
        raise UserError(
            f"{path}: holds {counted(n_verdicts, 'verdict')}; `callboard suspects --apply {path}` takes "
            "them, --output writes elsewhere"
        )


def read_suspects(result: Result) -> pd.DataFrame:
    """Every label of a result's training recordings, ranked, see `rank`.

    Raises:
        UserError: the result is a blend, or what is needed is not in the cache.
    """
    params = result.params
    result.refuse_blend()
    if is_unisolated(params):
        warn(f"{result.name}: its teachers saw all recordings, so labels may vouch for themselves")
    final = params.get("pseudo.rounds", "0")
    clips = read_clips(result.output(CLIPS))
    return rank(clips, _hearing(result, clips, final), f"{result.ref.reference} r{final}")


def without_reviewed(suspects: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The suspects on which corrections.csv has no verdict yet, ranked anew, and how many it has one on."""
    if not CORRECTIONS.is_file():
        return suspects, 0
    is_reviewed = reviewed_boxes(suspects, read_corrections(CORRECTIONS))
    left = suspects[~is_reviewed]
    return left.assign(rank=left.groupby("kind").cumcount() + 1), int(is_reviewed.sum())


def _hearing(result: Result, clips: pd.DataFrame, final: str) -> WindowEvidence:
    sections = result.sections(*HearingParams.model_fields)
    params = validate(HearingParams, sections, f"params.yaml of {result.name}")
    clip_frames = clip_length(params.clip, clips["stop_frame"].to_numpy())
    with result.folder(f"scores/r{final}") as folder:
        scores = load_scores(folder / "oof.npz")
    return window_evidence(scores, result.params["infer.head"], clip_frames, params.frames_per_s)


def read_calls_of(result: Result) -> pd.DataFrame | None:
    """Every call of the training recordings, where the data tell them."""
    try:
        return read_calls(cached_in_folder(result.output(SOURCE), TRUTH, SOURCE))
    except UserError:
        return None
