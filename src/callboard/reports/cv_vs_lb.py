"""Output of `callboard trust`: correlations, a conclusion, and which CV estimate follows LB best."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np

from callboard.analysis.correlation import CORRELATIONS, Correlation, advantage, correlation, spearman
from callboard.analysis.cv_estimates import Estimates
from callboard.analysis.cv_vs_lb import MIN_RUNS, ORDER, Trust, is_lost
from callboard.core.console import MISSING
from callboard.reports.text import markdown_table
from callboard.results.cv_metrics import CV_NAMES, POOLED
from callboard.results.rows import OPTIMISTIC, UNISOLATED, BoardRow, mark_of
from callboard.scoring.metrics import COVERAGE

INTERVALS = (
    "Intervals: 95 %, bootstrap over runs. All runs share their training and test recordings, so this is\n"
    "what other similar runs might give, not other recordings; variants of one run make it too narrow."
)

WIDTH = 105
"""Width of a line of prose, in characters."""


def heading(n_runs: int, what: str, left_out: Counter[str]) -> str:
    """Return the first line: the scores compared, the number of runs, and why others are left out."""
    others = f"; left out: {', '.join(f'{count} {why}' for why, count in left_out.items())}"
    return f"trust: {what} over {n_runs} runs{others if left_out else ''}.\n"


def marked(rows: Sequence[BoardRow]) -> str:
    """Count the results whose CV is marked as optimistic or not out of fold; empty if there are none."""
    counts = Counter(mark_of(row) for row in rows)
    meanings = {OPTIMISTIC: "optimistic", UNISOLATED: "not out of fold"}
    found = [f"{counts[mark]} {words} ({mark})" for mark, words in meanings.items() if counts[mark]]
    text = f"CVs marked on the board: {' and '.join(found)}; these can rise without LB.\n"
    return text if found else ""


def correlations(found: Trust) -> str:
    """Build tables of the correlations: over all runs and the best, then over blocks if there are several."""
    parts = [
        ("all runs", found.everything),
        ("best third by CV", found.best),
        ("… expected from their range alone", found.best_by_range),
    ]
    kinds = list(CORRELATIONS)
    cells = [[name, _count(of), *(format_correlation(of[kind]) for kind in kinds)] for name, of in parts]
    text = markdown_table(["runs", "n", *kinds], cells, [False] + [True] * 3)
    if len(found.blocks) == 1:
        return text
    by_block = [
        [
            block.name,
            _count(block.correlations),
            *(format_correlation(block.correlations[kind]) for kind in kinds),
            format_correlation(block.change) if block.change else "",
        ]
        for block in found.blocks
    ]
    header = ["consecutive runs", "n", *kinds, "change of Spearman"]
    return f"{text}\n{markdown_table(header, by_block, [False] + [True] * 4)}"


def _count(of: Mapping[str, Correlation]) -> str:
    return str(of["Spearman"].n)


def conclusion(found: Trust) -> str:
    """Write the recommendation, after a warning for each place where the correlation is lost."""
    sentences = [f"WARNING: CV does not order LB {where}." for where in lost_places(found)]
    sentences.append(verdict_text(found))
    return "".join(f"{fill(text, WIDTH, break_on_hyphens=False)}\n" for text in sentences)


def lost_places(found: Trust) -> list[str]:
    """Describe the places where CV does not order LB; empty if there are too few runs to say."""
    if found.is_too_few:
        return []
    overall, best, last = found.everything[ORDER], found.best[ORDER], found.blocks[-1]
    late = last.correlations[ORDER]
    range_leaves = format_correlation(found.best_by_range[ORDER])
    places = [
        (is_lost(overall), f"over all {overall.n} runs: {format_correlation(overall)}"),
        (found.is_lost_late, f"in the last {late.n}, {last.name}: {format_correlation(late)}"),
        (
            found.is_lost_among_best,
            f"among the best {best.n} by CV: {format_correlation(best)}, "
            f"where {range_leaves} is expected from their range alone",
        ),
    ]
    return [text for is_here, text in places if is_here]


def verdict_text(found: Trust) -> str:
    """Write the recommendation in a sentence or two."""
    overall, best = found.everything[ORDER], found.best[ORDER]
    if np.isnan(overall.value):
        return "CV or LB is the same in all runs: there is nothing to correlate."
    if found.is_too_few:
        return f"{overall.n} runs are too few to say whether CV follows LB: {MIN_RUNS} are needed."
    if found.is_lost:
        return "CV no longer predicts LB: choose by LB or hold-outs, not by CV."
    if found.is_lost_among_best:
        return (
            "CV separates good runs from bad, but no longer predicts LB among the best: choose among those "
            "by LB or hold-outs, not by CV."
        )
    if overall.low <= 0:
        correlation = f"{ORDER} {format_correlation(overall)}"
        return f"{overall.n} runs do not show whether CV follows LB: {correlation}."
    text = f"CV follows LB: {ORDER} {format_correlation(overall)} over {overall.n} runs."
    if best.low > 0:
        return text
    correlation = format_correlation(best)
    return f"{text} Among the best {best.n} by CV its order may be chance: {correlation}."


def format_correlation(found: Correlation) -> str:
    """Format as `+0.55 (+0.27 … +0.76)`."""
    if np.isnan(found.value):
        return MISSING
    return f"{found.value:+.2f} ({found.low:+.2f} … {found.high:+.2f})"


@dataclass(frozen=True)
class Following:
    """How well one estimate of CV follows one LB."""

    by_rank: Correlation
    over_pooled: Correlation
    """Spearman's minus that of the pooled LWLRAP; the interval allows for the number of comparisons."""

    @property
    def is_better(self) -> bool:
        """Whether it follows LB better than the pooled LWLRAP does, beyond noise."""
        return self.over_pooled.low > 0


FollowingTable = dict[str, dict[str, Following]]
"""Estimate to LB to how well the one follows the other."""


def followings(rows: Sequence[BoardRow], estimates: Mapping[str, Estimates]) -> FollowingTable:
    """Measure how every estimate that all rows have follows each LB that all rows have."""
    names = [name for name in CV_NAMES if all(name in estimates[row.key] for row in rows)]
    lbs = [lb for lb in ("lb.public", "lb.private") if all(lb in row.metrics for row in rows)]
    if POOLED not in names:
        return {}
    values = {name: np.array([estimates[row.key][name] for row in rows]) for name in names}
    scores = {lb: np.array([row.metrics[lb] for row in rows]) for lb in lbs}
    coverage = 1 - (1 - COVERAGE) / max(1, len(names) - 1)  # Bonferroni
    return {
        name: {
            lb: Following(
                correlation(spearman, values[name], scores[lb]),
                advantage(spearman, values[name], values[POOLED], scores[lb], coverage),
            )
            for lb in lbs
        }
        for name in names
    }


def estimates_text(table: FollowingTable) -> str:
    """Build a table of the estimates, the best follower of the first LB on top, and say which to use."""
    if not table:
        return ""
    lbs = list(table[POOLED])
    order = sorted(
        table, key=lambda name: -table[name][lbs[0]].by_rank.value
    )  # stable: of equals the pooled one comes first
    cells = [[name, CV_NAMES[name], *_cells(name, table[name])] for name in order]
    header = ["estimate", "what"]
    for lb in lbs:
        header += [f"Spearman, {lb}", "over lwlrap"]
    is_number = [False, False] + [True] * (len(header) - 2)
    return f"{markdown_table(header, cells, is_number)}{recommendation(table)}\n"


def _cells(name: str, by_lb: Mapping[str, Following]) -> list[str]:
    cells = []
    for following in by_lb.values():
        over = following.over_pooled
        is_same = over.low == over.value == over.high == 0
        cells += [
            format_correlation(following.by_rank),
            "" if name == POOLED else "the same" if is_same else format_correlation(over),
        ]
    return cells


def recommendation(table: FollowingTable) -> str:
    """Recommend the pooled LWLRAP, unless another estimate follows every known LB better beyond noise.

    With fewer than MIN_RUNS runs, always recommend the pooled one.
    """
    n_runs = min((one.by_rank.n for one in table[POOLED].values()), default=0)
    if n_runs < MIN_RUNS:
        return f"{n_runs} runs are too few to say which estimate follows LB best: keep {POOLED}."
    better = [name for name, by_lb in table.items() if all(one.is_better for one in by_lb.values())]
    if not better:
        return f"No estimate follows LB better than {POOLED} beyond noise: keep {POOLED}."
    best = max(better, key=lambda name: min(one.by_rank.value for one in table[name].values()))
    return f"{best} follows LB better than {POOLED} beyond noise: `callboard board --cv {best}` shows it."
