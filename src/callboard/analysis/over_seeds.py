"""What a row gains over its base, seed by seed; derived in docs/better.md."""

from collections.abc import Callable, Sequence
from math import sqrt
from statistics import fmean, stdev, variance

from callboard.analysis.difference import Difference
from callboard.analysis.differences import mean_difference
from callboard.analysis.verdict import Judgement, effective_dof, judged_by_t
from callboard.results.rows import BoardRow

Pairs = Sequence[tuple[BoardRow, BoardRow]]
"""A row's result and its base's, of the same seed each."""

CompareMeans = Callable[[Pairs], Difference | None]
"""How the mean of results differs from that of their bases."""

MIN_PAIRS = 2
"""Pairs that show what seeds do."""


def judge_cv(pairs: Pairs, compare: CompareMeans = mean_difference) -> Judgement | None:
    """Whether the mean change of CV over seeds is real, recordings and seeds taken together.

    The bootstrap over recordings scores each by the mean of all seeds. It holds a part of what seeds do to
    the change: what they do to single recordings by chance, known from how much smaller its variance is for
    the mean than for single pairs. The rest of the variance over seeds, by the number of pairs, is added.

    Args:
        pairs: Two or more.
        compare: How means over pairs differ.

    Returns:
        None where a result has no CV; `unsure` where a table is gone.
    """
    change, singles = compare(pairs), [compare([pair]) for pair in pairs]
    if change is None or None in singles:
        return None
    if not change.has_interval:
        return Judgement("unsure")
    n_pairs = len(pairs)
    over_seeds = variance(one.value for one in singles if one)
    by_pair = fmean(one.sd**2 for one in singles if one)
    by_chance = max(0.0, by_pair - change.sd**2) * n_pairs / (n_pairs - 1)
    both = change.sd**2 + max(0.0, over_seeds - by_chance) / n_pairs
    dof = effective_dof(both, over_seeds / n_pairs, n_pairs - 1)
    return judged_by_t(change.value, sqrt(both), dof)


def judge_changes(changes: Sequence[float]) -> Judgement:
    """Whether the mean change of a leaderboard score is more than other seeds would do on these recordings.

    Args:
        changes: One of each pair, two or more.

    Returns:
        `unsure` where all are equal and not 0: scores of few digits cannot show how far they spread.
    """
    if len(set(changes)) == 1 and changes[0]:
        return Judgement("unsure")
    return judged_by_t(fmean(changes), stdev(changes) / sqrt(len(changes)), len(changes) - 1)
