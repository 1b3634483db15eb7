"""The recordings that cost most: spectrograms with annotations and scores, and a description of each."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from callboard.core.errors import UserError
from callboard.features.frame_cache import MelCache
from callboard.features.log_mel import mel_centres
from callboard.params.base import Params, validate
from callboard.params.features import FrontEndParams
from callboard.params.scoring import PredictParams
from callboard.reports.result_page.drawing import BETTER, WORSE, as_svg, rows_of_panels
from callboard.reports.result_page.evidence import Evidence, Mistake, worst_recordings
from callboard.reports.result_page.page import Figures, PageBlock, Text
from callboard.reports.text import species_label
from callboard.results.result import Result

if TYPE_CHECKING:
    from callboard.reports.result_page.listening import Listener, Tracks

RULE = (
    "Ordered by the points of LWLRAP that a recording loses: for each species confirmed in it, 1 minus the "
    "precision at the species' rank, divided by the number of confirmed pairs in all recordings. Solid boxes "
    "are annotations that an annotator confirmed (TP), dashed boxes those that one rejected (FP)."
)
SCORES_RULE = (
    "Below, on the same time axis, are scores of the network of the recording's fold, which never trained on "
    "it: the framewise score of the missed species (green) and of the highest-ranked species that nobody "
    "confirmed (red), each the mean over the windows that cover the moment, without test-time masks; then "
    "the weight that attention gives the moment within its window. Where the missed species was confirmed is "
    "shaded."
)

NO_SPECTROGRAMS = "Nothing is drawn: the input of the network was embeddings, which have no spectrogram."

WIDTH_INCHES = 10.4
HEIGHTS_INCHES = (2.7, 1.15, 0.9)
MAX_COLUMNS = 1000
"""Maximum width of the image; in longer recordings each column shows its loudest frames."""
N_LEVELS = 24
"""Levels of the image; steps of 3 dB compress to half the size of 255 levels."""
TICKS_HZ = (250, 500, 1000, 2000, 4000, 8000, 16000)
LABEL_SHARE = (0.045, 0.085)
"""Share of the image's width and height that the label of a box takes up."""
TP_COLOUR, FP_COLOUR = "#3ddc84", "#ff9d5c"
"""Colours of boxes and their labels on the dark background of spectrograms."""


class DrawingParams(Params):
    """Sections of params.yaml that define the frames and the windows over them."""

    front_end: FrontEndParams
    predict: PredictParams


def worst_blocks(result: Result, evidence: Evidence, n_shown: int, with_scores: bool) -> Iterator[PageBlock]:
    """Draw a figure for each recording, or only describe it if frames are embeddings.

    Raises:
        UserError: the mel cache of the result is missing.
    """
    mistakes = worst_recordings(evidence, n_shown)
    if not mistakes:
        yield Text("No recording costs anything: every confirmed species is ranked first.")
        return
    params = read_params(result)
    if params.front_end.features.kind != "log_mel":
        yield Text(NO_SPECTROGRAMS)
        for place, mistake in enumerate(mistakes, start=1):
            sentences = describe_mistake(mistake, len(evidence.species))
            yield Text(f"{place}. Recording {mistake.recording_id}, fold {mistake.fold}. {sentences}")
        return
    with ExitStack() as stack:
        cache = MelCache.open(stack.enter_context(result.folder("data/mel", "train/")) / "train")
        listener, why_not = _listener(result) if with_scores else (None, "--no-scores")
        yield Text(RULE)
        yield Text(f"Scores and attention are left out: {why_not}." if why_not else SCORES_RULE)
        for place, mistake in enumerate(mistakes, start=1):
            yield _draw(place, mistake, cache, evidence, params, listener)


def read_params(result: Result) -> DrawingParams:
    """Read front end and windows from the result's own params.yaml."""
    front_end = result.sections("audio", "features")
    predict = result.sections("predict")
    return validate(DrawingParams, {"front_end": front_end, **predict}, "params.yaml")


def _listener(result: Result) -> "tuple[Listener | None, str]":
    """Load the networks; return why not if that fails."""
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
    """Score the recording by the network of its fold; return a sentence on why not if that fails."""
    if listener is None:
        return None, ""
    try:
        return listener.hear(mistake.recording_id, mistake.fold, cache, params.predict), ""
    except UserError as error:
        return None, f" No scores: {error}."


def describe_mistake(mistake: Mistake, n_species: int) -> str:
    """Describe a mistake in a sentence."""
    missed = species_label(mistake.missed, "Species")
    others = [name for name in mistake.species if name != mistake.missed]
    known = "an annotator rejected it here" if mistake.is_rejected else "nobody judged it here"
    also = f"; also confirmed: {', '.join(others)}" if others else ""
    return (
        f"{missed} was confirmed, but is ranked {mistake.rank} of {n_species} "
        f"(score {mistake.missed_score:.2f}){also}. The highest of the others is "
        f"{species_label(mistake.wrong)} ({mistake.wrong_score:.2f}): {known}. "
        f"Costs {mistake.lost:.4f} of LWLRAP."
    )


if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from callboard.reports.result_page.listening import Tracks


@dataclass(frozen=True)
class SpectrogramScene:
    """A recording with everything to draw."""

    recording_id: str
    frames: NDArray[np.uint8]
    """(frames, mels), as in the cache."""
    boxes: pd.DataFrame
    """TP and FP annotations: label_type, species_id, t_min, t_max (s), f_min, f_max (Hz)."""
    front_end: FrontEndParams
    tracks: "Tracks | None"
    columns: Mapping[str, int]
    """Species to show, the missed one first, to its column of the tracks."""

    @property
    def seconds(self) -> NDArray[np.float64]:
        """(frames,) centre of each frame."""
        return np.arange(len(self.frames)) / self.front_end.frames_per_s

    def rows_of(self, hz: Iterable[float]) -> NDArray[np.float64]:
        """Convert frequencies to positions on the axis of mel rows."""
        centres = mel_centres(self.front_end.features)
        return np.interp(list(hz), centres, np.arange(len(centres)))


def draw_scene(scene: SpectrogramScene) -> Markup:
    """Draw spectrogram and boxes and, if known, scores and attention below on the same time axis."""
    heights = HEIGHTS_INCHES if scene.tracks else HEIGHTS_INCHES[:1]
    with rows_of_panels(WIDTH_INCHES, heights) as (figure, panels):
        _draw_image(panels[0], scene)
        _draw_boxes(panels[0], scene)
        if scene.tracks:
            _draw_scores(panels[1], scene, scene.tracks)
            _draw_attention(panels[2], scene, scene.tracks)
            for axes in panels[1:]:
                _shade_confirmed(axes, scene)
        panels[-1].set_xlabel("time, s")
        panels[-1].set_xlim(0, len(scene.frames) / scene.front_end.frames_per_s)
        species = " and ".join(map(species_label, scene.columns))
        alt = f"spectrogram of recording {scene.recording_id} with annotated boxes; scores of {species}"
        return as_svg(figure, f"recording-{scene.recording_id}", alt)


def loudest(frames: NDArray[np.uint8], max_columns: int = MAX_COLUMNS) -> NDArray[np.uint8]:
    """Pool (frames, mels) to at most `max_columns` columns, (columns, mels), by the maximum."""
    n_together = -(-len(frames) // max_columns)
    starts = np.arange(0, len(frames), n_together)
    pooled: NDArray[np.uint8] = np.maximum.reduceat(frames, starts, axis=0)
    return pooled


def _draw_image(axes: "Axes", scene: SpectrogramScene) -> None:
    image = loudest(scene.frames).T
    levels = np.round(image / 255 * (N_LEVELS - 1)) / (N_LEVELS - 1)
    duration = len(scene.frames) / scene.front_end.frames_per_s
    extent = (0, duration, -0.5, len(image) - 0.5)
    low = float(np.quantile(levels, 0.05))
    axes.imshow(
        levels,
        cmap="magma",
        aspect="auto",
        origin="lower",
        extent=extent,
        interpolation="none",
        vmin=low,
        vmax=1,
    )
    features = scene.front_end.features
    ticks = [hz for hz in TICKS_HZ if features.f_min <= hz <= features.f_max]
    axes.set_yticks(scene.rows_of(ticks), [f"{hz / 1000:g}" for hz in ticks])
    axes.set_ylabel("frequency, kHz")


def _draw_boxes(axes: "Axes", scene: SpectrogramScene) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    labels: list[tuple[float, float]] = []
    for box in scene.boxes.sort_values("f_max", ascending=False).to_dict("records"):
        low, high = scene.rows_of([box["f_min"], box["f_max"]])
        is_tp = box["label_type"] == "tp"
        colour = TP_COLOUR if is_tp else FP_COLOUR
        place, width = (box["t_min"], low), box["t_max"] - box["t_min"]
        dashes = "-" if is_tp else (0, (4, 2))
        axes.add_patch(
            Rectangle(place, width, high - low, fill=False, edgecolor=colour, linewidth=1.6, linestyle=dashes)
        )
        text = f"{box['species_id']}" if is_tp else f"not {box['species_id']}"
        axes.annotate(
            text,
            _free_place(labels, box["t_min"], high, scene),
            (2, 2),
            textcoords="offset points",
            color=colour,
            weight="bold",
            fontsize=9,
            annotation_clip=True,
            path_effects=[withStroke(linewidth=2.5, foreground="#000000")],
        )


def _free_place(
    taken: list[tuple[float, float]], time: float, row: float, scene: SpectrogramScene
) -> tuple[float, float]:
    """Find a place in the image where a label covers no other, and add it to `taken`."""
    width = LABEL_SHARE[0] * len(scene.frames) / scene.front_end.frames_per_s
    height = LABEL_SHARE[1] * scene.frames.shape[1]
    row = min(row, scene.frames.shape[1] - height)
    while any(abs(time - other) < width and abs(row - below) < height for other, below in taken):
        row -= height
    taken.append((time, row))
    return time, row


def _draw_scores(axes: "Axes", scene: SpectrogramScene, tracks: "Tracks") -> None:
    for colour, (species, column) in zip((BETTER, WORSE), scene.columns.items(), strict=False):
        framewise, segmentwise = tracks.framewise[:, column], tracks.segmentwise[:, column]
        axes.plot(scene.seconds, framewise, color=colour, label=species_label(species))
        if not np.allclose(framewise, segmentwise, atol=1e-4):
            axes.plot(
                scene.seconds, segmentwise, color=colour, linestyle=":", label=f"{species}, segmentwise"
            )
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("score")
    axes.grid(axis="y")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.93), fontsize=9, ncols=4, handlelength=1.2)


def _draw_attention(axes: "Axes", scene: SpectrogramScene, tracks: "Tracks") -> None:
    for colour, column in zip((BETTER, WORSE), scene.columns.values(), strict=False):
        axes.plot(scene.seconds, tracks.attention[:, column], color=colour)
    axes.set_ylabel("attention")
    axes.margins(y=0.1)
    axes.grid(axis="y")


def _shade_confirmed(axes: "Axes", scene: SpectrogramScene) -> None:
    """Shade the seconds in which an annotator confirmed the missed species."""
    missed = next(iter(scene.columns))
    boxes = scene.boxes[(scene.boxes["label_type"] == "tp") & (scene.boxes["species_id"] == missed)]
    for start, end in zip(boxes["t_min"], boxes["t_max"], strict=True):
        axes.axvspan(start, end, color=BETTER, alpha=0.15, linewidth=0)
