"""A detector: networks, with all that turns recordings into their scores."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, NamedTuple, Self

import numpy as np
import pandas as pd
import soundfile
from numpy.typing import NDArray

from callboard.core.errors import UserError
from callboard.core.parts import part_key
from callboard.core.threads import n_workers
from callboard.data.audio import BadRecording
from callboard.features.encoding import encode_files
from callboard.features.frame_cache import EncodedRecording, MelCache, pack_name, write_index, write_pack
from callboard.features.front_ends import frames_of
from callboard.params.base import validate
from callboard.params.features import FrontEndParams
from callboard.params.scoring import InferParams
from callboard.params.training import ClipParams
from callboard.scoring.detector_file import PART_SECTIONS, PartEntry, StackEntry, read_detector_file
from callboard.scoring.onnx_networks import DEFAULT_ENGINE, OnnxNetwork, OnnxRunner, OnnxSession
from callboard.scoring.parts import AnyNetwork, NetworkRunner, ScoreParams, plan_parts, score_parts
from callboard.scoring.prevalence import with_odds_times
from callboard.scoring.set_scores import (
    RECORDING_TABLE,
    SKIPPED_TABLE,
    WINDOW_TABLE,
    SetScores,
    table_of_recordings,
    table_of_windows,
)
from callboard.scoring.stacking import Stack
from callboard.scoring.window_scores import Probabilities, join_scores, recording_scores, window_means

MAX_CHANNELS = 64
"""Most channels of samples; more are taken for samples in the wrong order."""


@dataclass(frozen=True)
class Networks(Generic[AnyNetwork]):
    """The networks of a result that is not a blend."""

    front_end: FrontEndParams
    score: ScoreParams
    infer: InferParams
    models: Sequence[AnyNetwork]
    digests: tuple[str, ...]
    """Digest of each network's file."""
    runner: NetworkRunner[AnyNetwork]
    factors: NDArray[np.float64] | None = None
    """(species,) factors of odds, in the order of the detector, of a part of a blend that was rescaled."""

    @property
    def key(self) -> str:
        """Digest of all that its scores depend on, code aside; parameters count unless they are the default.

        So a later version with a new parameter, whose default is what held before, continues a folder.
        """
        sections = (self.front_end, self.score, self.infer)
        factors = [] if self.factors is None else [f"{self.factors.tolist()}"]
        return part_key(
            *(section.model_dump_json(exclude_defaults=True) for section in sections), *self.digests, *factors
        )

    def here(self) -> "Networks[AnyNetwork]":
        """Return the networks on the device of this machine."""
        models, runner = self.runner.here(self.models)
        return replace(self, models=models, runner=runner)

    def scores(self, cache: MelCache, recording_ids: Sequence[str], species: Sequence[str]) -> SetScores:
        """Score some recordings, of which there can be none.

        Args:
            cache: Frames that `front_end` made.
            recording_ids: Recordings of the cache.
            species: Species of the result, in order.
        """
        if self.models[0].clip.mode == "full":  # a window is a recording, not as long as the longest of them
            caches = [cache.only(recording_id) for recording_id in recording_ids] or [cache.only()]
        else:
            caches = [cache.only(*recording_ids)]
        parts = [
            part for each in caches for part in plan_parts(self.models, each, each.recording_ids, self.score)
        ]
        scored = score_parts(parts, self.runner, shows_progress=False)
        scores = join_scores(list(scored))
        order = [self.models[0].species.index(name) for name in species]
        end_frame = np.concatenate([part.batches.start_frame + part.batches.clip_frames for part in parts])
        of_recordings, of_windows = (
            found if self.factors is None else with_odds_times(found, self.factors)
            for found in (
                recording_scores(scores, self.infer)[:, order],
                window_means(scores, self.infer)[:, order],
            )
        )
        return SetScores(
            of_recordings,
            of_windows,
            scores.recording,
            scores.start_frame / self.front_end.frames_per_s,
            end_frame / self.front_end.frames_per_s,
        )


@dataclass(frozen=True)
class Detector:
    """Networks of a result, or of the parts of a blend, and how their scores become one.

    `Detector.load` opens a file of `callboard export`, for which neither torch nor a workspace is needed.
    """

    reference: str
    """`name@key` of the result."""
    species: list[str]
    parts: list[Networks[Any]]
    weights: list[float]
    """Weight of each part in the mean."""
    stack: Stack | None
    """Combination of the parts, instead of a mean."""
    factors: NDArray[np.float64] | None
    """(species,) factors of odds."""
    thresholds: dict[str, float] = field(default_factory=dict)
    """By species, the lowest score that counts as a detection, as far as the file has them."""

    @classmethod
    def load(cls, path: Path | str, engine: str = DEFAULT_ENGINE) -> Self:
        """Open a detector that `callboard export` wrote.

        Args:
            path: The file.
            engine: What runs its networks: `onnxruntime` or `openvino`.

        Raises:
            UserError: The file is missing or damaged, a newer callboard wrote it, or the engine is not
                installed.

        Example:
            >>> detector = Detector.load("exp0051.zip")  # doctest: +SKIP
            >>> recording, windows = detector.predict("20260601_060000.wav")  # doctest: +SKIP
        """
        manifest, networks = read_detector_file(Path(path))
        stack = manifest.stack
        return cls(
            manifest.result,
            manifest.species,
            [_exported_part(part, networks, engine, path) for part in manifest.parts],
            manifest.weights,
            None if stack is None else _stack(stack),
            None if manifest.factors is None else np.array(manifest.factors),
            manifest.thresholds,
        )

    def predict(
        self, recording: Path | str | NDArray[np.floating], sample_rate: int | None = None
    ) -> "RecordingScores":
        """Score a recording.

        Args:
            recording: A file of any length; or samples (n,) or (n, channels) in [-1, 1].
            sample_rate: Rate of samples, Hz; of a file, its header has it.

        Raises:
            UserError: The recording cannot be used, or samples are of a different form.
        """
        with TemporaryDirectory(prefix="callboard-") as scratch:
            path = Path(scratch, "samples.wav")
            if isinstance(recording, Path | str):
                path = Path(recording)
            else:
                _write_samples(path, recording, sample_rate)
            tables, _ = self.tables([(path.name, path)], 0.0, Path(scratch))
        if reasons := tables[SKIPPED_TABLE]["reason"].tolist():
            raise UserError(f"{path.name}: {reasons[0]}")
        return RecordingScores(
            *(tables[name].drop(columns="recording") for name in (RECORDING_TABLE, WINDOW_TABLE))
        )

    @property
    def key(self) -> str:
        """Digest of all that its scores depend on, code and what computes them aside.

        An exported detector has a different key from its result's, since the scores of their networks differ
        by rounding.
        """
        return part_key(
            *(part.key for part in self.parts), ",".join(self.species), f"{self.weights}", *self._fitted()
        )

    @property
    def band_hz(self) -> tuple[float, float]:
        """Lowest and highest frequency that a part analyses."""
        bands = [part.front_end.band_hz for part in self.parts]
        return min(low for low, _ in bands), max(high for _, high in bands)

    def _fitted(self) -> list[str]:
        stacked = [] if self.stack is None else [self.stack.weights, self.stack.bias]
        factors = [] if self.factors is None else [self.factors]
        return [f"{values.tolist()}" for values in (*stacked, *factors)]

    def here(self) -> "Detector":
        """Return the detector with its networks on the device of this machine."""
        return replace(self, parts=[part.here() for part in self.parts])

    def combined(self, scores: Sequence[SetScores]) -> SetScores:
        """Combine the scores of all parts; the windows are those of the first part.

        A window gets from a part with other windows the score of that one whose middle is the nearest.
        """
        first = scores[0]
        aligned = [first.of_windows, *(_at_windows_of(first, other) for other in scores[1:])]
        return first._replace(
            of_recordings=self._combine(np.array([each.of_recordings for each in scores])),
            of_windows=self._combine(np.array(aligned)),
        )

    def _combine(self, parts: Probabilities) -> Probabilities:
        """Return (rows, species) of (parts, rows, species)."""
        if self.stack is not None:
            scores = self.stack.scores(parts)
        else:
            scores = np.average(parts, axis=0, weights=self.weights)
        return scores if self.factors is None else with_odds_times(scores, self.factors)

    def tables(
        self, files: Sequence[tuple[str, Path]], floor: float, scratch: Path
    ) -> tuple[dict[str, pd.DataFrame], float]:
        """Score recordings.

        Args:
            files: Their names and paths.
            floor: Probability from which a window's score is kept.
            scratch: Empty folder for frames.

        Returns:
            The tables by name, and the length of the scored recordings in seconds. recordings: recording,
            length_s, species, score. windows: recording, start_s, end_s, species, score. skipped: recording,
            reason.
        """
        front_ends = list(dict.fromkeys(part.front_end for part in self.parts))
        frames = {
            front_end: _make_frames(files, front_end, scratch / str(number))
            for number, front_end in enumerate(front_ends)
        }
        reasons = {name: why for made in reversed(frames.values()) for name, why in made.reasons.items()}
        names = [name for name, _ in files if name not in reasons]
        length_s = np.array([frames[front_ends[0]].length_s[name] for name in names])
        scores = self.combined(
            [part.scores(frames[part.front_end].cache, names, self.species) for part in self.parts]
        )
        skipped = pd.DataFrame({"recording": list(reasons), "reason": list(reasons.values())}, dtype=str)
        return {
            RECORDING_TABLE: table_of_recordings(names, length_s, scores, self.species),
            WINDOW_TABLE: table_of_windows(names, length_s, scores, self.species, floor),
            SKIPPED_TABLE: skipped,
        }, float(length_s.sum())


def _write_samples(path: Path, samples: NDArray[np.floating], sample_rate: int | None) -> None:
    values = np.asarray(samples)
    if sample_rate is None or not float(sample_rate).is_integer() or sample_rate < 1:
        raise UserError(f"samples need a sample_rate, a whole number of Hz, found {sample_rate!r}")
    if not np.issubdtype(values.dtype, np.floating):
        raise UserError(f"samples must be floating-point numbers from -1 to 1, found {values.dtype}")
    if values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[1] > MAX_CHANNELS):
        raise UserError(f"samples must be (n,) or (n, up to {MAX_CHANNELS} channels), found {values.shape}")
    soundfile.write(path, values.astype(np.float32), int(sample_rate), "FLOAT")


class RecordingScores(NamedTuple):
    """Scores of one recording."""

    recording: pd.DataFrame
    """length_s, species, score: of the whole."""
    windows: pd.DataFrame
    """start_s, end_s, species, score: of each window."""


def _stack(entry: StackEntry) -> Stack:
    return Stack(np.array(entry.weights), np.array(entry.bias), np.array(entry.is_fitted))


def _exported_part(
    part: PartEntry, networks: Mapping[str, bytes], engine: str, path: Path | str
) -> Networks[OnnxNetwork]:
    sections = {name: part.params.get(name, {}) for name in PART_SECTIONS}
    models = [
        OnnxNetwork(
            part.species,
            entry.fold,
            validate(ClipParams, entry.clip, f"{path}: clip"),
            OnnxSession(networks[entry.file], engine, f"{path}: {entry.file}"),
        )
        for entry in part.networks
    ]
    return Networks(
        validate(FrontEndParams, {name: sections[name] for name in ("audio", "features")}, path),
        validate(ScoreParams, {name: sections[name] for name in ("seed", "augment", "predict")}, path),
        validate(InferParams, sections["infer"], path),
        models,
        tuple(hashlib.sha256(networks[entry.file]).hexdigest() for entry in part.networks),
        OnnxRunner(),
        None if part.factors is None else np.array(part.factors),
    )


def _at_windows_of(first: SetScores, other: SetScores) -> Probabilities:
    rows = np.empty(len(first.recording), np.int64)
    for recording in range(len(first.of_recordings)):
        wanted, found = first.recording == recording, np.flatnonzero(other.recording == recording)
        middles, others = ((each.start_s + each.end_s) / 2 for each in (first, other))
        rows[wanted] = found[np.abs(middles[wanted, None] - others[found]).argmin(axis=1)]
    return other.of_windows[rows]


class _Frames(NamedTuple):
    """Frames of recordings, as one front end makes them."""

    cache: MelCache
    length_s: dict[str, float]
    """By recording."""
    reasons: dict[str, str]
    """Recordings that cannot be used, and why."""


def _make_frames(files: Sequence[tuple[str, Path]], front_end: FrontEndParams, folder: Path) -> _Frames:
    length_s: dict[str, float] = {}
    reasons: dict[str, str] = {}
    audio = front_end.audio
    channel = "mean" if audio.channel is None else audio.channel
    any_form = audio.model_copy(update={"on_other_rate": "resample", "channel": channel})
    front_end = front_end.model_copy(update={"audio": any_form})

    def usable() -> Iterator[EncodedRecording]:
        for outcome, seconds in encode_files(files, front_end, folder, n_workers()):
            if isinstance(outcome, BadRecording):
                reasons[outcome.recording_id] = outcome.reason
            else:
                length_s[outcome.recording_id] = seconds
                yield outcome

    folder.mkdir()
    write_index(folder, [write_pack(folder / pack_name(0), usable(), frames_of(front_end).n_rows)])
    return _Frames(MelCache.open(folder), length_s, reasons)
