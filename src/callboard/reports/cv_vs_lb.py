"""What `callboard trust` prints: correlations, a verdict in words, and which estimate follows LB best."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np

from callboard.analysis.correlation import CORRELATIONS, Correlation, advantage, correlation, spearman
from callboard.analysis.cv_vs_lb.estimates import Estimates
from callboard.analysis.cv_vs_lb.judging import MIN_RUNS, Trust, format_correlation
from callboard.reports.table import markdown_table
from callboard.results.cv_metrics import CV_NAMES, POOLED
from callboard.results.rows import OPTIMISTIC, UNISOLATED, BoardRow, mark_of
from callboard.scoring.metrics import COVERAGE

INTERVALS = (
    "Intervals: 95 %, bootstrap over runs. All runs share their training and test recordings, so they say\n"
    "how other runs like these might fall, not other recordings; variants of one run make them too narrow."
)


WIDTH = 105
"""Characters of a line of prose."""


def heading(n_runs: int, what: str, left_out: Counter[str]) -> str:
    """What is held against what, over how many runs."""
    others = f"; left out: {', '.join(f'{count} {why}' for why, count in left_out.items())}"
    return f"trust: {what} over {n_runs} runs{others if left_out else ''}.\n"


def marked(rows: Sequence[BoardRow]) -> str:
    """How many of the results have a CV that cannot be trusted, marked as on the board; empty without any."""
    counts = Counter(mark_of(row) for row in rows)
    meanings = {OPTIMISTIC: "optimistic", UNISOLATED: "not out of fold"}
    found = [f"{counts[mark]} {words} ({mark})" for mark, words in meanings.items() if counts[mark]]
    text = f"CVs marked on the board: {' and '.join(found)}; they may rise where LB does not.\n"
    return text if found else ""


def correlations(found: Trust) -> str:
    """All runs and the best, then the blocks."""
    parts = [
        ("all runs", found.everything),
        ("best third by CV", found.best),
        ("… as range alone would leave", found.best_by_range),
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
    """The verdict, and a warning for each place where the correlation is lost."""
    sentences = [f"WARNING: CV does not order LB {where}." for where in found.lost]
    return "".join(f"{fill(text, WIDTH, break_on_hyphens=False)}\n" for text in [*sentences, found.verdict])


@dataclass(frozen=True)
class Following:
    """How well one estimate of CV follows one LB."""

    by_rank: Correlation
    over_pooled: Correlation
    """Spearman's minus that of the pooled LWLRAP; the interval allows for the number of comparisons."""

    @property
    def is_better(self) -> bool:
        """Whether it surely follows better than the pooled LWLRAP does."""
        return self.over_pooled.low > 0


FollowingTable = dict[str, dict[str, Following]]
"""By estimate, then by LB."""


def followings(rows: Sequence[BoardRow], estimates: Mapping[str, Estimates]) -> FollowingTable:
    """Of every estimate that all of the rows have, against each LB that all of them have."""
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
    """The estimates, the best follower of the first LB on top, and which to use."""
    if not table:
        return ""
    lbs = list(table[POOLED])
    order = sorted(
        table, key=lambda name: -table[name][lbs[0]].by_rank.value
    )  # stable: pooled first of equals
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
    """Keep the pooled LWLRAP, unless another follows every LB that is known better beyond noise.

    Below MIN_RUNS runs no other is recommended.
    """
    n_runs = min((one.by_rank.n for one in table[POOLED].values()), default=0)
    if n_runs < MIN_RUNS:
        return f"{n_runs} runs are too few to say which estimate follows LB best: keep {POOLED}."
    better = [name for name, by_lb in table.items() if all(one.is_better for one in by_lb.values())]
    if not better:
        return f"No estimate follows LB better than {POOLED} beyond noise: keep {POOLED}."
    best = max(better, key=lambda name: min(one.by_rank.value for one in table[name].values()))
    return f"{best} follows LB better than {POOLED} beyond noise: `callboard board --cv {best}` shows it."
