"""Do recordings scored 0.8 have the species eight times in ten? Only judged cells can tell."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N_BINS = 10
Z_95 = 1.959964
"""Quantile of the normal distribution for a 95 % interval."""


@dataclass(frozen=True)
class Reliability:
    """Judged cells by score; bins are equally wide, those of no cell are left out."""

    mean_score: NDArray[np.float64]
    """(bins,)."""
    share_present: NDArray[np.float64]
    """(bins,)."""
    low: NDArray[np.float64]
    """(bins,) end of Wilson's 95 % interval of the share."""
    high: NDArray[np.float64]
    count: NDArray[np.int64]
    """(bins,) cells."""

    @property
    def expected_error(self) -> float:
        """Mean distance of share and score, weighted by cells (Naeini et al. 2015, AAAI, ECE)."""
        return float(np.average(np.abs(self.share_present - self.mean_score), weights=self.count))


def reliability(
    scores: NDArray[np.float64],
    is_present: NDArray[np.bool_],
    is_absent: NDArray[np.bool_],
    n_bins: int = N_BINS,
) -> Reliability:
    """Observed presence by score, over the cells that somebody has judged; all (recordings, species).

    Raises:
        ValueError: nobody has judged anything.
    """
    is_known = is_present | is_absent
    if not is_known.any():
        raise ValueError("no cell is judged present or absent")
    known, truth = scores[is_known], is_present[is_known]
    place = np.searchsorted(np.linspace(0, 1, n_bins + 1)[1:-1], known)
    count = np.bincount(place, minlength=n_bins)
    has_any = count > 0
    count, total = count[has_any], np.bincount(place, known, minlength=n_bins)[has_any]
    share = np.bincount(place, truth, minlength=n_bins)[has_any] / count
    low, high = wilson_interval(share, count)
    return Reliability(total / count, share, low, high, count)


def wilson_interval(
    share: NDArray[np.float64], count: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % interval of binomial shares (Wilson 1927); holds for shares of 0 and 1 too."""
    scale = 1 + Z_95**2 / count
    centre = (share + Z_95**2 / (2 * count)) / scale
    half = Z_95 / scale * np.sqrt(share * (1 - share) / count + Z_95**2 / (4 * count**2))
    return centre - half, centre + half
