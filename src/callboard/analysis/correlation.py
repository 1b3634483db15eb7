"""Pearson's and Spearman's correlations of two lists of scores, their intervals, and their differences.

Pairs are resampled with replacement; a resample in which a list is constant has no correlation and is left
out. Intervals are percentiles: they say how far a different draw of as many pairs might be.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ConstantInputWarning, NearConstantInputWarning, pearsonr, rankdata

from callboard.analysis.bootstrap import N_BOOTSTRAP, SEED
from callboard.scoring.metrics import COVERAGE


@dataclass(frozen=True)
class Correlation:
    """A correlation, or a difference of two, with its 95 % interval; NaN where it is undefined."""

    value: float
    low: float
    high: float
    n: int
    """Number of pairs."""


N_LEAST = 3
"""Number of pairs below which no correlation is reported."""

Numbers = NDArray[np.float64]
CorrelationKind = Callable[[Numbers, Numbers], Numbers]
"""Correlates each row of two arrays, both (rows, pairs); NaN where one is constant."""


def pearson(x: Numbers, y: Numbers) -> Numbers:
    """Correlate the values: how close they are to a line. A single outlier can dominate it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        warnings.simplefilter("ignore", NearConstantInputWarning)
        return np.asarray(pearsonr(x, y, axis=1).statistic, dtype=np.float64)


def spearman(x: Numbers, y: Numbers) -> Numbers:
    """Correlate the ranks: how well one list orders the other."""
    return pearson(rankdata(x, axis=1), rankdata(y, axis=1))


CORRELATIONS: dict[str, CorrelationKind] = {"Pearson": pearson, "Spearman": spearman}


def correlation(kind: CorrelationKind, x: Numbers, y: Numbers) -> Correlation:
    """Return the correlation with its 95 % interval; NaN below N_LEAST pairs or for a constant list."""
    value = value_of(kind, x, y)
    if np.isnan(value):
        return Correlation(value, value, value, len(x))
    low, high = resampled_interval(_resampled(kind, x, y, SEED))
    return Correlation(value, low, high, len(x))


def value_of(kind: CorrelationKind, x: Numbers, y: Numbers) -> float:
    """Return the correlation without its interval."""
    return float(kind(x[None], y[None])[0]) if len(x) >= N_LEAST else float("nan")


ScorePairs = tuple[Numbers, Numbers]


def change(kind: CorrelationKind, earlier: ScorePairs, later: ScorePairs) -> Correlation:
    """Return the correlation of the later pairs minus that of the earlier ones; `n` is of the later."""
    value = value_of(kind, *later) - value_of(kind, *earlier)
    if np.isnan(value):
        return Correlation(value, value, value, len(later[0]))
    low, high = resampled_interval(_resampled(kind, *later, SEED) - _resampled(kind, *earlier, SEED + 1))
    return Correlation(value, low, high, len(later[0]))


def advantage(
    kind: CorrelationKind, a: Numbers, b: Numbers, y: Numbers, coverage: float = COVERAGE
) -> Correlation:
    """Measure how much better `a` follows `y` than `b` does, resampling the same pairs for both.

    Args:
        kind: Kind of correlation.
        a: (pairs,).
        b: (pairs,).
        y: (pairs,).
        coverage: Coverage of the interval.
    """
    value = value_of(kind, a, y) - value_of(kind, b, y)
    if np.isnan(value):
        return Correlation(value, value, value, len(y))
    low, high = resampled_interval(_resampled(kind, a, y, SEED) - _resampled(kind, b, y, SEED), coverage)
    return Correlation(value, low, high, len(y))


def resampled_interval(resampled: Numbers, coverage: float = COVERAGE) -> tuple[float, float]:
    """Return the ends of the middle share of the resamples, without those that are NaN."""
    low, high = np.nanquantile(resampled, [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(low), float(high)


def _resampled(kind: CorrelationKind, x: Numbers, y: Numbers, seed: int) -> Numbers:
    picked = np.random.default_rng(seed).integers(len(x), size=(N_BOOTSTRAP, len(x)))
    return kind(x[picked], y[picked])
