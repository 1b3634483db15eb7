"""Window scores of whole recordings, and their pooling to one score per recording and species.

Letters in shapes: R recordings, N windows of all recordings, M models, S species.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.core.reading import reading
from callboard.params.scoring import InferParams

HEADS = ("attention", "max", "segment_max")
"""The clipwise outputs stored for every window; segment_max is the largest segmentwise logit."""

FREQUENCY_HEADS = ("frequency_attention", "frequency_max")
"""The clipwise outputs of the frequency head, stored if the models have one."""

HEAD_WEIGHTS: dict[str, dict[str, float]] = {
    "attention": {"attention": 1.0},
    "max": {"max": 1.0},
    "segment_max": {"segment_max": 1.0},
    "attention_max": {"attention": 0.5, "max": 0.5},
    "attention_max_frequency": {
        "attention": 0.4,
        "max": 0.4,
        "frequency_attention": 0.1,
        "frequency_max": 0.1,
    },
}
"""By infer.head, the weight of each head's probability in a window's probability."""

Number = TypeVar("Number", np.int32, np.int64, np.float32)

Probabilities = NDArray[np.float64]
"""Double precision: in single precision every logit above 17 would give 1.0; ties take their worst rank."""


@dataclass(frozen=True)
class WindowScores:
    """Logits of every window of a set of recordings, with windows in the order of their recordings.

    Raises:
        ValueError: Arrays do not fit together, windows are out of order or missing, or a logit is NaN.
    """

    recording_ids: list[str]
    """R ids, each once."""
    species: list[str]
    """S ids, the class axis."""
    recording: NDArray[np.int32]
    """(N,) index into `recording_ids`, ascending."""
    start_frame: NDArray[np.int32]
    """(N,) first frame of the window in its recording."""
    heads: dict[str, NDArray[np.float32]]
    """(N, M, S) logits of each of HEADS, and of FREQUENCY_HEADS if the models have a frequency head."""
    peak_frame: NDArray[np.int32]
    """(N, M, S) frame in the recording at the centre of the segment with the largest logit."""
    fold: NDArray[np.int64] | None
    """(R,) fold of each recording and of the one model that scored it; None = scored by all folds' models."""

    def __post_init__(self) -> None:
        n_recordings, n_windows = len(self.recording_ids), len(self.recording)
        if tuple(self.heads) not in (HEADS, HEADS + FREQUENCY_HEADS):
            raise ValueError(
                f"heads must be {HEADS}, or these and {FREQUENCY_HEADS}, found {tuple(self.heads)}"
            )
        expected = (n_windows, self.n_models, len(self.species))
        if shapes := {self.peak_frame.shape, *(logits.shape for logits in self.heads.values())} - {expected}:
            raise ValueError(
                f"heads and peak_frame must be (windows, models, species) {expected}, found {shapes}"
            )
        if self.start_frame.shape != (n_windows,):
            raise ValueError(f"start_frame must be ({n_windows},), found {self.start_frame.shape}")
        if len(set(self.recording_ids)) != n_recordings:
            raise ValueError("recording_ids must not repeat")
        if not np.array_equal(np.unique(self.recording), np.arange(n_recordings)):
            raise ValueError(
                f"recording must contain each of 0 … {n_recordings - 1}, as every recording has windows"
            )
        if (np.diff(self.recording) < 0).any():
            raise ValueError("recording must be ascending: windows of a recording must be adjacent")
        if self.fold is not None and (self.fold.shape != (n_recordings,) or self.n_models != 1):
            raise ValueError(
                f"fold must be ({n_recordings},) and needs exactly one model, found {self.fold.shape} "
                f"and {self.n_models} models"
            )
        if any(np.isnan(logits).any() for logits in self.heads.values()):
            raise ValueError("logits must not be NaN")

    @property
    def n_models(self) -> int:
        """Number of models M; 1 for out-of-fold scores."""
        return int(self.peak_frame.shape[1])

    @property
    def first_windows(self) -> NDArray[np.int64]:
        """(R,) index of each recording's first window."""
        return np.searchsorted(self.recording, np.arange(len(self.recording_ids))).astype(np.int64)

    def save(self, path: Path, writer: str = "") -> None:
        """Write as .npz; equal scores give equal bytes, and an interruption leaves no partial file.

        `writer` is as in `written_whole`.
        """
        arrays: dict[str, NDArray[np.generic]] = {
            "recording_ids": np.array(self.recording_ids, dtype=np.str_),
            "species": np.array(self.species, dtype=np.str_),
            "recording": self.recording,
            "start_frame": self.start_frame,
            "peak_frame": self.peak_frame,
            **{f"head_{name}": logits for name, logits in self.heads.items()},
        }
        if self.fold is not None:
            arrays["fold"] = self.fold
        with written_whole(path, writer) as unfinished, unfinished.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)


def join_scores(parts: Sequence[WindowScores]) -> WindowScores:
    """Join the scores of different recordings into one set.

    Raises:
        ValueError: The parts share a recording, or differ in species, heads or number of models.
    """
    if len(parts) == 1:
        return parts[0]
    if any(part.species != parts[0].species for part in parts):
        raise ValueError("the parts have different species")
    # without windows, no output shows whether there is a frequency head
    heads = {tuple(part.heads) for part in parts if len(part.recording)} or {HEADS}
    if len(heads) > 1:
        raise ValueError(f"the parts have different heads: {sorted(heads)}")
    n_recordings = [len(part.recording_ids) for part in parts]
    first_row = np.cumsum([0, *n_recordings[:-1]])
    fold = [part.fold for part in parts if part.fold is not None]
    return WindowScores(
        recording_ids=[recording_id for part in parts for recording_id in part.recording_ids],
        species=parts[0].species,
        recording=np.concatenate(
            [part.recording + row for part, row in zip(parts, first_row, strict=True)], dtype=np.int32
        ),
        start_frame=np.concatenate([part.start_frame for part in parts]),
        heads={
            name: np.concatenate([part.heads[name] for part in parts if name in part.heads])
            for name in heads.pop()
        },
        peak_frame=np.concatenate([part.peak_frame for part in parts]),
        fold=np.concatenate(fold) if fold else None,
    )


def load_scores(path: Path) -> WindowScores:
    """Load window scores written by `WindowScores.save`.

    Raises:
        UserError: The file is missing, or is not a file of window scores.
    """
    with (
        reading(path, "a file of window scores", missing="the predict stage writes it"),
        np.load(path) as arrays,
    ):
        return WindowScores(
            recording_ids=_texts(arrays["recording_ids"]),
            species=_texts(arrays["species"]),
            recording=_numbers(arrays["recording"], np.int32),
            start_frame=_numbers(arrays["start_frame"], np.int32),
            heads={name: _numbers(arrays[f"head_{name}"], np.float32) for name in _stored_heads(arrays)},
            peak_frame=_numbers(arrays["peak_frame"], np.int32),
            fold=_numbers(arrays["fold"], np.int64) if "fold" in arrays else None,
        )


def _texts(array: NDArray[Any]) -> list[str]:
    if array.dtype.kind != "U" or array.ndim != 1:
        raise ValueError(f"expected a list of texts, found {array.dtype} of shape {array.shape}")
    texts: list[str] = array.tolist()
    return texts


def _numbers(array: NDArray[Any], dtype: type[Number]) -> NDArray[Number]:
    """Return an array as it is if it has a type; TypeError if its values are of a different kind."""
    return array.astype(dtype, casting="same_kind", copy=False)


def _stored_heads(arrays: Container[str]) -> tuple[str, ...]:
    has_frequency_head = any(f"head_{name}" in arrays for name in FREQUENCY_HEADS)
    return HEADS + FREQUENCY_HEADS if has_frequency_head else HEADS


def window_probabilities(window_scores: WindowScores, head: str, temperature: float = 1.0) -> Probabilities:
    """Return (N, M, S) probabilities: those of the heads that `head` names, weighted by HEAD_WEIGHTS.

    Args:
        window_scores: Window scores with logits.
        head: A key of HEAD_WEIGHTS.
        temperature: Divisor of each head's logits.

    Raises:
        UserError: The models lack a required head.
    """
    if missing := sorted(HEAD_WEIGHTS[head].keys() - window_scores.heads.keys()):
        raise UserError(
            f"head {head}: the scores lack {', '.join(missing)}, as their models have no frequency "
            "head; train with model.frequency_head=true"
        )
    weighted = [
        weight * expit(window_scores.heads[name].astype(np.float64) / temperature)
        for name, weight in HEAD_WEIGHTS[head].items()
    ]
    probabilities: Probabilities = np.sum(weighted, axis=0)
    return probabilities


def recording_scores(window_scores: WindowScores, params: InferParams) -> Probabilities:
    """Return (R, S) probabilities: smoothed and pooled over each model's windows, then over models."""
    if not window_scores.recording_ids:  # reduceat needs at least one window
        return np.empty((0, len(window_scores.species)))
    pool = WINDOW_AGGREGATES[params.window_agg]
    per_model = pool(_smoothed_windows(window_scores, params), window_scores.first_windows)  # (R, M, S)
    return _over_models(per_model, window_scores, params)


def window_means(window_scores: WindowScores, params: InferParams) -> Probabilities:
    """Return (N, S) probabilities: smoothed, then pooled over models as those of recordings are."""
    if not window_scores.recording_ids:  # which do not show whether there is a frequency head
        return np.empty((0, len(window_scores.species)))
    return _over_models(_smoothed_windows(window_scores, params), window_scores, params)


def _smoothed_windows(window_scores: WindowScores, params: InferParams) -> Probabilities:
    """Return (N, M, S)."""
    probabilities = window_probabilities(window_scores, params.head, params.temperature)
    return (
        smoothed(probabilities, window_scores.recording, params.smoothing)
        if params.smoothing
        else probabilities
    )


def _over_models(per_model: Probabilities, window_scores: WindowScores, params: InferParams) -> Probabilities:
    """Return (rows, S) of (rows, M, S)."""
    if params.fold_weights and window_scores.fold is None:  # out of fold a recording has one model
        return np.average(per_model, axis=1, weights=params.fold_weights)
    pooled: Probabilities = FOLD_AGGREGATES[params.fold_agg](per_model, axis=1)
    return pooled


def smoothed(
    probabilities: Probabilities, recording: NDArray[np.int32], weights: Sequence[float]
) -> Probabilities:
    """Return the weighted mean of each window and its neighbours in the same recording.

    Args:
        probabilities: (N, M, S).
        recording: (N,) recording of each window, ascending.
        weights: An odd number of weights; the middle one is for the window itself, those before it are for
            earlier windows. If a neighbour is missing, the other weights are rescaled to the same sum.
    """
    total = np.zeros_like(probabilities)
    weight_sum = np.zeros(len(recording))
    n_windows, middle = len(recording), len(weights) // 2
    for index, weight in enumerate(weights):
        offset = index - middle
        here = np.arange(max(0, -offset), min(n_windows, n_windows - offset))
        here = here[recording[here] == recording[here + offset]]
        total[here] += weight * probabilities[here + offset]
        weight_sum[here] += weight
    mean: Probabilities = total / weight_sum[:, None, None]
    return mean


def _max_over_windows(probabilities: Probabilities, first_windows: NDArray[np.int64]) -> Probabilities:
    largest: Probabilities = np.maximum.reduceat(probabilities, first_windows, axis=0)
    return largest


def _mean_over_windows(probabilities: Probabilities, first_windows: NDArray[np.int64]) -> Probabilities:
    n_windows = np.diff(first_windows, append=len(probabilities))
    total = np.add.reduceat(probabilities, first_windows, axis=0)
    mean: Probabilities = total / n_windows[:, None, None]
    return mean


WINDOW_AGGREGATES = {"max": _max_over_windows, "mean": _mean_over_windows}
FOLD_AGGREGATES: dict[str, Callable[..., Any]] = {"mean": np.mean, "max": np.max}
