"""Rows of the table over all seeds that they were run with, and each one's gain over its base."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from pathlib import Path
from statistics import fmean

from callboard.analysis.bases import Bases
from callboard.analysis.choice import is_named
from callboard.analysis.difference import Difference
from callboard.analysis.differences import mean_difference, work_out
from callboard.analysis.seed_noise import JUDGED_METRICS, NoiseOfRows
from callboard.analysis.verdict import (
    MIN_PAIRS,
    Judgement,
    Pairs,
    flag_optimistic,
    judge,
    judge_cv_mean,
    judge_lb,
    judge_lb_mean,
)
from callboard.core.console import listed
from callboard.core.errors import UserError, nearest
from callboard.experiments.captions import Caption
from callboard.experiments.steps import TableStep
from callboard.results.rows import CV, BoardRow, newest_by_seed, same_truth


@dataclass(frozen=True)
class Gain:
    """One row of the table."""

    name: str
    rows: list[BoardRow]
    """Results, ordered by seed."""
    base: str
    """Name of the row to compare with; empty if there is none."""
    pairs: Pairs = field(default_factory=list)
    """One pair for each seed that the base was run with too."""
    changes: dict[str, Difference] = field(default_factory=dict)
    """Metric to its mean change over pairs."""
    judgements: dict[str, Judgement] = field(default_factory=dict)
    n_others: int = 0
    """Number of results left out because a newer one has different parameters or data."""

    def values(self, key: str) -> list[float]:
        """Return a metric of each result that has it."""
        return [row.metrics[key] for row in self.rows if isfinite(row.metrics.get(key, nan))]


def gains_of(
    rows: Sequence[BoardRow], captions: Mapping[str, Caption], patterns: Sequence[str] = (), against: str = ""
) -> list[Gain]:
    """Judge the rows of the table that have results, in its order.

    Args:
        rows: All results, oldest first.
        captions: Captions by name of a row of the table.
        patterns: Patterns for `choice.is_named`; empty for all rows.
        against: Row to compare all with; empty to compare each with its base in the table, or, without a
            comparable result of that base, with the row that it was started on.

    Raises:
        UserError: a pattern matches no row, or `against` is not a row or has no results.
    """
    _refuse_unknown(patterns, captions)
    results = _results_by_name(rows, captions)
    _refuse_without_results(against, results, captions)
    chosen = [name for name in results if is_named(patterns, name)]
    newest = {name: _of_newest_setting(of_row) for name, of_row in results.items()}
    held = {
        name: (against, _by_seed(newest[name], results[against]))
        if against
        else _with_base(newest[name], captions[name].step, results, rows)
        for name in chosen
    }
    pairs = {name: found for name, (_, found) in held.items()}
    work_out(pair for of_row in pairs.values() for pair in of_row)
    noise = NoiseOfRows(rows)
    return [
        Gain(
            name,
            newest[name],
            held[name][0],
            pairs[name],
            *_judged(pairs[name], noise),
            n_others=sum(row.setting != newest[name][0].setting for row in results[name]),
        )
        for name in chosen
    ]


def without_results(
    rows: Sequence[BoardRow], captions: Mapping[str, Caption], patterns: Sequence[str] = ()
) -> list[str]:
    """List the rows of the table that the patterns request and that have no result."""
    results = _results_by_name(rows, captions)
    named = [name for name in captions if is_named(patterns, name) and name not in results]
    return named if any(not pattern.startswith("!") for pattern in patterns) else []


def _refuse_unknown(patterns: Sequence[str], captions: Mapping[str, Caption]) -> None:
    for pattern in patterns:
        if not any(is_named([pattern.removeprefix("!")], name) for name in captions):
            hint = "; quote patterns, or the shell expands them to file names" * Path(pattern).exists()
            raise UserError(
                f"{pattern}: matches no row of experiments.yaml{nearest(pattern, captions)}{hint}"
            )


def _refuse_without_results(
    against: str, results: Mapping[str, list[BoardRow]], captions: Mapping[str, Caption]
) -> None:
    if not against or against in results:
        return
    if against not in captions:
        raise UserError(f"--against {against}: is not a row of experiments.yaml{nearest(against, captions)}")
    has = f"rows with results are {listed(list(results))}" if results else "no row has any"
    raise UserError(f"--against {against}: has no result; `callboard run {against}` makes one; {has}")


def _has_cv(row: BoardRow) -> bool:
    return isfinite(row.metrics.get(CV, nan))


def _results_by_name(rows: Sequence[BoardRow], captions: Mapping[str, Caption]) -> dict[str, list[BoardRow]]:
    """Map each row, in the table's order, to its results with a CV, oldest first."""
    with_cv = [row for row in rows if _has_cv(row)]
    found = {name: [row for row in with_cv if name in row.table_names] for name in captions}
    return {name: results for name, results in found.items() if results}


def _of_newest_setting(results: Sequence[BoardRow]) -> list[BoardRow]:
    """Return the results that differ from the newest in nothing but the seed, ordered by seed."""
    by_seed = newest_by_seed(row for row in results if row.setting == results[-1].setting)
    return [by_seed[seed] for seed in sorted(by_seed, key=lambda seed: int(seed or 0))]


def _with_base(
    of_row: Sequence[BoardRow],
    step: TableStep | None,
    results: Mapping[str, list[BoardRow]],
    rows: Sequence[BoardRow],
) -> tuple[str, Pairs]:
    """Return a row's base and their pairs of results: the table's base, if it has results to compare."""
    if step and (pairs := _by_table(of_row, step, rows)):
        return step.base, pairs
    name, others = _started_on(of_row, results, [row for row in rows if _has_cv(row)])
    pairs = _by_seed(of_row, others)
    return (name, pairs) if pairs or not step else (step.base, [])


def _started_on(
    of_row: Sequence[BoardRow], results: Mapping[str, list[BoardRow]], rows: Sequence[BoardRow]
) -> tuple[str, list[BoardRow]]:
    """Return the row whose result was committed when one was started, and its results of that setting."""
    bases = Bases(rows)
    for row in of_row:
        base = bases.start_of(row)
        names = [name for name in base.table_names if name not in row.table_names] if base else []
        if base and (known := [name for name in names if name in results]):
            setting = base.setting
            return known[0], [other for other in results[known[0]] if other.setting == setting]
    return "", []


def _by_table(results: Iterable[BoardRow], step: TableStep | None, rows: Sequence[BoardRow]) -> Pairs:
    """Pair each result with one of its base in the table that differs from it in nothing else.

    If the step changes the seed itself, all have one base, and the last stands for them.
    """
    bases = Bases(rows)
    found = ((row, bases.in_table(row, step)) for row in results)
    by_base = {base.key: (row, base) for row, base in found if base and _has_cv(base)}
    return list(by_base.values())


def _by_seed(results: Iterable[BoardRow], others: Iterable[BoardRow]) -> Pairs:
    """Pair each result with the newest one of the other row that has its seed, data and folds."""
    pairs = []
    for row in results:
        found = [other for other in others if other.key != row.key and _is_alike(row, other)]
        pairs += [(row, base) for base in found[-1:]]
    return pairs


ALIKE = ("seed", "split.folds", "split.seed", "split.group")
"""Parameters that results of different rows must share to be compared."""


def _is_alike(row: BoardRow, other: BoardRow) -> bool:
    return same_truth(row, other) and all(row.params.get(key) == other.params.get(key) for key in ALIKE)


def _judged(pairs: Pairs, noise: NoiseOfRows) -> tuple[dict[str, Difference], dict[str, Judgement]]:
    """Map each metric to its mean change, and to the judgement of that change."""
    changes = {key: change for key in JUDGED_METRICS if (change := _change(pairs, key))}
    found = {key: _judgement(pairs, key, change, noise) for key, change in changes.items()}
    return changes, {key: judgement for key, judgement in found.items() if judgement}


def _judgement(pairs: Pairs, key: str, change: Difference, noise: NoiseOfRows) -> Judgement | None:
    """Judge by the seeds themselves if there are several, else by the noise of other rows."""
    values = _values(pairs, key)
    if len(values) >= MIN_PAIRS:
        judgement = judge_cv_mean(pairs) if key == CV else judge_lb_mean(values)
    else:
        own = noise.between(*pairs[-1])
        judgement = judge(change, own) if key == CV else judge_lb(change.value, key, own)
    for row, base in pairs if key == CV else ():
        judgement = flag_optimistic(judgement, row, base)
    return judgement


def _change(pairs: Pairs, key: str) -> Difference | None:
    values = _values(pairs, key)
    if not values:
        return None
    return mean_difference(pairs) if key == CV else Difference(fmean(values))


def _values(pairs: Pairs, key: str) -> list[float]:
    """Return the changes of a metric over the pairs that have it."""
    found = [row.metrics.get(key, nan) - base.metrics.get(key, nan) for row, base in pairs]
    return [change for change in found if isfinite(change)]
