"""Compare CV on the experts' labels, and CV that counts pseudo-labels as true, with LB.

    cd WORKSPACE && PYTHONPATH=.../src python .../benchmarks/relabeled_cv.py 'birdnet*' '!*-seed*'

Uses the results with LB whose names match and that share the newest result's data, grouped by the isolation
of their pseudo-labels. Without pseudo-labels both CVs are equal. The original author counted pseudo-labels as
true wherever they were trained on. Blends are left out, and results with the same scores count once.
"""

import sys
from collections import defaultdict

import numpy as np

from callboard.analysis.choice import is_named
from callboard.analysis.correlation import CORRELATIONS, correlation
from callboard.analysis.cv_estimates import relabeled_cv
from callboard.reports.text import markdown_table
from callboard.results.lookup import find_result
from callboard.results.rows import BoardRow, read_rows

LB = ("lb.public", "lb.private")


def who_labelled(row: BoardRow) -> str:
    """Return the isolation of a result's pseudo-labels, or `nobody` without any."""
    return row.params["pseudo.isolation"] if row.params["pseudo.rounds"] != "0" else "nobody"


def main(patterns: list[str]) -> None:
    rows = read_rows()
    data = rows[-1].data_md5
    chosen = [
        row
        for row in rows
        if row.data_md5 == data
        and is_named(patterns, row.name, *row.names)
        and not row.blend
        and row.metrics.keys() >= set(LB)
    ]
    scores = {
        row.oof_md5: [
            *relabeled_cv(find_result(row.ref.reference, [row.ref])),
            *(row.metrics[key] for key in LB),
        ]
        for row in chosen
    }
    groups = defaultdict(list)
    for row in {row.oof_md5: row for row in chosen}.values():
        groups[who_labelled(row)].append(scores[row.oof_md5])
    heads = ["who labelled", "runs", "CV", "relabelled CV", *LB]
    cells = [
        [name, str(len(values)), *(f"{mean:.3f}" for mean in np.mean(values, axis=0))]
        for name, values in groups.items()
    ]
    print(markdown_table(heads, cells, [False] + [True] * 5))
    cv, relabeled, *lbs = np.array(list(scores.values())).T
    cells = [
        [kind, name, *(with_interval(kind, values, lb) for lb in lbs)]
        for kind in CORRELATIONS
        for name, values in (("CV", cv), ("relabelled CV", relabeled))
    ]
    print(markdown_table(["correlation", "of", *LB], cells, [False] * 2 + [True] * 2))


def with_interval(kind: str, values: np.ndarray, lb: np.ndarray) -> str:
    """Format a correlation with its interval."""
    found = correlation(CORRELATIONS[kind], values, lb)
    return f"{found.value:+.2f} ({found.low:+.2f} … {found.high:+.2f})"


if __name__ == "__main__":
    main(sys.argv[1:])
