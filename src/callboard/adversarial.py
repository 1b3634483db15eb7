"""Adversarial validation: can a classifier tell recordings of the training set from those of the test set?

Recordings are cut into pieces, and a linear discriminant sees level statistics of every mel row of a piece.
Each recording is scored by classifiers that have seen no piece of it. What they find where there is nothing
to find is measured beside it: random halves of the training recordings, told apart in the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from callboard.errors import UserError
from callboard.mel_cache import MelCache
from callboard.terminal import progress

PIECE_S = 5.0
"""About what the network sees at once. A shorter recording is one piece; a shorter rest is not looked at."""
QUANTILES = (0.1, 0.9)
"""Background and calls of a mel row: steady differences move the lower, events the upper."""
N_STATISTICS = 2 + len(QUANTILES)
"""Of a mel row of a piece: mean, standard deviation and QUANTILES over its frames."""
N_HALVINGS = 20
N_RESAMPLES = 1000
COVERAGE = 0.95
N_BANDS = 16
"""Groups of neighbouring mel rows that are also judged each alone."""
MIN_DEVIATION = 1e-6
"""Below it a feature counts as constant: one step of the cache is 1 / 255, the rest is rounding."""
MIN_RECORDINGS = 10
"""Of either set; with fewer an AUC says nothing."""


@dataclass(frozen=True)
class Settings:
    """How often and on what recordings are told apart."""

    n_folds: int
    n_repeats: int
    """Times that the recordings are dealt out to folds anew."""
    seed: int
    in_decibels: bool
    """Judge levels in dB. The network does not see them: each recording's own range is stretched to 0 … 1."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range, by the name of their option."""
        for option, value, least in (
            ("--folds", self.n_folds, 2),
            ("--repeats", self.n_repeats, 1),
            ("--seed", self.seed, 0),
        ):
            if value < least:
                raise UserError(f"{option} {value}: must be at least {least}")


@dataclass(frozen=True)
class Pieces:
    """Statistics of the pieces of all recordings, those of training first."""

    recording_ids: list[str]
    is_test: NDArray[np.bool_]
    """(recordings,)."""
    recording: NDArray[np.int64]
    """(pieces,) position of its recording, ascending."""
    statistics: NDArray[np.float32]
    """(pieces, mels, N_STATISTICS), of levels in 0 … 1, or in dB."""

    @property
    def n_mels(self) -> int:
        """Mel rows."""
        return int(self.statistics.shape[1])

    def of_train(self) -> "Pieces":
        """The pieces of the training recordings alone."""
        n_train = int(np.count_nonzero(~self.is_test))
        n_pieces = int(np.searchsorted(self.recording, n_train))
        return Pieces(
            self.recording_ids[:n_train],
            self.is_test[:n_train],
            self.recording[:n_pieces],
            self.statistics[:n_pieces],
        )


@dataclass(frozen=True)
class Comparison:
    """How well train and test are told apart by all mel rows, view 0, and by single bands, views 1, 2, …."""

    auc: NDArray[np.float64]
    """(views,): of all pairs of a test and a training recording of the same fold, the share in which the test
    recording has the higher score; mean over repeats."""
    fold_auc: NDArray[np.float64]
    """(repeats * folds,) of view 0."""
    interval: tuple[float, float]
    """Bootstrap interval of the AUC of view 0, recordings drawn with replacement."""
    null_auc: NDArray[np.float64]
    """(halvings, views): the same, between random halves of the training recordings."""
    score: NDArray[np.float64]
    """(recordings,): log odds of "test" out of fold, mean over pieces and repeats; above 0 is like test."""

    @property
    def is_told_apart(self) -> bool:
        """Whether the AUC is above that of every halving; by chance alone in about one case of 21."""
        return bool(self.auc[0] > self.null_auc[:, 0].max())


def read_pieces(train: MelCache, test: MelCache, piece_frames: int, in_decibels: bool) -> Pieces:
    """Statistics of all non-overlapping pieces; one recording at a time is in memory."""
    caches = (train, test)
    n_pieces = np.maximum(np.concatenate([cache.n_frames for cache in caches]) // piece_frames, 1)
    statistics = np.empty((n_pieces.sum(), train.n_mels, N_STATISTICS), np.float32)
    filled = 0
    rows = [(cache, row) for cache in caches for row in range(len(cache))]
    for cache, row in progress(rows, total=len(rows), label="adversarial", unit="recordings"):
        levels = cache.read(cache.recording_ids[row]).astype(np.float32) / 255
        if in_decibels:
            levels = cache.db_min[row] + levels * (cache.db_max[row] - cache.db_min[row])
        for start in range(0, max(len(levels) - piece_frames, 0) + 1, piece_frames):
            statistics[filled] = _statistics(levels[start : start + piece_frames])
            filled += 1
    return Pieces(
        recording_ids=[*train.recording_ids, *test.recording_ids],
        is_test=np.repeat([False, True], [len(train), len(test)]),
        recording=np.repeat(np.arange(len(n_pieces)), n_pieces),
        statistics=statistics,
    )


def _statistics(levels: NDArray[np.floating]) -> NDArray[np.float32]:
    """(mels, N_STATISTICS) of a piece, (frames, mels)."""
    quantiles = np.quantile(levels, QUANTILES, axis=0)
    return np.stack([levels.mean(axis=0), levels.std(axis=0), *quantiles], axis=1).astype(np.float32)


def mel_bands(n_mels: int) -> list[slice]:
    """Neighbouring mel rows in N_BANDS groups as even as they can be, lowest first."""
    edges = np.linspace(0, n_mels, min(N_BANDS, n_mels) + 1).round().astype(int)
    return [slice(int(low), int(high)) for low, high in pairwise(edges)]


def compare(pieces: Pieces, bands: Sequence[slice], settings: Settings) -> Comparison:
    """Tell train from test, and halves of train from each other.

    Args:
        pieces: of all recordings.
        bands: mel rows that are also judged alone.
        settings: folds, repeats and seed; the same ones give the same result.

    Raises:
        UserError: too few recordings for the folds.
    """
    _refuse_too_few(pieces, settings.n_folds)
    views = [slice(0, pieces.n_mels), *bands]
    train = pieces.of_train()
    is_second_half = np.arange(len(train.recording_ids)) % 2 == 1
    measured: list[Judged] = []
    null_auc: list[list[float]] = []
    n_rounds = settings.n_repeats + N_HALVINGS
    for number in progress(range(n_rounds), total=n_rounds, label="adversarial", unit="rounds"):
        rng = np.random.default_rng([settings.seed, number])
        if number < settings.n_repeats:
            measured.append(tell_apart(pieces, pieces.is_test, views, settings.n_folds, rng))
        else:
            halves = tell_apart(train, rng.permutation(is_second_half), views, settings.n_folds, rng)
            null_auc.append(halves.auc)
    wins = [Wins.count(judged.scores, pieces.is_test, judged.fold) for judged in measured]
    return Comparison(
        auc=np.mean([judged.auc for judged in measured], axis=0),
        fold_auc=np.concatenate([one.per_fold() for one in wins]),
        interval=_interval(wins, pieces.is_test, settings.seed),
        null_auc=np.array(null_auc),
        score=np.mean([judged.scores for judged in measured], axis=0),
    )


def _refuse_too_few(pieces: Pieces, n_folds: int) -> None:
    n_test = int(np.count_nonzero(pieces.is_test))
    n_train = len(pieces.is_test) - n_test
    for subset, n_recordings, least, reason in (
        ("train", n_train, max(MIN_RECORDINGS, 2 * n_folds), f"each half of them fills {n_folds} folds"),
        ("test", n_test, max(MIN_RECORDINGS, n_folds), f"they fill {n_folds} folds"),
    ):
        if n_recordings < least:
            raise UserError(f"{subset}: {n_recordings} recordings, but {least} or more are needed: {reason}")


def deal_folds(is_second: NDArray[np.bool_], n_folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(recordings,) fold of each recording, with all its pieces; every fold gets its share of both sets."""
    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=int(rng.integers(2**32)))
    fold = np.empty(len(is_second), np.int64)
    for number, (_, members) in enumerate(splitter.split(is_second, is_second)):
        fold[members] = number
    return fold


@dataclass(frozen=True)
class Judged:
    """Two sets of recordings told apart once."""

    fold: NDArray[np.int64]
    """(recordings,)."""
    scores: NDArray[np.float64]
    """(recordings,) out of fold, by the first view."""
    auc: list[float]
    """By each view."""


def tell_apart(
    pieces: Pieces,
    is_second: NDArray[np.bool_],
    views: Sequence[slice],
    n_folds: int,
    rng: np.random.Generator,
) -> Judged:
    """Judge recordings by the mel rows of each view, all on the same folds.

    On one BLAS thread: the matrices are small, and the numbers do not depend on the machine's cores.
    """
    fold = deal_folds(is_second, n_folds, rng)
    auc, by_view = [], []
    with threadpool_limits(1, user_api="blas"):
        for view in views:
            features = pieces.statistics[:, view].reshape(len(pieces.recording), -1)
            scores = out_of_fold(features, pieces.recording, is_second, fold)
            auc.append(Wins.count(scores, is_second, fold).auc())
            by_view.append(scores)
    return Judged(fold, by_view[0], auc)


def out_of_fold(
    features: NDArray[np.float32],
    recording: NDArray[np.int64],
    is_second: NDArray[np.bool_],
    fold: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Log odds that a recording is of the second set, were both sets of the same size.

    Args:
        features: (pieces, features).
        recording: (pieces,) position of the recording that it is a piece of.
        is_second: (recordings,).
        fold: (recordings,); all pieces of a recording are scored by the classifier that saw none of them.

    Returns:
        (recordings,) mean over its pieces.
    """
    is_second_piece, fold_of_piece = is_second[recording], fold[recording]
    scores = np.empty(len(features))
    for number in np.unique(fold):
        held_out = fold_of_piece == number
        weights, offset = discriminant(features[~held_out], is_second_piece[~held_out])
        scores[held_out] = features[held_out] @ weights + offset
    return np.bincount(recording, scores) / np.bincount(recording)


def discriminant(
    features: NDArray[np.float32], is_second: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], float]:
    """Fisher's linear discriminant: (features,) weights, and an offset, of the log odds of the second set.

    Features are brought to unit variance within the sets before their covariance is shrunk: shrinkage would
    favour those with large numbers.
    """
    means = np.array(
        [features[members].mean(axis=0, dtype=np.float64) for members in (~is_second, is_second)]
    )
    centred = features - means[is_second.astype(int)]
    scale = centred.std(axis=0)
    scale[scale < MIN_DEVIATION] = 1
    centred /= scale
    covariance = shrunk_covariance(centred)
    # invertible even where every feature is constant
    covariance[np.diag_indices_from(covariance)] += MIN_DEVIATION
    weights = np.linalg.solve(covariance, (means[1] - means[0]) / scale) / scale
    return weights, -float(means.mean(axis=0) @ weights)


def shrunk_covariance(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """(features, features) covariance of (samples, features) without mean, drawn towards equal variances.

    By as much as Ledoit and Wolf (2004), "A well-conditioned estimator for large-dimensional covariance
    matrices", find best, so that no strength of regularisation has to be chosen. As scikit-learn's
    `ledoit_wolf`, without its cost of checks on thousands of small fits.
    """
    n_samples, n_features = centred.shape
    covariance: NDArray[np.float64] = centred.T @ centred / n_samples
    squared = np.square(covariance).sum()
    mean_variance = np.trace(covariance) / n_features
    distance = squared - n_features * mean_variance**2
    error = (np.mean(np.square(centred).sum(axis=1) ** 2) - squared) / n_samples
    shrinkage = min(error / distance, 1.0) if distance > 0 else 1.0
    covariance *= 1 - shrinkage
    covariance[np.diag_indices_from(covariance)] += shrinkage * mean_variance
    return covariance


@dataclass(frozen=True)
class Wins:
    """Which recordings of the second set score above which of the first, fold by fold.

    Scores of different folds come from different classifiers, so they are not compared.
    """

    folds: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]
    """Of each fold: its recordings of the second set and of the first; (second, first) 1 = win, ½ = tie."""

    @classmethod
    def count(
        cls, scores: NDArray[np.float64], is_second: NDArray[np.bool_], fold: NDArray[np.int64]
    ) -> "Wins":
        """From scores, sets and folds of the recordings."""
        folds = []
        for number in np.unique(fold):
            second = np.flatnonzero((fold == number) & is_second)
            first = np.flatnonzero((fold == number) & ~is_second)
            difference = scores[second][:, None] - scores[first]
            folds.append((second, first, np.sign(difference) / 2 + 0.5))
        return cls(folds)

    def auc(self) -> float:
        """Share of the pairs that the second set wins."""
        wins = sum(won.sum() for _, _, won in self.folds)
        return float(wins / sum(won.size for _, _, won in self.folds))

    def per_fold(self) -> list[float]:
        """The same for each fold."""
        return [float(won.mean()) for _, _, won in self.folds]

    def resampled(self, times_drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        """(resamples,) AUC when recordings count as often as drawn, (resamples, recordings).

        A resample that leaves no fold a pair says nothing: ½.
        """
        wins, pairs = np.zeros((2, len(times_drawn)))
        for second, first, won in self.folds:
            times_second, times_first = times_drawn[:, second], times_drawn[:, first]
            wins += ((times_second @ won) * times_first).sum(axis=1)
            pairs += times_second.sum(axis=1) * times_first.sum(axis=1)
        auc: NDArray[np.float64] = np.divide(wins, pairs, out=np.full(len(wins), 0.5), where=pairs > 0)
        return auc


def _interval(repeats: Sequence[Wins], is_test: NDArray[np.bool_], seed: int) -> tuple[float, float]:
    """Percentile bootstrap of the AUC, mean over repeats: sets keep their sizes, nothing is fitted again."""
    rng = np.random.default_rng(seed)
    times_drawn = np.empty((N_RESAMPLES, len(is_test)))
    for members in (~is_test, is_test):
        n_members = np.count_nonzero(members)
        share = np.full(n_members, 1 / n_members)
        times_drawn[:, members] = rng.multinomial(n_members, share, size=N_RESAMPLES)
    resampled = np.mean([wins.resampled(times_drawn) for wins in repeats], axis=0)
    low, high = np.quantile(resampled, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)
