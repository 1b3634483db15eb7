"""What another seed alone does to a score, and whether a change is more; derived in docs/better.md."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import copysign, inf, isfinite, isnan, nan, sqrt
from statistics import fmean, variance

from callboard.analysis.difference import Difference
from callboard.analysis.differences import difference
from callboard.analysis.student import t_cdf, t_quantile
from callboard.results.rows import BoardRow
from callboard.results.settings import CV, Setting, newest_by_seed, setting_of

SCORE_HEADINGS = {CV: "CV", "lb.public": "LB public", "lb.private": "LB private"}
"""Scores that are judged, with what heads their column."""

JUDGED_METRICS = tuple(SCORE_HEADINGS)

UPPER = 0.975
"""Quantile at the upper end of a 95 % interval."""

MIN_DOF = 3
"""With fewer, t would be above 4 and call everything noise: what there is is used as if it were exact, and
the word gets a question mark."""

AFTER_TRAINING = ("predict.", "infer.", "evaluate.")
"""Sections of parameters that do nothing to the networks."""

SCOPES: tuple[tuple[str, ...], ...] = (("split.folds", "split.seed", "train.epochs"), ())
"""Where the noise of a row is looked for, the nearest first: parameters that must agree, besides the data."""

Compare = Callable[[BoardRow, BoardRow], Difference | None]
"""How two results differ."""


@dataclass(frozen=True)
class SeedNoise:
    """What another seed alone does, pooled over groups of runs that differ in nothing but `seed`."""

    sd: dict[str, float]
    """Metric (`cv.lwlrap`, `lb.public`, `lb.private`) to the standard deviation of one run over seeds."""
    beyond: float
    """Of a CV difference between two seeds: the part that the bootstrap over recordings does not hold."""
    dof: int
    """Degrees of freedom of the CV's: runs minus groups."""
    n_runs: int
    recordings: float = 0.0
    """The part that it does hold: root mean square of its standard errors; 0 where no tables are at hand."""
    dofs: dict[str, int] = field(default_factory=dict)
    """The same as `dof`, by metric."""


@dataclass(frozen=True)
class Judgement:
    """Whether a change is real, with the 95 % interval that says so; NaN where there is none."""

    word: str
    """`better`, `worse` or `within noise`, with `?` where seeds are measured too thinly or not at all;
    `unsure` without interval; `optimistic` where CV cannot be trusted."""
    low: float = nan
    high: float = nan
    p_better: float = nan
    has_seeds: bool = True
    """Whether the interval holds what seeds do too, not the recordings alone."""


def seed_groups(rows: Iterable[BoardRow]) -> list[list[BoardRow]]:
    """Results that differ in nothing but `seed`, two or more to a group; of one seed the newest counts.

    Blends are left out, as their seed does nothing; so are results without data or with a CV that is no
    finite number.

    Args:
        rows: Oldest first.
    """
    groups: dict[Setting, list[BoardRow]] = {}
    for row in rows:
        if isfinite(row.metrics.get(CV, nan)) and row.data_md5 and not row.blend:
            groups.setdefault(setting_of(row), []).append(row)
    found = [list(newest_by_seed(group).values()) for group in groups.values()]
    return [group for group in found if len(group) > 1]


def same_networks(a: BoardRow, b: BoardRow) -> bool:
    """Whether two results differ only in what is done after training, so that seeds have no part in it.

    Blends of different results do not: each of these has its own seed. Nor do results of equal parameters,
    whose code or weights must differ, nor students whose teachers predicted in another way.
    """
    if a.measured_on != b.measured_on or a.blend != b.blend:
        return False
    keys = {key for key in a.params.keys() | b.params.keys() if a.params.get(key) != b.params.get(key)}
    if any(key.startswith("predict.") for key in keys) and a.params.get("pseudo.rounds") != "0":
        return False
    return bool(keys) and all(key.startswith(AFTER_TRAINING) for key in keys)


def seed_pairs(rows: Iterable[BoardRow]) -> list[tuple[BoardRow, BoardRow]]:
    """All pairs of each group among `rows`: those that noise is measured on."""
    return [pair for group in seed_groups(rows) for pair in combinations(group, 2)]


def seed_noise(rows: Iterable[BoardRow], compare: Compare = difference) -> SeedNoise | None:
    """Pooled over the groups among `rows`; None where no group has two seeds."""
    return pooled_noise(seed_groups(rows), compare)


def pooled_noise(groups: Sequence[Sequence[BoardRow]], compare: Compare = difference) -> SeedNoise | None:
    """Variances of groups, pooled with weights of runs minus one; None without groups.

    What bootstrap and seeds have in common is subtracted once: `beyond`² is 2 `sd`² minus the mean variance
    of the bootstrap over all pairs of a group. Pairs whose tables are gone subtract nothing.

    Args:
        groups: As `seed_groups` makes them.
        compare: How two results differ.
    """
    if not groups:
        return None
    pooled = {key: _pooled_variance(groups, key) for key in JUDGED_METRICS}
    known = {key: found for key, found in pooled.items() if found}
    seeds, dof = known[CV]
    recordings = sum((len(group) - 1) * _bootstrap_variance(group, compare) for group in groups) / dof
    return SeedNoise(
        sd={key: sqrt(value) for key, (value, _) in known.items()},
        beyond=sqrt(max(0.0, 2 * seeds - recordings)),
        dof=dof,
        n_runs=sum(map(len, groups)),
        recordings=sqrt(recordings),
        dofs={key: dof for key, (_, dof) in known.items()},
    )


def _pooled_variance(groups: Sequence[Sequence[BoardRow]], key: str) -> tuple[float, int] | None:
    """Variance of a metric within groups and its degrees of freedom; None where no group has it twice."""
    values = [[row.metrics[key] for row in group if isfinite(row.metrics.get(key, nan))] for group in groups]
    several = [group for group in values if len(group) > 1]
    dof = sum(len(group) - 1 for group in several)
    return (sum((len(group) - 1) * variance(group) for group in several) / dof, dof) if dof else None


def _bootstrap_variance(group: Sequence[BoardRow], compare: Compare) -> float:
    """Mean over pairs."""
    found = [compare(a, b) for a, b in combinations(group, 2)]
    return fmean(change.sd**2 if change and not isnan(change.sd) else 0.0 for change in found)


NO_SEEDS = SeedNoise(sd={CV: 0.0}, beyond=0.0, dof=MIN_DOF, n_runs=0)
"""Between two results of the same networks."""


class NoiseOfRows:
    """The noise of each row's own setting, worked out once per setting."""

    def __init__(self, rows: Sequence[BoardRow], compare: Compare = difference) -> None:
        """Take all results, oldest first, and how two of them differ."""
        self._rows = rows
        self._compare = compare
        self._known: dict[tuple[str, ...], SeedNoise | None] = {}

    def of(self, row: BoardRow) -> SeedNoise | None:
        """Of the nearest of SCOPES with enough seeds, else of the nearest with any."""
        found = [noise for keys in SCOPES if (noise := self._within(row, keys))]
        return next((noise for noise in found if noise.dof >= MIN_DOF), found[0] if found else None)

    def between(self, row: BoardRow, base: BoardRow | None) -> SeedNoise | None:
        """The noise of a change from `base`, which may be the row itself; without base that of the row."""
        return NO_SEEDS if base and (base == row or same_networks(row, base)) else self.of(row)

    def _within(self, row: BoardRow, keys: tuple[str, ...]) -> SeedNoise | None:
        setting = _setting(row, keys)
        if setting not in self._known:
            alike = [other for other in self._rows if _setting(other, keys) == setting]
            self._known[setting] = seed_noise(alike, self._compare)
        return self._known[setting]


def _setting(row: BoardRow, keys: tuple[str, ...]) -> tuple[str, ...]:
    return (row.data_md5, *(row.params.get(key, "") for key in keys))


def judge(change: Difference | None, noise: SeedNoise | None) -> Judgement | None:
    """Whether one run is better than another in CV, recordings and seeds taken together.

    The interval is the narrower of two. One is `value` ± t · sqrt(`change.sd`² + `noise.beyond`²), t with the
    degrees of freedom that Welch and Satterthwaite give a sum of which one part was measured on few seeds.
    Where the sum is far below 2 sd² over seeds, what is left of that is hardly known, and t large. The other
    takes 2 sd² itself for `beyond`²: too large a variance, but known with all of the noise's degrees or more.
    Which of the two is narrower hardly depends on the change: false alarms stay about as rare as with the
    first alone (docs/better.md). With fewer than MIN_DOF degrees what was measured counts as exact. Without
    noise the interval is that of the recordings.

    Args:
        change: From a paired bootstrap over recordings; None gives None.
        noise: Of runs like these; None where seeds were not measured.
    """
    if change is None:
        return None
    if not change.has_interval:
        return Judgement("unsure")
    if noise is None:
        word = _word(change.low, change.high, "?")
        return Judgement(word, change.low, change.high, change.p_better, has_seeds=False)
    return _of_both(change.value, change.sd, noise)


def _of_both(value: float, sd: float, noise: SeedNoise) -> Judgement:
    """By the narrower of two intervals.

    Args:
        value: The change.
        sd: Its standard error by recordings.
        noise: Of runs like these.
    """
    over_seeds = 2 * noise.sd[CV] ** 2
    once, twice = (sd**2 + beyond for beyond in (noise.beyond**2, over_seeds))
    if noise.dof < MIN_DOF:
        return _too_few(value, once)
    found = [
        judged_by_t(value, sqrt(whole), effective_dof(whole, over_seeds, noise.dof))
        for whole in (once, twice)
    ]
    return min(found, key=lambda judgement: judgement.high - judgement.low)


def effective_dof(whole: float, measured: float, dof: int) -> float:
    """Degrees of freedom of a variance of which a part was measured, by Welch and Satterthwaite.

    Args:
        whole: The variance.
        measured: What was measured on seeds; of the rest it is assumed that it is exact.
        dof: Of what was measured.
    """
    return dof * (whole / measured) ** 2 if measured else inf


def judge_lb(change: float | None, key: str, noise: SeedNoise | None) -> Judgement | None:
    """Whether a change of a leaderboard score is more than another seed would do on the same test recordings.

    The truth is not known, so nothing is resampled: how other test recordings would move it is left out.

    Args:
        change: None gives None.
        key: `lb.public` or `lb.private`.
        noise: Of runs like these.
    """
    if change is None:
        return None
    if noise is None or key not in noise.sd:
        return Judgement("unsure")
    return _of_seeds(change, key, noise)


def _of_seeds(value: float, key: str, noise: SeedNoise) -> Judgement:
    over_seeds, dof = 2 * noise.sd[key] ** 2, noise.dofs[key]
    return judged_by_t(value, sqrt(over_seeds), dof) if dof >= MIN_DOF else _too_few(value, over_seeds)


def least_change(noise: SeedNoise, key: str = CV) -> float:
    """Half the 95 % interval of a change between two single runs, neither of which starts from the other.

    Raises:
        KeyError: the noise of that score was not measured.
    """
    return (_of_both(0.0, noise.recordings, noise) if key == CV else _of_seeds(0.0, key, noise)).high


def flag_optimistic(judgement: Judgement | None, row: BoardRow, base: BoardRow) -> Judgement | None:
    """The judgement, or `optimistic` where it would hang on a CV that saw its own labels.

    Such a CV is too high by an unknown amount: `worse` in spite of it stands, as does `better` than it. Where
    networks labelled what they had trained on, CV is not out of fold and no verdict stands.
    """
    if judgement is None or not (row.is_optimistic or base.is_optimistic):
        return judgement
    if row.is_unisolated or base.is_unisolated:
        return replace(judgement, word="optimistic")
    stands = "worse" if row.is_optimistic else "better"
    both = row.is_optimistic and base.is_optimistic
    return (
        judgement if judgement.word.startswith(stands) and not both else replace(judgement, word="optimistic")
    )


def judged_by_t(value: float, error: float, dof: float) -> Judgement:
    """A change with its interval by Student's t.

    Args:
        value: The change.
        error: Its standard error.
        dof: Degrees of freedom of the error; infinite where it is exact.
    """
    half = t_quantile(UPPER, _whole(dof)) * error
    low, high = value - half, value + half
    scaled = value / error if error else copysign(inf, value) if value else 0.0
    return Judgement(_word(low, high), low, high, t_cdf(scaled, max(1.0, dof)))


def _too_few(value: float, whole: float) -> Judgement:
    """With a variance that was measured on too few seeds, as if it were exact."""
    exact = judged_by_t(value, sqrt(whole), inf)
    return replace(exact, word=_word(exact.low, exact.high, "?"))


def _whole(dof: float) -> float:
    """At least 1, a fraction rounded down, which widens."""
    return inf if dof == inf else max(1.0, dof // 1)  # inf // 1 is NaN


def _word(low: float, high: float, mark: str = "") -> str:
    if low <= 0 <= high:
        return "within noise"
    return ("better" if low > 0 else "worse") + mark
