"""Change of a score by a different seed alone, measured on results that differ in nothing but the seed.

Derived in docs/appendix/verdict.md.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import isfinite, isnan, nan, sqrt
from statistics import fmean

from callboard.analysis.difference import Difference
from callboard.analysis.differences import difference
from callboard.core.compute import Computes
from callboard.params.references import differing_keys
from callboard.results.rows import CV, BoardRow, Setting, newest_by_seed

SCORE_HEADINGS = {CV: "CV", "lb.public": "LB public", "lb.private": "LB private"}
"""Judged scores and their column headings."""

JUDGED_METRICS = tuple(SCORE_HEADINGS)

MIN_DOF = 3
"""Degrees of freedom below which t would exceed 4 and call everything noise: the measured noise then counts
as exact, and the verdict is tentative."""

AFTER_TRAINING = ("predict.", "infer.", "evaluate.")
"""Sections of parameters that leave the networks unchanged."""

SCOPES: tuple[tuple[str, ...], ...] = (("split.folds", "split.seed", "split.group", "train.epochs"), ())
"""Scopes to search for a row's noise, nearest first: parameters that must agree, besides the data."""

Compare = Callable[[BoardRow, BoardRow], Difference | None]
"""Difference between two results."""


@dataclass(frozen=True)
class SeedNoise:
    """Effect of the seed alone, pooled over groups of runs that differ in nothing but `seed`."""

    sd: dict[str, float]
    """Standard deviation of one run over seeds, by metric: `cv.lwlrap`, `lb.public`, `lb.private`."""
    beyond: float
    """Standard deviation of a CV difference between two seeds, beyond the choice of recordings or groups."""
    dof: int
    """Degrees of freedom of the CV's standard deviation: runs minus groups."""
    n_runs: int
    recordings: float = 0.0
    """Root mean square of the standard errors over recordings or groups; 0 without score tables."""
    dofs: dict[str, int] = field(default_factory=dict)
    """Degrees of freedom by metric."""
    n_groups: int = 0
    """Least number of groups that `recordings` was measured on; 0 if recordings were independent."""


NO_SEEDS = SeedNoise(sd={CV: 0.0}, beyond=0.0, dof=MIN_DOF, n_runs=0)
"""Zero seed noise: both results use the same networks."""


def seed_groups(rows: Iterable[BoardRow]) -> list[list[BoardRow]]:
    """Group results that differ in nothing but `seed`, two or more to a group; the newest per seed counts.

    Results that unlike processors, threads, precisions or versions of torch trained are in groups of their
    own, see `trained_alike`. Blends are left out, since their seed has no effect; so are results without data
    or a finite CV.

    Args:
        rows: Oldest first.
    """
    groups: dict[Setting, list[BoardRow]] = {}
    for row in rows:
        if isfinite(row.metrics.get(CV, nan)) and row.data_md5 and not row.blend:
            groups.setdefault(row.setting, []).append(row)
    alike = [part for group in groups.values() for part in trained_alike(group)]
    found = [list(newest_by_seed(group).values()) for group in alike]
    return [group for group in found if len(group) > 1]


def trained_alike(rows: Sequence[BoardRow]) -> list[list[BoardRow]]:
    """Split results by the records of what trained them, if these differ.

    Results without a record stay with the others unless those differ among themselves. Mixed results with
    the same records stay together, since which folds were trained on what can only widen their spread.
    """
    if len({row.computed_by for row in rows if row.computed_by}) < 2:
        return [list(rows)]
    parts: dict[Computes, list[BoardRow]] = {}
    for row in rows:
        parts.setdefault(row.computed_by, []).append(row)
    return list(parts.values())


def seed_pairs(rows: Iterable[BoardRow]) -> list[tuple[BoardRow, BoardRow]]:
    """Return all pairs within each group among `rows`: those that noise is measured on."""
    return [pair for group in seed_groups(rows) for pair in combinations(group, 2)]


def same_networks(a: BoardRow, b: BoardRow) -> bool:
    """Return whether two results differ only in steps after training, so that seeds do not affect the change.

    False for blends of different results, since each part has its own seed; for results with equal
    parameters, which must differ in code or weights; for students whose teachers predicted differently; and
    for networks that were not trained alike.
    """
    if a.measured_on != b.measured_on or a.blend != b.blend or len(trained_alike([a, b])) > 1:
        return False
    keys = differing_keys(a.params, b.params)
    if any(key.startswith("predict.") for key in keys) and a.params.get("pseudo.rounds") != "0":
        return False
    return bool(keys) and all(key.startswith(AFTER_TRAINING) for key in keys)


def are_unlike(row: BoardRow, base: BoardRow | None) -> bool:
    """Return whether unlike processors, threads, precisions or versions of torch trained two results.

    A result that is mixed in itself is unlike every other, except one of the same networks: which folds were
    trained on what differs from result to result. False without base, and if either has no record.
    """
    if base is None or not (row.computed_by and base.computed_by):
        return False
    return len(row.computed_by | base.computed_by) > 1 and not (row == base or same_networks(row, base))


def seed_noise(rows: Iterable[BoardRow], compare: Compare = difference) -> SeedNoise | None:
    """Measure the noise on all groups among `rows`; None if no group has two seeds."""
    return pooled_noise(seed_groups(rows), compare)


def pooled_noise(groups: Sequence[Sequence[BoardRow]], compare: Compare = difference) -> SeedNoise | None:
    """Pool the variances of groups with weights of runs minus one; None without groups.

    The part that recordings and seeds share is subtracted once: `beyond`² is 2 `sd`² minus the mean variance
    over recordings, or groups of them, over all pairs of runs. Pairs without score tables subtract nothing.

    Args:
        groups: From `seed_groups`.
        compare: Difference between two results.
    """
    if not groups:
        return None
    pooled = {key: _pooled_variance(groups, key) for key in JUDGED_METRICS}
    known = {key: found for key, found in pooled.items() if found}
    seeds, dof = known[CV]
    changes = [[compare(a, b) for a, b in combinations(group, 2)] for group in groups]
    weighted = zip(groups, changes, strict=True)
    recordings = sum((len(group) - 1) * _mean_variance(of_group) for group, of_group in weighted) / dof
    n_groups = [change.n_groups for of_group in changes for change in of_group if change and change.n_groups]
    return SeedNoise(
        sd={key: sqrt(value) for key, (value, _) in known.items()},
        beyond=sqrt(max(0.0, 2 * seeds - recordings)),
        dof=dof,
        n_runs=sum(map(len, groups)),
        recordings=sqrt(recordings),
        dofs={key: dof for key, (_, dof) in known.items()},
        n_groups=min(n_groups, default=0),
    )


def _pooled_variance(groups: Sequence[Sequence[BoardRow]], key: str) -> tuple[float, int] | None:
    """Return a metric's variance within groups and its degrees of freedom; None if no group has it twice."""
    values = [[row.metrics[key] for row in group if isfinite(row.metrics.get(key, nan))] for group in groups]
    several = [group for group in values if len(group) > 1]
    dof = sum(len(group) - 1 for group in several)
    return (sum(_squares(group) for group in several) / dof, dof) if dof else None


def _squares(values: Sequence[float]) -> float:
    """Return the sum of squared distances from the mean."""
    mean = fmean(values)
    return sum((value - mean) ** 2 for value in values)


def _mean_variance(changes: Iterable[Difference | None]) -> float:
    """Return the mean variance over recordings of changes, 0 for one without score tables."""
    return fmean(change.sd**2 if change and not isnan(change.sd) else 0.0 for change in changes)


class NoiseOfRows:
    """Noise that applies to each row, measured once for each setting."""

    def __init__(self, rows: Sequence[BoardRow], compare: Compare = difference) -> None:
        """Take all results, oldest first, and the difference between two of them."""
        self._rows = rows
        self._compare = compare
        self._known: dict[tuple[str, ...], SeedNoise | None] = {}

    def of(self, row: BoardRow) -> SeedNoise | None:
        """Return noise from the nearest of SCOPES with enough seeds, else from the nearest with any."""
        found = [noise for keys in SCOPES if (noise := self._within(row, keys))]
        return next((noise for noise in found if noise.dof >= MIN_DOF), found[0] if found else None)

    def between(self, row: BoardRow, base: BoardRow | None) -> SeedNoise | None:
        """Return the noise of a change from `base`, possibly the row itself; without base that of the row."""
        return NO_SEEDS if base and (base == row or same_networks(row, base)) else self.of(row)

    def _within(self, row: BoardRow, keys: tuple[str, ...]) -> SeedNoise | None:
        setting = _setting(row, keys)
        if setting not in self._known:
            alike = [other for other in self._rows if _setting(other, keys) == setting]
            self._known[setting] = seed_noise(alike, self._compare)
        return self._known[setting]


def _setting(row: BoardRow, keys: tuple[str, ...]) -> tuple[str, ...]:
    return (row.data_md5, *(row.params.get(key, "") for key in keys))
