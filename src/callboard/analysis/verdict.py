"""Judgement of whether a change is real, given recordings and seeds; derived in docs/appendix/verdict.md.

`judge` and `judge_lb` compare two runs, with the noise measured on other runs; `judge_cv_mean` and
`judge_lb_mean` judge the mean change over several seeds by the seeds themselves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from math import copysign, floor, inf, nan, sqrt
from statistics import fmean, stdev, variance

from callboard.analysis.difference import Difference
from callboard.analysis.differences import mean_difference
from callboard.analysis.seed_noise import MIN_DOF, SeedNoise
from callboard.results.rows import CV, BoardRow

UPPER = 0.975
"""Quantile at the upper end of a 95 % interval."""


class Verdict(Enum):
    """Outcome of a judgement."""

    BETTER = auto()
    WORSE = auto()
    WITHIN_NOISE = auto()
    UNSURE = auto()
    """No interval is known."""
    OPTIMISTIC = auto()
    """CV cannot be trusted."""


@dataclass(frozen=True)
class Judgement:
    """A verdict with the 95 % interval that it follows from; NaN if there is none."""

    verdict: Verdict
    low: float = nan
    high: float = nan
    p_better: float = nan
    has_seeds: bool = True
    """Whether the interval covers seeds too, not only recordings."""
    is_tentative: bool = False
    """Whether BETTER or WORSE rests on seeds that were measured on few runs or not at all."""


Pairs = Sequence[tuple[BoardRow, BoardRow]]
"""Results of a row, each with its base's result of the same seed."""

CompareMeans = Callable[[Pairs], Difference | None]
"""Difference between the mean of results and that of their bases."""

Measured = tuple[float, float]
"""A part of a variance, and the degrees of freedom that it was measured with; infinite if it is exact."""

MIN_PAIRS = 2
"""Number of pairs needed to measure the effect of seeds."""

SURE_PAIRS = 3
"""Pairs from which the verdict on a mean CV is sure. With two, up to 8 % of simulated equal recipes were
called different instead of 5 %, see docs/appendix/verdict.md."""


def judge(change: Difference | None, noise: SeedNoise | None) -> Judgement | None:
    """Judge a change of CV between two runs.

    The interval is `value` ± t · sqrt(`change.sd`² + `noise.beyond`²), with t at the degrees of freedom that
    Welch and Satterthwaite give a sum of which one part, 2 sd² over seeds, was measured on few runs, and
    one, `change.sd`², on few groups if recordings have groups. With fewer than MIN_DOF degrees the measured
    noise counts as exact. Without noise the interval is that of the recordings or groups.

    Args:
        change: From `difference_of`; None gives None.
        noise: Measured on runs like these; None if it was not measured.
    """
    if change is None:
        return None
    if not change.has_interval:
        return Judgement(Verdict.UNSURE)
    if noise is None:
        found = Judgement(_verdict(change.low, change.high), change.low, change.high, change.p_better)
        return replace(_tentative(found), has_seeds=False)
    return _judge_cv(change, noise)


def _judge_cv(change: Difference, noise: SeedNoise) -> Judgement:
    over_recordings, over_seeds = (change.sd**2, change.dof), (2 * noise.sd[CV] ** 2, noise.dof)
    return _judge_run(change.value, change.sd**2 + noise.beyond**2, over_seeds, over_recordings)


def judge_lb(change: float | None, key: str, noise: SeedNoise | None) -> Judgement | None:
    """Judge whether a different seed would change a leaderboard score as much on the same test recordings.

    Their labels are unknown, so nothing is resampled: the effect of other test recordings is left out.

    Args:
        change: None gives None.
        key: `lb.public` or `lb.private`.
        noise: Measured on runs like these.
    """
    if change is None:
        return None
    if noise is None or key not in noise.sd:
        return Judgement(Verdict.UNSURE)
    return _judge_lb(change, key, noise)


def _judge_lb(value: float, key: str, noise: SeedNoise) -> Judgement:
    over_seeds = 2 * noise.sd[key] ** 2
    return _judge_run(value, over_seeds, (over_seeds, noise.dofs[key]))


def least_change(noise: SeedNoise, key: str = CV) -> float:
    """Return half the 95 % interval of a change between two single runs, neither started from the other.

    Raises:
        KeyError: the noise of that score was not measured.
    """
    if key != CV:
        return _judge_lb(0.0, key, noise).high
    return _judge_cv(Difference(0.0, sd=noise.recordings, n_groups=noise.n_groups), noise).high


def judge_cv_mean(pairs: Pairs, compare: CompareMeans = mean_difference) -> Judgement | None:
    """Judge the mean change of CV over seeds.

    The standard error over recordings, or groups, is of the means over all seeds. It covers part of the
    effect of seeds: their random effect on single recordings, known from how much smaller its variance is
    for the mean than for single pairs. The rest of the variance over seeds, divided by the number of pairs,
    is added.

    Args:
        pairs: Two or more.
        compare: Difference between means over pairs.

    Returns:
        None if a result has no CV; UNSURE if a score table is gone; tentative below SURE_PAIRS.
    """
    change, singles = compare(pairs), [compare([pair]) for pair in pairs]
    if change is None or None in singles:
        return None
    if not change.has_interval:
        return Judgement(Verdict.UNSURE)
    n_pairs = len(pairs)
    over_seeds = variance(one.value for one in singles if one)
    by_pair = fmean(one.sd**2 for one in singles if one)
    by_chance = max(0.0, by_pair - change.sd**2) * n_pairs / (n_pairs - 1)
    whole = change.sd**2 + max(0.0, over_seeds - by_chance) / n_pairs
    measured = ((over_seeds / n_pairs, n_pairs - 1), (change.sd**2, change.dof))
    found = judge_by_t(change.value, whole, effective_dof(whole, *measured))
    return found if n_pairs >= SURE_PAIRS else _tentative(found)


def judge_lb_mean(changes: Sequence[float]) -> Judgement:
    """Judge whether other seeds would change a leaderboard score as much in the mean on the same recordings.

    Args:
        changes: One for each pair, two or more.

    Returns:
        UNSURE if all are equal and not 0: scores of few digits cannot show how far they spread.
    """
    if len(set(changes)) == 1 and changes[0]:
        return Judgement(Verdict.UNSURE)
    return judge_by_t(fmean(changes), stdev(changes) ** 2 / len(changes), len(changes) - 1)


def flag_optimistic(judgement: Judgement | None, row: BoardRow, base: BoardRow) -> Judgement | None:
    """Return the judgement, or OPTIMISTIC where it would depend on a CV that saw its own labels.

    Such a CV is too high by an unknown amount: WORSE in spite of it stands, as does BETTER than it. If
    networks labelled their own training recordings, CV is not out of fold and no verdict stands.
    """
    if judgement is None or not (row.is_optimistic or base.is_optimistic):
        return judgement
    stands = Verdict.WORSE if row.is_optimistic else Verdict.BETTER
    is_either = not (row.is_optimistic and base.is_optimistic)
    is_out_of_fold = not (row.is_unisolated or base.is_unisolated)
    if is_out_of_fold and is_either and judgement.verdict is stands:
        return judgement
    return replace(judgement, verdict=Verdict.OPTIMISTIC, is_tentative=False)


def effective_dof(whole: float, *measured: Measured) -> float:
    """Return the degrees of freedom of a partly measured variance, by Welch and Satterthwaite.

    Args:
        whole: The variance.
        measured: The parts that were measured; the rest is taken as exact.
    """
    degrees = [dof * (whole / part) ** 2 for part, dof in measured if part and dof != inf]
    return degrees[0] if len(degrees) == 1 else 1 / sum(1 / one for one in degrees) if degrees else inf


def judge_by_t(value: float, error_variance: float, dof: float) -> Judgement:
    """Judge a change by Student's t distribution.

    Args:
        value: The change.
        error_variance: Square of its standard error.
        dof: Degrees of freedom of the error; infinite if it is exact. A fraction is rounded down, which
            widens the interval, and less than 1 counts as 1.
    """
    from scipy.special import stdtr, stdtrit  # scipy.stats would take as long to import as the whole board

    whole, error = max(1.0, dof if dof == inf else floor(dof)), sqrt(error_variance)
    half = float(stdtrit(whole, UPPER)) * error
    low, high = value - half, value + half
    scaled = value / error if error else copysign(inf, value) if value else 0.0
    return Judgement(_verdict(low, high), low, high, float(stdtr(whole, scaled)))


def _judge_run(value: float, whole: float, over_seeds: Measured, *others: Measured) -> Judgement:
    """Judge a change between single runs; tentative where the noise has fewer than MIN_DOF degrees."""
    if over_seeds[1] >= MIN_DOF:
        return judge_by_t(value, whole, effective_dof(whole, over_seeds, *others))
    return _tentative(judge_by_t(value, whole, effective_dof(whole, *others)))


def _tentative(judgement: Judgement) -> Judgement:
    return replace(judgement, is_tentative=judgement.verdict is not Verdict.WITHIN_NOISE)


def _verdict(low: float, high: float) -> Verdict:
    if low <= 0 <= high:
        return Verdict.WITHIN_NOISE
    return Verdict.BETTER if low > 0 else Verdict.WORSE
