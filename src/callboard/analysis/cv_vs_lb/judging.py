"""Whether CV still follows LB: over all runs, among the best by CV, and block by block in their order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from callboard.analysis.bootstrap import N_BOOTSTRAP, SEED
from callboard.analysis.correlation import (
    CORRELATIONS,
    N_LEAST,
    Correlation,
    CorrelationKind,
    Numbers,
    change,
    correlation,
    resampled_interval,
    spearman,
)
from callboard.analysis.cv_vs_lb.runs import MIN_BLOCK, ScoredRun, blocks, pairs

BEST_SHARE = 1 / 3
"""Of the runs, those called the best."""

WEAK = 0.3
"""A correlation that is surely below this chooses little better than a coin: it has two runs in the right
order in 60 % of cases (for normal scores, 1/2 + arcsin(r)/π)."""

ORDER = "Spearman"
"""The kind of correlation that decides, as runs are chosen by their order; one far run can make Pearson's
anything."""

MIN_RUNS = 10
"""Runs below which nothing is said of CV and LB, and from which a correlation of 0 or less counts as lost,
whatever its interval."""


def best_by_cv(cv: Numbers) -> NDArray[np.bool_]:
    """(runs,) whether a run is among the best third by CV; ties at the edge are all in."""
    n_best = max(N_LEAST, round(BEST_SHARE * len(cv)))
    is_best: NDArray[np.bool_] = cv >= np.sort(cv)[-n_best]
    return is_best


def range_alone(kind: CorrelationKind, cv: Numbers, lb: Numbers) -> Correlation:
    """The correlation that the best third by CV would have if the line through all runs held there too.

    Where CV spans less, the same scatter hides more of the line, so the correlation falls though nothing is
    wrong (Thorndike's case 2 in closed form, for Pearson). Draws LB anew as the line plus a residual of any
    run, with CV as it is; the interval is of the draws. Assumes a straight line, equal scatter along it, and
    line and scatter as found in these runs. NaN where the CV of the best, or LB, is the same in all runs.
    """
    is_best = best_by_cv(cv)
    if np.ptp(cv[is_best]) == 0 or np.ptp(lb) == 0:
        return Correlation(np.nan, np.nan, np.nan, int(is_best.sum()))
    slope, intercept = np.polyfit(cv, lb, 1)
    line = slope * cv + intercept
    rng = np.random.default_rng(SEED)
    drawn = line + rng.choice(lb - line, size=(N_BOOTSTRAP, len(cv)))
    expected = kind(np.broadcast_to(cv[is_best], (N_BOOTSTRAP, is_best.sum())), drawn[:, is_best])
    low, high = resampled_interval(expected)
    return Correlation(float(np.nanmean(expected)), low, high, int(is_best.sum()))


def is_lost(found: Correlation) -> bool:
    """Whether CV says nothing of LB: surely below WEAK, or none at all over MIN_RUNS or more."""
    return bool(found.high < WEAK or (found.value <= 0 and found.n >= MIN_RUNS))


@dataclass(frozen=True)
class Trust:
    """What the runs say, by kind of correlation.

    A loss among the best counts only where it is more than their narrower range explains: choosing by CV
    always lowers the correlation with CV among the chosen.
    """

    everything: dict[str, Correlation]
    best: dict[str, Correlation]
    """Among the best third by CV."""
    best_by_range: dict[str, Correlation]
    """What the range of their CV alone would leave."""
    blocks: "list[RunBlock]"

    @property
    def is_too_few(self) -> bool:
        """Whether there are fewer than MIN_RUNS runs."""
        return self.everything[ORDER].n < MIN_RUNS

    @property
    def is_lost(self) -> bool:
        """Whether CV says nothing of LB over all runs or in the last block."""
        return not self.is_too_few and (is_lost(self.everything[ORDER]) or self._is_lost_late)

    @property
    def _is_lost_late(self) -> bool:
        return len(self.blocks) > 1 and is_lost(self.blocks[-1].correlations[ORDER])

    @property
    def is_lost_among_best(self) -> bool:
        """Whether it says nothing among the best by CV, and less than their range alone would leave."""
        best = self.best[ORDER]
        return not self.is_too_few and is_lost(best) and best.value < self.best_by_range[ORDER].low

    @property
    def lost(self) -> list[str]:
        """Where CV does not order LB, each in words; nowhere as long as there are too few runs to say."""
        if self.is_too_few:
            return []
        overall, best, last = self.everything[ORDER], self.best[ORDER], self.blocks[-1]
        late = last.correlations[ORDER]
        range_leaves = format_correlation(self.best_by_range[ORDER])
        places = [
            (is_lost(overall), f"over all {overall.n} runs: {format_correlation(overall)}"),
            (self._is_lost_late, f"in the last {late.n}, {last.name}: {format_correlation(late)}"),
            (
                self.is_lost_among_best,
                f"among the best {best.n} by CV: {format_correlation(best)}, "
                f"where their range alone leaves {range_leaves}",
            ),
        ]
        return [text for is_here, text in places if is_here]

    @property
    def verdict(self) -> str:
        """What to do, in a sentence or two."""
        overall, best = self.everything[ORDER], self.best[ORDER]
        if np.isnan(overall.value):
            return "CV or LB is the same in all runs: nothing can be said."
        if self.is_too_few:
            return f"{overall.n} runs are too few to say whether CV follows LB: it takes {MIN_RUNS}."
        if self.is_lost:
            return "CV no longer predicts LB: choose by LB or hold-outs, not by CV."
        if self.is_lost_among_best:
            return (
                "CV tells good runs from bad, but no longer predicts LB among the best: choose among those "
                "by LB or hold-outs, not by CV."
            )
        if overall.low <= 0:
            correlation = f"{ORDER} {format_correlation(overall)}"
            return f"Whether CV follows LB cannot be told from {overall.n} runs: {correlation}."
        text = f"CV follows LB: {ORDER} {format_correlation(overall)} over {overall.n} runs."
        if best.low > 0:
            return text
        correlation = format_correlation(best)
        return f"{text} Among the best {best.n} by CV its order cannot be told from chance: {correlation}."


@dataclass(frozen=True)
class RunBlock:
    """Consecutive runs."""

    name: str
    correlations: dict[str, Correlation]
    change: Correlation | None
    """Of Spearman's against the block before; None in the first."""


def trust(runs: Sequence[ScoredRun], least: int = MIN_BLOCK) -> Trust:
    """How CV follows LB over these runs.

    Args:
        runs: In their order.
        least: Runs of a block.
    """
    cv, lb = pairs(runs)
    is_best = best_by_cv(cv)
    return Trust(
        {name: correlation(kind, cv, lb) for name, kind in CORRELATIONS.items()},
        {name: correlation(kind, cv[is_best], lb[is_best]) for name, kind in CORRELATIONS.items()},
        {name: range_alone(kind, cv, lb) for name, kind in CORRELATIONS.items()},
        _blocks(blocks(runs, least)),
    )


def _blocks(joined: Sequence[Sequence[ScoredRun]]) -> list[RunBlock]:
    found = []
    for number, block in enumerate(joined):
        found.append(
            RunBlock(
                f"{block[0].name} … {block[-1].name}",
                {name: correlation(kind, *pairs(block)) for name, kind in CORRELATIONS.items()},
                change(spearman, pairs(joined[number - 1]), pairs(block)) if number else None,
            )
        )
    return found


def format_correlation(found: Correlation) -> str:
    """`+0.55 (+0.27 … +0.76)`."""
    if np.isnan(found.value):
        return "–"
    return f"{found.value:+.2f} ({found.low:+.2f} … {found.high:+.2f})"
