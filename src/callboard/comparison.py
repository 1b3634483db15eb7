"""How sure a difference between two results is, and how well two lists of scores agree."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from callboard.metrics import percentile_interval, precision_sums, times_drawn
from callboard.presence import species_presence

N_BOOTSTRAP = 2000
SEED = 0


@dataclass(frozen=True)
class Difference:
    """A change of LWLRAP with its 95 % interval; NaN where it is not known."""

    value: float
    low: float = float("nan")
    high: float = float("nan")
    p_better: float = float("nan")
    """Share of resamples in which the change is positive, ties counted half."""

    @property
    def has_interval(self) -> bool:
        """Whether low and high are known."""
        return not np.isnan(self.low)

    @property
    def is_within_noise(self) -> bool:
        """Whether the interval is known and contains 0."""
        return self.low <= 0 <= self.high


def paired_difference(
    a: pd.DataFrame, b: pd.DataFrame, truth: pd.DataFrame, n_bootstrap: int = N_BOOTSTRAP, seed: int = SEED
) -> Difference:
    """LWLRAP of `a` minus that of `b` on the same recordings, with a percentile bootstrap over recordings.

    A resample draws recordings with replacement and scores both on the same draw, so what makes a recording
    hard for both cancels. Assumes that recordings are independent of each other. The networks are taken as
    given: how much either result would move with another seed or other folds is not in the interval.

    Args:
        a: recording_id and score columns; others, as `fold`, are ignored. Recordings that only one of the two
            has are left out.
        b: Likewise, with the same score columns.
        truth: recording_id and species_id of confirmed annotations.
        n_bootstrap: Resamples.
        seed: Of the draws.

    Raises:
        ValueError: the score columns differ, or no recording of both has a species.
    """
    columns = [name for name in a.columns if name not in ("recording_id", "fold")]
    if set(columns) != set(b.columns) - {"recording_id", "fold"}:
        raise ValueError(f"the tables have different score columns: {columns} and {list(b.columns)}")
    shared = sorted(set(a["recording_id"]) & set(b["recording_id"]))
    is_present = species_presence(truth, shared, [name.removeprefix("s") for name in columns])
    sums_a, n_present = precision_sums(is_present, _scores(a, shared, columns))
    sums_b, _ = precision_sums(is_present, _scores(b, shared, columns))
    gain = sums_a - sums_b
    drawn = _times_drawn(len(gain), n_bootstrap, seed)
    resampled = (drawn @ gain) / (drawn @ n_present)
    low, high = percentile_interval(resampled)
    p_better = np.mean(resampled > 0) + np.mean(resampled == 0) / 2
    return Difference(float(gain.sum() / n_present.sum()), low, high, float(p_better))


_times_drawn = lru_cache(maxsize=4)(times_drawn)
"""All pairs of a board are resampled by the same draw."""


def _scores(table: pd.DataFrame, recording_ids: list[str], columns: list[str]) -> NDArray[np.float64]:
    in_order = table.set_index("recording_id").loc[recording_ids, columns]
    return in_order.to_numpy(dtype=np.float64)


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation with its 95 % interval; NaN where it is undefined."""

    value: float
    low: float
    high: float
    n: int


def rank_correlation(
    x: NDArray[np.float64], y: NDArray[np.float64], n_bootstrap: int = N_BOOTSTRAP, seed: int = SEED
) -> Correlation:
    """Spearman's rank correlation of two lists, with a percentile bootstrap over their pairs.

    Resamples in which one of the lists is constant have no correlation and are left out.
    Fewer than three pairs, or a constant list, give NaN.
    """
    nowhere = Correlation(float("nan"), float("nan"), float("nan"), len(x))
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return nowhere
    picked = np.random.default_rng(seed).integers(len(x), size=(n_bootstrap, len(x)))
    resampled = _correlations(rankdata(x[picked], axis=1), rankdata(y[picked], axis=1))
    low, high = percentile_interval(resampled)
    value = _correlations(rankdata(x)[None], rankdata(y)[None])[0]
    return Correlation(float(value), low, high, len(x))


def _correlations(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's correlation of each row of `x` with that of `y`, both (rows, pairs); NaN if constant."""
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    correlations = np.full(len(x), np.nan)
    np.divide((x * y).sum(axis=1), scale, out=correlations, where=scale > 0)
    return correlations
