"""Precision of all windows above a threshold, from judged scores, with an interval over recordings.

A logistic regression of the verdict on the logit of the score gives the probability of a window, and the mean
over all windows above a threshold is their precision.

Letters in shapes: C judged cells, U recordings or groups that they are from, D draws of these, the first of
which is the data itself, T candidates for a threshold, W = T + 1 bins of scores between them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from callboard.scoring.metrics import COVERAGE

N_DRAWS = 1000

CANDIDATES: NDArray[np.float64] = np.unique(np.round(expit(np.linspace(-7, 7, 281)), 4))
"""(T,) scores that can be a threshold, ascending: steps of about 1 % of the odds."""

_EDGE = 1e-6
"""Scores are at least this far from 0 and 1, where the logit is infinite."""

_INNER = logit(CANDIDATES)
_BIN_LOGIT = np.concatenate([_INNER[:1] - 1, (_INNER[:-1] + _INNER[1:]) / 2, _INNER[-1:] + 1])
"""(W,) logit that stands for the scores of a bin."""

_TINY = 1e-12
"""Keeps a quotient finite."""

_MAX_STEPS = 100
_MAX_STEP = 2.0
"""Largest change of a coefficient in one Newton step, in standard deviations of the logit."""

_CONVERGED_STEP = 1e-6
"""Change of all coefficients below which Newton's method ends."""

_LARGEST_EXPONENT = 50.0

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class JudgedCells:
    """Scores of one species in places where a person judged whether it calls."""

    score: Vector
    """(C,) from 0 to 1."""
    is_present: NDArray[np.bool_]
    """(C,)"""
    unit: NDArray[np.str_]
    """(C,) recording of the cell, or its group: cells of different units are independent."""

    @property
    def n_present(self) -> int:
        """Number of cells in which the species calls."""
        return int(self.is_present.sum())

    @property
    def n_absent(self) -> int:
        """Number of the others."""
        return len(self.is_present) - self.n_present

    @property
    def n_units(self) -> int:
        """Number of independent units."""
        return len(np.unique(self.unit))


@dataclass(frozen=True)
class PrecisionCurve:
    """Estimates at some of CANDIDATES, ascending."""

    threshold: Vector
    precision: Vector
    """Share of the windows at or above the threshold in which the species calls."""
    low: Vector
    """Lower end of the interval of `precision`, which has COVERAGE."""
    high: Vector
    recall: Vector
    """Share, of the windows in which the species calls, of those at or above the threshold."""
    slope: float
    """Slope of the logistic regression; the score says nothing about the species if it is not above 0."""


def count_windows(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return (W,) numbers of windows: below the first candidate, from it to the second, and so on."""
    place = np.searchsorted(CANDIDATES, scores, side="right")
    return np.bincount(place, minlength=len(CANDIDATES) + 1).astype(np.int64)


def precision_curve(
    cells: JudgedCells,
    windows: NDArray[np.integer],
    *,
    are_drawn_by_score: bool,
    floor: float = 0.0,
    n_bootstrap: int = N_DRAWS,
    seed: int = 0,
) -> PrecisionCurve:
    """Estimate the precision of the windows above each candidate.

    Args:
        cells: At least one.
        windows: (W,) all windows by score, from `count_windows`.
        are_drawn_by_score: Whether the cells were drawn at random among the windows of equal score. Then the
            logistic regression holds for all windows. Otherwise present and absent cells are each taken as
            drawn at random, in numbers that do not show how common the species is: that is estimated from
            the scores of all windows.
        floor: Score from which windows are counted; no threshold is below.
        n_bootstrap: Number of resamples of the units, with all of their cells.
        seed: Seed of the draws.
    """
    weight = _draws(cells.unit, n_bootstrap, seed)
    logits = logit(np.clip(cells.score, _EDGE, 1 - _EDGE))
    intercept, slope = fit_logistic(logits, cells.is_present, weight)
    log_odds = _BIN_LOGIT * slope[:, None] + intercept[:, None]  # (D, W)
    if are_drawn_by_score:
        probability = np.asarray(expit(log_odds))
    else:
        n_present = weight @ cells.is_present
        odds_judged = (n_present + 0.5) / (weight.sum(axis=1) - n_present + 0.5)
        probability = probability_at_share(log_odds - np.log(odds_judged)[:, None], windows)
    n_calls = _reaching(probability * windows)  # (D, T)
    n_windows = _reaching(windows.astype(np.float64))  # (T,)
    is_kept = (n_windows > 0) & (floor <= CANDIDATES)
    precision = n_calls[:, is_kept] / n_windows[is_kept]
    low, high = np.quantile(precision[1:], [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], axis=0)
    recall = n_calls[0, is_kept] / max(float((probability[0] * windows).sum()), _TINY)
    return PrecisionCurve(CANDIDATES[is_kept], precision[0], low, high, recall, float(slope[0]))


def _draws(unit: NDArray[np.str_], n_bootstrap: int, seed: int) -> Matrix:
    """Return (D, C) how often each cell is drawn: once, and then as often as its unit."""
    _, index = np.unique(unit, return_inverse=True)
    n_units = int(index.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(n_units, np.full(n_units, 1 / n_units), n_bootstrap)
    return np.vstack([np.ones(n_units), drawn])[:, index].astype(np.float64)


def _reaching(of_bins: Matrix) -> Matrix:
    """Return (…, T) sums over the bins at and above each candidate, of (…, W) values."""
    sums: Matrix = np.cumsum(of_bins[..., :0:-1], axis=-1)[..., ::-1]
    return sums


def fit_logistic(logits: Vector, is_present: NDArray[np.bool_], weight: Matrix) -> tuple[Vector, Vector]:
    """Fit one logistic regression for each row of weights, with Firth's penalty.

    The penalty (Firth 1993, Biometrika 80; Heinze and Schemper 2002, Statistics in Medicine 21) takes away
    the bias of small samples, and keeps the slope finite where a score separates all present from all absent
    cells, as it does for a species that the networks know well.

    Args:
        logits: (C,) logits of the scores.
        is_present: (C,)
        weight: (D, C) number of times that each cell counts.

    Returns:
        (D,) intercepts and (D,) slopes.
    """
    mean, scale = logits.mean(), logits.std() or 1.0
    z = (logits - mean) / scale
    a = np.zeros(len(weight))
    b = np.zeros(len(weight))
    for _ in range(_MAX_STEPS):
        p = expit(a[:, None] + b[:, None] * z)
        information = weight * p * (1 - p)
        s0, s1, s2 = information.sum(axis=1), information @ z, information @ z**2
        determinant = s0 * s2 - s1**2 + _TINY
        leverage = information * (s2[:, None] - 2 * s1[:, None] * z + s0[:, None] * z**2)
        residual = weight * (is_present - p) + leverage / determinant[:, None] * (0.5 - p)
        g0, g1 = residual.sum(axis=1), residual @ z
        step = np.array([s2 * g0 - s1 * g1, s0 * g1 - s1 * g0]) / determinant
        step /= np.maximum(1, np.abs(step).max(axis=0) / _MAX_STEP)
        a, b = a + step[0], b + step[1]
        if np.abs(step).max() < _CONVERGED_STEP:
            break
    return a - b * mean / scale, b / scale


def probability_at_share(log_ratio: Matrix, windows: NDArray[np.integer]) -> Matrix:
    """Return (D, W) probabilities, if the species calls in the share of windows that is most likely.

    Args:
        log_ratio: (D, W) logarithm of how much more common a score is in windows with the species.
        windows: (W,) all windows by score. Their likelihood is concave in the share, so its maximum is found
            by bisection; it is where the mean of the probabilities is the share itself, as the EM algorithm
            finds it (Saerens, Latinne and Decaestecker 2002, Neural Computation 14).
    """
    ratio = np.exp(np.clip(log_ratio, -_LARGEST_EXPONENT, _LARGEST_EXPONENT))
    low, high = np.zeros(len(ratio)), np.ones(len(ratio))
    for _ in range(50):
        share = (low + high) / 2
        gradient = ((ratio - 1) / (1 + share[:, None] * (ratio - 1))) @ windows
        low, high = np.where(gradient > 0, share, low), np.where(gradient > 0, high, share)
    share = (low + high)[:, None] / 2
    found: Matrix = share * ratio / (1 - share + share * ratio)
    return found
