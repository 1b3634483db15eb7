"""Intervals of means over recordings that come in groups, such as sites: groups are the independent units.

With few groups a percentile bootstrap over them is too narrow. The jackknife's standard error with Student's
t is simpler and covers more; docs/appendix/verdict.md has the rates of `benchmarks/place.py`.
"""

from math import isnan, nan

import numpy as np
from numpy.typing import NDArray

from callboard.scoring.metrics import COVERAGE, Presence, Scores, precision_sums


def lwlrap_interval_over_groups(
    is_present: Presence, scores: Scores, group: NDArray[np.str_]
) -> tuple[float, float]:
    """Return the interval of LWLRAP at new groups, within 0 and 1; NaN with fewer than two groups.

    Args:
        is_present: (recordings, species).
        scores: (recordings, species).
        group: (recordings,) name of each recording's group.
    """
    precision, n_present = precision_sums(is_present, scores)
    sums, counts = sums_by_group(group[is_present.any(axis=1)], precision, n_present)
    low, high = t_interval(float(sums.sum() / counts.sum()), jackknife_error(sums, counts), len(sums) - 1)
    return (low, high) if isnan(low) else (max(low, 0.0), min(high, 1.0))


def sums_by_group(
    group: NDArray[np.str_], values: NDArray[np.floating], counts: NDArray[np.number]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (groups,) sums of values and of counts; all arguments are of the same length."""
    _, index = np.unique(group, return_inverse=True)
    sums, totals = (np.asarray(np.bincount(index, one), dtype=np.float64) for one in (values, counts))
    return sums, totals


def jackknife_error(sums: NDArray[np.floating], counts: NDArray[np.floating]) -> float:
    """Return the standard error of the ratio of two totals, from the ratios without one group each.

    Args:
        sums: (groups,) sum of the values in each group.
        counts: (groups,) number of values in each group, above 0.

    Returns:
        NaN with fewer than two groups.
    """
    n_groups = len(sums)
    if n_groups < 2:
        return nan
    without = (sums.sum() - sums) / (counts.sum() - counts)
    distances = without - sums.sum() / counts.sum()
    return float(np.sqrt((n_groups - 1) / n_groups * (distances**2).sum()))


def t_interval(value: float, error: float, dof: int) -> tuple[float, float]:
    """Return the interval of Student's t with COVERAGE around a value; NaN without degrees of freedom."""
    from scipy.special import stdtrit  # takes long to import

    half = float(stdtrit(dof, (1 + COVERAGE) / 2)) * error if dof > 0 else nan
    return value - half, value + half
