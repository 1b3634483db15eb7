"""Adversarial validation: can a classifier distinguish training recordings from test recordings?

A linear discriminant sees the level statistics of pieces of recordings. Each recording is scored by
classifiers that have seen no piece of it. The baseline is what they find between random halves of the
training recordings, where there is no difference to find.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import PredefinedSplit, StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from callboard.analysis.adversarial.pieces import Pieces
from callboard.core.console import progress
from callboard.core.errors import UserError
from callboard.scoring.metrics import percentile_interval, times_drawn

N_HALVINGS = 20
N_RESAMPLES = 1000
MIN_RECORDINGS = 10
"""Least number of recordings in either set; an AUC of fewer says nothing."""


@dataclass(frozen=True)
class Settings:
    """Folds, repeats, seed and levels of a comparison."""

    n_folds: int
    n_repeats: int
    """Number of times that the recordings are divided into folds."""
    seed: int
    in_decibels: bool
    """Use levels in dB. The network does not see them: each recording's own range is stretched to 0 … 1."""


@dataclass(frozen=True)
class Comparison:
    """Separation of train and test by all mel rows, view 0, and by single bands, views 1, 2, …."""

    auc: NDArray[np.float64]
    """(views,) of recordings, test versus training; mean over folds and repeats."""
    fold_auc: NDArray[np.float64]
    """(repeats * folds,) of view 0."""
    interval: tuple[float, float]
    """Bootstrap interval of the AUC of view 0, recordings drawn with replacement."""
    null_auc: NDArray[np.float64]
    """(halvings, views) AUC between random halves of the training recordings, mean over folds."""
    score: NDArray[np.float64]
    """(recordings,) log odds of "test" out of fold, mean over pieces and repeats; above 0 resembles test."""

    @property
    def is_told_apart(self) -> bool:
        """Whether the AUC is above that of every halving.

        Chance alone does this in fewer than one case of 21: halves are smaller, so their AUC spreads wider.
        """
        return bool(self.auc[0] > self.null_auc[:, 0].max())


def compare_sets(pieces: Pieces, bands: Sequence[slice], settings: Settings) -> Comparison:
    """Measure how well train and test, and halves of train, can be distinguished.

    Args:
        pieces: pieces of all recordings.
        bands: groups of mel rows that are also judged alone.
        settings: folds, repeats and seed; equal ones give equal results.

    Raises:
        UserError: too few recordings for the folds.
    """
    _refuse_too_few(pieces, settings.n_folds)
    views = [slice(0, pieces.n_mels), *bands]
    train = pieces.of_train()
    is_second_half = np.arange(len(train.recording_ids)) % 2 == 1
    measured: list[Judged] = []
    null_auc: list[NDArray[np.float64]] = []
    n_rounds = settings.n_repeats + N_HALVINGS
    for number in progress(range(n_rounds), total=n_rounds, label="adversarial", unit="rounds"):
        rng = np.random.default_rng([settings.seed, number])
        if number < settings.n_repeats:
            measured.append(tell_apart(pieces, pieces.is_test, views, settings.n_folds, rng))
        else:
            halves = tell_apart(train, rng.permutation(is_second_half), views, settings.n_folds, rng)
            null_auc.append(halves.fold_auc.mean(axis=1))
    return Comparison(
        auc=np.mean([judged.fold_auc for judged in measured], axis=(0, 2)),
        fold_auc=np.concatenate([judged.fold_auc[0] for judged in measured]),
        interval=_interval(measured, pieces.is_test, settings.seed),
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
    """Return (recordings,) the fold of each, with all its pieces; every fold gets its share of both sets."""
    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=int(rng.integers(2**32)))
    fold = np.empty(len(is_second), np.int64)
    for number, (_, members) in enumerate(splitter.split(is_second, is_second)):
        fold[members] = number
    return fold


@dataclass(frozen=True)
class Judged:
    """One separation of two sets of recordings."""

    fold: NDArray[np.int64]
    """(recordings,) fold of each recording."""
    scores: NDArray[np.float64]
    """(recordings,) out-of-fold log odds by the first view."""
    fold_auc: NDArray[np.float64]
    """(views, folds) AUC."""


def tell_apart(
    pieces: Pieces,
    is_second: NDArray[np.bool_],
    views: Sequence[slice],
    n_folds: int,
    rng: np.random.Generator,
) -> Judged:
    """Score recordings by the mel rows of each view, all on the same folds.

    Uses one BLAS thread: the matrices are small, and the numbers do not depend on the machine's cores.
    """
    fold = deal_folds(is_second, n_folds, rng)
    with threadpool_limits(1, user_api="blas"):
        scores = [
            out_of_fold(
                pieces.statistics[:, view].reshape(len(pieces.recording), -1),
                pieces.recording,
                is_second,
                fold,
            )
            for view in views
        ]
    return Judged(fold, scores[0], np.array([auc_by_fold(one, is_second, fold) for one in scores]))


def classifier() -> Pipeline:
    """Build a linear discriminant for sets of equal size; Ledoit and Wolf's shrinkage leaves nothing to tune.

    Shrinkage favours features with large numbers. The discriminant scales them within each set, but not those
    that are constant there, hence the scaler.
    """
    discriminant = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[0.5, 0.5])
    return make_pipeline(StandardScaler(), discriminant)


def out_of_fold(
    features: NDArray[np.float32],
    recording: NDArray[np.int64],
    is_second: NDArray[np.bool_],
    fold: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the log odds that a recording is of the second set, as if both sets had the same size.

    Args:
        features: (pieces, features).
        recording: (pieces,) position of the piece's recording.
        is_second: (recordings,) whether the recording is of the second set.
        fold: (recordings,); all pieces of a recording are scored by the classifier that saw none of them.

    Returns:
        (recordings,) mean over its pieces.
    """
    scores = cross_val_predict(
        classifier(),
        features.astype(np.float64),
        is_second[recording],
        cv=PredefinedSplit(fold[recording]),
        method="decision_function",
    )
    return np.bincount(recording, scores) / np.bincount(recording)


def auc_by_fold(
    scores: NDArray[np.float64], is_second: NDArray[np.bool_], fold: NDArray[np.int64]
) -> list[float]:
    """Return the AUC of each fold; scores of different folds come from different classifiers."""
    folds = [fold == number for number in np.unique(fold)]
    return [float(roc_auc_score(is_second[members], scores[members])) for members in folds]


def resampled_auc(
    scores: NDArray[np.float64],
    is_second: NDArray[np.bool_],
    fold: NDArray[np.int64],
    drawn: NDArray[np.integer],
) -> NDArray[np.float64]:
    """Return (folds, resamples) AUC with recordings counted as often as drawn, (resamples, recordings).

    The pairs of a fold are compared once for all resamples: one call of scikit-learn per resample is slow.
    NaN where one of the sets was not drawn.
    """
    auc = np.full((fold.max() + 1, len(drawn)), np.nan)
    for number in np.unique(fold):
        second = np.flatnonzero((fold == number) & is_second)
        first = np.flatnonzero((fold == number) & ~is_second)
        won = np.sign(scores[second][:, None] - scores[first]) / 2 + 0.5  # ties count half
        wins = ((drawn[:, second] @ won) * drawn[:, first]).sum(axis=1)
        pairs = drawn[:, second].sum(axis=1) * drawn[:, first].sum(axis=1)
        np.divide(wins, pairs, out=auc[number], where=pairs > 0)
    return auc


def _interval(repeats: Sequence[Judged], is_test: NDArray[np.bool_], seed: int) -> tuple[float, float]:
    """Return the bootstrap interval of the AUC, mean over folds and repeats, without refitting."""
    drawn = times_drawn(len(is_test), N_RESAMPLES, seed)
    auc = [resampled_auc(judged.scores, is_test, judged.fold, drawn) for judged in repeats]
    return percentile_interval(np.nanmean(np.concatenate(auc), axis=0))
