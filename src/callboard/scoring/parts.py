"""Parts of a set of recordings, and the scores that networks give their windows, whatever runs the networks.

A part decides what a network sees together. Windows are streamed: one batch of them is in memory at a time,
and only scores are kept.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from callboard.core import console as terminal
from callboard.core.errors import UserError
from callboard.core.machine import named_if_out_of_memory
from callboard.core.parts import consecutive
from callboard.core.threads import VARIABLE, ahead
from callboard.features.frame_cache import MelCache
from callboard.params.base import DEFAULT_SEED, Params, Seed
from callboard.params.scoring import PredictParams
from callboard.params.training import AugmentParams, ClipParams
from callboard.scoring.window_batches import WindowBatch, WindowBatches
from callboard.scoring.window_scores import HEADS, WindowScores

MAX_BATCHES_AT_ONCE = 8
"""Limit on batches that a CPU scores side by side, each with its own feature maps in memory."""

PART_FRAMES = 4_000_000
"""Size of a part: frames of windows times models, some minutes of work for two processors and a ResNet."""


class ScoreParams(Params):
    """The parameters that scores depend on, apart from networks and recordings."""

    seed: Seed = DEFAULT_SEED
    augment: AugmentParams
    predict: PredictParams


class Network(Protocol):
    """A trained network."""

    @property
    def species(self) -> list[str]:
        """The class axis."""

    @property
    def fold(self) -> int:
        """The fold that the network has not seen."""

    @property
    def clip(self) -> ClipParams:
        """Section that sets its windows."""


AnyNetwork = TypeVar("AnyNetwork", bound=Network)


class NetworkOutput(NamedTuple):
    """Logits of a network for a batch of windows."""

    attention: NDArray[np.float32]
    """(batch, species) clipwise."""
    max: NDArray[np.float32]
    """(batch, species) clipwise."""
    segment: NDArray[np.float32]
    """(batch, segments, species)."""
    frequency: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    """`attention` and `max` of the frequency head if there is one."""


class NetworkRunner(Protocol[AnyNetwork]):
    """Runs networks."""

    @property
    def n_at_once(self) -> int:
        """Number of batches that are run side by side, each in its own thread."""

    def here(
        self, networks: Sequence[AnyNetwork]
    ) -> tuple[Sequence[AnyNetwork], "NetworkRunner[AnyNetwork]"]:
        """Return networks and runner for the device of this machine."""

    def run(
        self, networks: Sequence[AnyNetwork], batch: WindowBatch, first_window: int
    ) -> list[NetworkOutput]:
        """Return the output of each network; `first_window` is the batch's position in its set."""


class ScorePart(NamedTuple, Generic[AnyNetwork]):
    """Recordings that some networks score together."""

    models: Sequence[AnyNetwork]
    """M networks with the same species, clips and heads."""
    batches: WindowBatches
    first_window: int
    """Position of its first window among those of its set, on which test-time augmentation depends."""
    fold: int | None
    """Fold of the recordings, if each was scored by the model that holds it out."""


def plan_parts(
    models: Sequence[AnyNetwork],
    cache: MelCache,
    recording_ids: Sequence[str],
    params: ScoreParams,
    fold: int | None = None,
) -> list[ScorePart[AnyNetwork]]:
    """Divide recordings into parts of up to PART_FRAMES; without recordings, there is one empty part.

    Raises:
        UserError: A recording is not in the cache.
    """
    clip = models[0].clip
    everything = WindowBatches.plan(cache, recording_ids, clip, params.predict)
    n_windows = np.bincount(everything.recording, minlength=len(recording_ids))
    first_window = np.cumsum([0, *n_windows])
    frames_per_window = everything.clip_frames * len(models)
    return [
        ScorePart(
            models,
            WindowBatches.plan(cache, recording_ids[span], clip, params.predict),
            int(first_window[span.start]),
            fold,
        )
        for span in consecutive((n_windows * frames_per_window).tolist(), PART_FRAMES)
    ]


def score_parts(
    parts: Sequence[ScorePart[AnyNetwork]], runner: NetworkRunner[AnyNetwork], *, shows_progress: bool = True
) -> Iterator[WindowScores]:
    """Score every window with every network, and yield the scores of each part; each recording is read once.

    Batches are spread over the runner's threads, which changes no number, unlike threads within an operation.
    No batch has windows of two parts.

    Args:
        parts: Parts, in the order to score them.
        runner: Runner of their networks.
        shows_progress: Whether to show it, by batches.
    """

    def score(job: tuple[ScorePart[AnyNetwork], WindowBatch]) -> ScoredBatch:
        part, batch = job
        with named_if_out_of_memory("prediction", f"lower predict.batch_size or set {VARIABLE}=1"):
            outputs = runner.run(part.models, batch, part.first_window + batch.rows.start)
        return _scored(batch, outputs)

    jobs = ((part, batch) for part in parts for batch in part.batches)
    scored = ahead(score, jobs, runner.n_at_once, n_ahead=runner.n_at_once + 1)
    n_batches = sum(len(part.batches) for part in parts)
    if shows_progress:
        scored = terminal.progress(scored, total=n_batches, label="predict", unit="batches")
    for part in parts:  # threads go on with the next part meanwhile
        yield _collect(part, islice(scored, len(part.batches)))


class ScoredBatch(NamedTuple):
    """Scores of a batch's windows."""

    rows: slice
    """Positions of the windows in their part."""
    heads: dict[str, NDArray[np.float32]]
    """Logits (batch, models, species) by head; with those of a frequency head if there is one."""
    peak: NDArray[np.int32]
    """(batch, models, species) frame in the window at the centre of the segment with the largest logit."""


def _scored(batch: WindowBatch, outputs: Sequence[NetworkOutput]) -> ScoredBatch:
    of_networks = [_by_head(output) for output in outputs]
    heads = {name: np.stack([heads[name] for heads in of_networks], axis=1) for name in of_networks[0]}
    n_frames = batch.frames.shape[1]
    return ScoredBatch(batch.rows, heads, np.stack([_peak(one.segment, n_frames) for one in outputs], axis=1))


def _by_head(output: NetworkOutput) -> dict[str, NDArray[np.float32]]:
    heads = {"attention": output.attention, "max": output.max, "segment_max": output.segment.max(axis=1)}
    if output.frequency is not None:
        heads["frequency_attention"], heads["frequency_max"] = output.frequency
    return heads


def _peak(segment: NDArray[np.float32], n_frames: int) -> NDArray[np.int32]:
    """Return (batch, species) of (batch, segments, species)."""
    middle = segment.argmax(axis=1).astype(np.float32) + np.float32(0.5)
    frame: NDArray[np.int32] = (middle * np.float32(n_frames / segment.shape[1])).astype(np.int32)
    return frame


def _collect(part: ScorePart[AnyNetwork], scored: Iterable[ScoredBatch]) -> WindowScores:
    first, batches = part.models[0], part.batches
    shape = (len(batches.recording), len(part.models), len(first.species))
    heads = {name: np.empty(shape, dtype=np.float32) for name in HEADS}
    peak_frame = np.empty(shape, dtype=np.int32)
    for rows, logits, peak in scored:
        for name, values in logits.items():
            if np.isnan(values).any():
                fold = part.models[int(np.isnan(values).any(axis=(0, 2)).argmax())].fold
                raise UserError(f"the network of fold {fold} gives scores that are NaN; lower optim.lr")
            if name not in heads:  # heads of a frequency head, known only after the first batch
                heads[name] = np.empty(shape, dtype=np.float32)
            heads[name][rows] = values
        peak_frame[rows] = batches.start_frame[rows, None, None] + peak
    return WindowScores(
        recording_ids=batches.recording_ids,
        species=list(first.species),
        recording=batches.recording,
        start_frame=batches.start_frame,
        heads=heads,
        peak_frame=peak_frame,
        fold=None if part.fold is None else np.full(len(batches.recording_ids), part.fold, dtype=np.int64),
    )
