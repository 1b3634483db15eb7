"""A difference of two results and how sure it is; only numbers, so that remembered ones are read quickly."""

from dataclasses import dataclass
from math import isnan, nan


class MismatchError(ValueError):
    """Two tables that cannot be held against each other: of other species, or without a common recording."""


@dataclass(frozen=True)
class Difference:
    """A change of LWLRAP with its 95 % interval over recordings; NaN where it is not known."""

    value: float
    low: float = nan
    high: float = nan
    p_better: float = nan
    """Share of resamples in which the change is positive, ties counted half."""
    sd: float = nan
    """Of the resamples: the standard error that stems from which recordings there are."""

    @property
    def has_interval(self) -> bool:
        """Whether low and high are known."""
        return not isnan(self.low)

    @property
    def is_within_noise(self) -> bool:
        """Whether the interval is known and contains 0."""
        return self.low <= 0 <= self.high


@dataclass(frozen=True)
class SpeciesDifference:
    """How one species' part of LWLRAP changed; the interval is NaN with fewer than two recordings."""

    species: str
    n: int
    """Recordings with the species: each is one confirmed pair."""
    a: float
    """Mean precision at the rank of the species in the one result."""
    b: float
    """The same in the other."""
    value: float
    """`a` minus `b`. The mean of these over species, weighted by `n`, is the change of LWLRAP."""
    low: float = nan
    high: float = nan
