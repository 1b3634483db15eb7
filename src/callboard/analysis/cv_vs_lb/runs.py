"""Which runs have CV and LB that can be held against each other, and their blocks of consecutive runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from callboard.analysis.correlation import N_LEAST, ScorePairs
from callboard.core.errors import UserError
from callboard.experiments.author_scores import author_rows
from callboard.experiments.table import ExperimentTable
from callboard.results.rows import BoardRow, same_truth

MIN_BLOCK = 15
"""Runs that a block needs: with fewer, a correlation below 0.5 cannot be told from none."""


@dataclass(frozen=True)
class ScoredRun:
    """A run with both scores."""

    name: str
    cv: float
    lb: float
    block: int | str
    """Runs of one block stay together; of results, which have none, each is its own."""


def points_of_results(rows: Sequence[BoardRow], lb: str = "lb.public") -> tuple[list[BoardRow], Counter[str]]:
    """Results with CV and LB that can be held against each other, and why how many others cannot.

    Kept are those of the data and annotations that most have, whatever their features. Results that share
    out-of-fold scores and submission are one, though their parameters differ: twice the same is no second
    witness.

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
            left_out["of other data"] += 1
        elif content in kept:
            left_out["with the very scores of another"] += 1
        else:
            kept[content] = row
    _refuse_few(len(kept), left_out)
    return list(kept.values()), left_out


def _of_one_truth(rows: Sequence[BoardRow]) -> list[list[BoardRow]]:
    """Groups in which all can be held against each other; each row joins the first that takes it."""
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
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "no others"
        raise UserError(
            f"trust needs {N_LEAST} runs with both CV and LB, found {n_kept} ({why}); "
            "give scores with `callboard lb add`"
        )


def points(rows: Sequence[BoardRow], lb: str = "lb.public") -> list[ScoredRun]:
    """What `points_of_results` kept, each a block of its own."""
    return [
        ScoredRun(row.name, row.metrics["cv.lwlrap"], row.metrics[lb], number)
        for number, row in enumerate(rows)
    ]


def author_points(table: ExperimentTable) -> list[ScoredRun]:
    """The author's rows that have both scores, in his order and blocks."""
    return [
        ScoredRun(row.name, row.cv, row.lb, row.block)
        for row in author_rows(table)
        if row.cv is not None and row.lb is not None
    ]


def pairs(runs: Sequence[ScoredRun]) -> ScorePairs:
    """CV and LB, each (runs,)."""
    return np.array([run.cv for run in runs]), np.array([run.lb for run in runs])


def blocks(runs: Sequence[ScoredRun], least: int = MIN_BLOCK) -> list[list[ScoredRun]]:
    """Consecutive blocks, joined until they have `least` runs; too few at the end join those before."""
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
