"""The recordings that cost most, each as a figure with a line that says what went wrong."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

from callboard.core.errors import UserError
from callboard.features.frame_cache import MelCache
from callboard.params.base import Params, validate
from callboard.params.features import FrontEndParams
from callboard.params.scoring import PredictParams
from callboard.reports.result_page.blocks import Figures, PageBlock, Text
from callboard.reports.result_page.evidence import Evidence, Mistake, worst_recordings
from callboard.reports.result_page.spectrogram import SpectrogramScene, draw_scene
from callboard.results.result import Result

if TYPE_CHECKING:
    from callboard.reports.result_page.listening import Listener, Tracks

RULE = (
    "Ordered by the points of LWLRAP that a recording loses: for each species confirmed in it, 1 minus the "
    "precision at the species' rank, over the number of confirmed pairs of all recordings. Solid boxes are "
    "annotations that an expert confirmed (TP), dashed ones those that were rejected (FP)."
)
SCORES_RULE = (
    "Beneath, on the same seconds, is what the network of the recording's own fold says, which never trained "
    "on it: the framewise score of the species missed (green) and of the highest-ranked species that nobody "
    "confirmed (red), the mean over the windows that cover the moment, without test-time masks; then how "
    "attention weighs the moment within its window. Shaded: where the missed species was confirmed."
)

NO_SPECTROGRAMS = "Nothing is drawn: the network's input were embeddings, of which there is no spectrogram."


class DrawingParams(Params):
    """What of params.yaml says how the frames came to be and how windows are laid."""

    front_end: FrontEndParams
    predict: PredictParams


def worst_blocks(result: Result, evidence: Evidence, n_shown: int, with_scores: bool) -> Iterator[PageBlock]:
    """A figure per recording, or a sentence where frames are embeddings.

    Raises:
        UserError: the mel cache of the result is gone.
    """
    mistakes = worst_recordings(evidence, n_shown)
    if not mistakes:
        yield Text("None costs anything: every confirmed species is ranked first.")
        return
    params = read_params(result)
    if params.front_end.features.kind != "log_mel":
        yield Text(NO_SPECTROGRAMS)
        for place, mistake in enumerate(mistakes, start=1):
            sentences = describe_mistake(mistake, len(evidence.species))
            yield Text(f"{place}. Recording {mistake.recording_id}, fold {mistake.fold}. {sentences}")
        return
    with ExitStack() as stack:
        cache = MelCache.open(stack.enter_context(result.folder("data/mel")) / "train")
        listener, why_not = _listener(result) if with_scores else (None, "--no-scores")
        yield Text(RULE)
        yield Text(f"Scores and attention are left out: {why_not}." if why_not else SCORES_RULE)
        for place, mistake in enumerate(mistakes, start=1):
            yield _draw(place, mistake, cache, evidence, params, listener)


def read_params(result: Result) -> DrawingParams:
    """Front end and windows, as the result's own params.yaml has them."""
    front_end = result.sections("audio", "features")
    predict = result.sections("predict")
    return validate(DrawingParams, {"front_end": front_end, **predict}, "params.yaml")


def _listener(result: Result) -> "tuple[Listener | None, str]":
    """The networks, or why there are none."""
    from callboard.reports.result_page.listening import read_listener

    try:
        return read_listener(result), ""
    except UserError as error:
        return None, str(error)


def _draw(
    place: int,
    mistake: Mistake,
    cache: MelCache,
    evidence: Evidence,
    params: DrawingParams,
    listener: "Listener | None",
) -> PageBlock:
    recording_id = mistake.recording_id
    tracks, why_not = _tracks(mistake, cache, params, listener)
    clips = evidence.clips
    scene = SpectrogramScene(
        recording_id=recording_id,
        frames=cache.read(recording_id),
        boxes=clips[clips["recording_id"] == recording_id],
        front_end=params.front_end,
        tracks=tracks,
        columns={name: evidence.species.index(name) for name in (mistake.missed, mistake.wrong)},
    )
    title = f"{place}. Recording {recording_id}, fold {mistake.fold}"
    return Figures(
        [draw_scene(scene)], describe_mistake(mistake, len(evidence.species)) + why_not, title, is_wide=True
    )


def _tracks(
    mistake: Mistake, cache: MelCache, params: DrawingParams, listener: "Listener | None"
) -> "tuple[Tracks | None, str]":
    """What the network of the recording's fold says, or a sentence why it says nothing."""
    if listener is None:
        return None, ""
    try:
        return listener.hear(mistake.recording_id, mistake.fold, cache, params.predict), ""
    except UserError as error:
        return None, f" No scores: {error}."


def describe_mistake(mistake: Mistake, n_species: int) -> str:
    """What went wrong, in a sentence."""
    others = [name for name in mistake.species if name != mistake.missed]
    known = "an expert rejected it here" if mistake.is_rejected else "nobody has judged it here"
    also = f"; species {', '.join(others)} confirmed too" if others else ""
    return (
        f"Species {mistake.missed} was confirmed, but is ranked {mistake.rank} of {n_species} "
        f"(score {mistake.missed_score:.2f}){also}. First of the others is species {mistake.wrong} "
        f"({mistake.wrong_score:.2f}): {known}. Costs {mistake.lost:.4f} of LWLRAP."
    )
