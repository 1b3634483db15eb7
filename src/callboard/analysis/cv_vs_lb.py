"""Compare CV with LB: over all runs, among the best by CV, and in blocks of consecutive runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from callboard.analysis.bootstrap import N_BOOTSTRAP, SEED
from callboard.analysis.correlation import (
    CORRELATIONS,
    N_LEAST,
    Correlation,
    CorrelationKind,
    Numbers,
    ScorePairs,
    change,
    correlation,
    resampled_interval,
    spearman,
)
from callboard.core.errors import UserError
from callboard.experiments.author_scores import author_rows
from callboard.experiments.table import ExperimentTable
from callboard.results.rows import BoardRow, same_truth

MIN_BLOCK = 15
"""Runs that a block needs: with fewer, a correlation below 0.5 cannot be distinguished from none."""

BEST_SHARE = 1 / 3
"""Share of the runs that counts as the best."""

WEAK = 0.3
"""A correlation that is surely below this chooses little better than a coin: it puts two runs in the right
order in 60 % of cases (for normal scores, 1/2 + arcsin(r)/π)."""

ORDER = "Spearman"
"""The kind of correlation that decides, since runs are chosen by their order; a single outlier can dominate
Pearson's."""

MIN_RUNS = 10
"""Runs below which nothing is concluded about CV and LB, and from which a correlation of 0 or less counts as
lost, whatever its interval."""


@dataclass(frozen=True)
class ScoredRun:
    """A run with both scores."""

    name: str
    cv: float
    lb: float
    block: int | str
    """Runs of one block stay together; each result is a block of its own."""


def points_of_results(rows: Sequence[BoardRow], lb: str = "lb.public") -> tuple[list[BoardRow], Counter[str]]:
    """Choose the results with CV and LB that can be compared; count the others by reason.

    Those of the most common data and annotations are kept, whatever their features. Results that share
    out-of-fold scores and submission count once, though their parameters differ.

    Args:
        rows: Oldest first.
        lb: Metric.

    Raises:
        UserError: fewer than N_LEAST are left.
    """
    left_out: Counter[str] = Counter()
    with_both = []
    for row in rows:
        if "cv.lwlrap" not in row.metrics:
            left_out["without CV"] += 1
        elif lb not in row.metrics:
            left_out["without LB"] += 1
        else:
            with_both.append(row)
    counted = Counter(row.measured_on for row in with_both)
    newest_first = with_both[::-1]
    groups = _of_one_truth(sorted(newest_first, key=lambda row: -counted[row.measured_on]))
    alike = set(map(id, max(groups, key=len, default=())))
    kept: dict[tuple[str, ...], BoardRow] = {}
    for row in with_both:
        content = (row.oof_md5, row.submission_md5) if row.oof_md5 and row.submission_md5 else (row.key,)
        if id(row) not in alike:
            left_out["of different data"] += 1
        elif content in kept:
            left_out["with the same scores as another"] += 1
        else:
            kept[content] = row
    _refuse_few(len(kept), left_out)
    return list(kept.values()), left_out


def _of_one_truth(rows: Sequence[BoardRow]) -> list[list[BoardRow]]:
    """Group rows that can all be compared; each row joins the first group that it fits."""
    groups: list[list[BoardRow]] = []
    for row in rows:
        group = next((group for group in groups if all(same_truth(row, other) for other in group)), None)
        if group is None:
            groups.append([row])
        else:
            group.append(row)
    return groups


def _refuse_few(n_kept: int, left_out: Counter[str]) -> None:
    if n_kept < N_LEAST:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise UserError(
            f"trust needs {N_LEAST} runs with both CV and LB, found {n_kept}{why and f' (left out: {why})'}; "
            "run more rows with `callboard run`, or add scores with `callboard lb add`"
        )


def points(rows: Sequence[BoardRow], lb: str = "lb.public") -> list[ScoredRun]:
    """Return scored runs of the results that `points_of_results` kept, each a block of its own."""
    return [
        ScoredRun(row.name, row.metrics["cv.lwlrap"], row.metrics[lb], number)
        for number, row in enumerate(rows)
    ]


def author_points(table: ExperimentTable) -> list[ScoredRun]:
    """Return scored runs of the original author's rows with both scores, in the table's order and blocks."""
    return [
        ScoredRun(row.name, row.cv, row.lb, row.block)
        for row in author_rows(table)
        if row.cv is not None and row.lb is not None
    ]


def pairs(runs: Sequence[ScoredRun]) -> ScorePairs:
    """Return CV and LB, each (runs,)."""
    return np.array([run.cv for run in runs]), np.array([run.lb for run in runs])


def blocks(runs: Sequence[ScoredRun], least: int = MIN_BLOCK) -> list[list[ScoredRun]]:
    """Join consecutive blocks until they have `least` runs; a rest with fewer joins the block before."""
    joined: list[list[ScoredRun]] = []
    for _, block in groupby(runs, key=lambda run: run.block):
        if joined and len(joined[-1]) < least:
            joined[-1] += block
        else:
            joined.append(list(block))
    if len(joined) > 1 and len(joined[-1]) < least:
        too_few = joined.pop()
        joined[-1] += too_few
    return joined


def best_by_cv(cv: Numbers) -> NDArray[np.bool_]:
    """Return (runs,) whether a run is among the best third by CV; ties at the edge are all included."""
    n_best = max(N_LEAST, round(BEST_SHARE * len(cv)))
    is_best: NDArray[np.bool_] = cv >= np.sort(cv)[-n_best]
    return is_best


def range_alone(kind: CorrelationKind, cv: Numbers, lb: Numbers) -> Correlation:
    """Compute the correlation that the best third by CV would have if the line through all runs held there.

    Where CV has a narrower range, the same scatter hides more of the line, so the correlation falls though
    nothing is wrong (Thorndike's case 2 in closed form, for Pearson). Draws LB anew as the line plus a
    random run's residual, with CV unchanged; the interval is of the draws. Assumes a straight line, equal
    scatter along it, and line and scatter as found in these runs. NaN if the CV of the best, or LB, is the
    same in all runs.
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
    """Return whether CV says nothing about LB: surely below WEAK, or at most 0 over MIN_RUNS or more."""
    return bool(found.high < WEAK or (found.value <= 0 and found.n >= MIN_RUNS))


@dataclass(frozen=True)
class Trust:
    """Agreement of CV with LB, by kind of correlation.

    A loss among the best counts only if it exceeds what their narrower range explains: choosing by CV always
    lowers the correlation with CV among the chosen.
    """

    everything: dict[str, Correlation]
    best: dict[str, Correlation]
    """Among the best third by CV."""
    best_by_range: dict[str, Correlation]
    """Correlation that the range of their CV alone would leave."""
    blocks: "list[RunBlock]"

    @property
    def is_too_few(self) -> bool:
        """Whether there are fewer than MIN_RUNS runs."""
        return self.everything[ORDER].n < MIN_RUNS

    @property
    def is_lost(self) -> bool:
        """Whether CV says nothing about LB over all runs or in the last block."""
        return not self.is_too_few and (is_lost(self.everything[ORDER]) or self.is_lost_late)

    @property
    def is_lost_late(self) -> bool:
        """Whether CV says nothing about LB in the last of several blocks."""
        return len(self.blocks) > 1 and is_lost(self.blocks[-1].correlations[ORDER])

    @property
    def is_lost_among_best(self) -> bool:
        """Whether CV says nothing about LB among the best by CV, and less than their range would leave."""
        best = self.best[ORDER]
        return not self.is_too_few and is_lost(best) and best.value < self.best_by_range[ORDER].low


@dataclass(frozen=True)
class RunBlock:
    """Consecutive runs."""

    name: str
    correlations: dict[str, Correlation]
    change: Correlation | None
    """Change of Spearman's from the block before; None in the first block."""


def trust(runs: Sequence[ScoredRun], least: int = MIN_BLOCK) -> Trust:
    """Measure how CV follows LB over these runs.

    Args:
        runs: Runs in order.
        least: Runs that a block needs.
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
