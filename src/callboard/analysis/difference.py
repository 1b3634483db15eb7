"""A difference between two results and its uncertainty: only numbers, quick to import."""

from dataclasses import dataclass
from math import inf, isnan, nan


class MismatchError(ValueError):
    """Two tables cannot be compared: they have different species, or no recording in common."""


@dataclass(frozen=True)
class Difference:
    """A change of LWLRAP with its 95 % interval over recordings or groups of them; NaN where unknown."""

    value: float
    low: float = nan
    high: float = nan
    p_better: float = nan
    """Share of resamples in which the change is positive, ties counted half; over groups, by Student's t."""
    sd: float = nan
    """Standard error due to the choice of recordings or groups."""
    n_groups: int = 0
    """Number of groups of recordings that `sd` was measured on; 0 if recordings were independent."""

    @property
    def dof(self) -> float:
        """Degrees of freedom of `sd`: over recordings it counts as exact."""
        return self.n_groups - 1 if self.n_groups else inf

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
    """Change of one species' part of LWLRAP; the interval is NaN with fewer than two recordings."""

    species: str
    n: int
    """Number of recordings with the species; each is one confirmed pair."""
    a: float
    """Mean precision at the rank of the species in one result."""
    b: float
    """Mean precision at that rank in the other."""
    value: float
    """`a` minus `b`. The mean of these over species, weighted by `n`, is the change of LWLRAP."""
    low: float = nan
    high: float = nan
