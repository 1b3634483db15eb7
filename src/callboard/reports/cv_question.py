"""The recordings that a CV holds for, by how recordings were grouped in folds, in words."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from callboard.core.console import first_few
from callboard.params.data import OWN_FOLDS, SITE, UNGROUPED

if TYPE_CHECKING:
    from callboard.results.rows import BoardRow

FEW_GROUPS = 10
"""Number of groups below which intervals are said to cover less than they should."""

COVERAGE_OF_SIX = 90
"""Share in percent of 95 % intervals over six groups that hold the truth, by benchmarks/place.py."""


def cv_holds_for(row: "BoardRow") -> str:
    """Return the recordings on which CV estimates scores, such as `recordings of a new site`."""
    group = row.split_group
    if group == "recording":
        return "new recordings of these places"
    if group == OWN_FOLDS:
        return "recordings as the folds of recordings.csv hold them out"
    return f"recordings of a new {'site' if SITE in group else group}"


def question_text(row: "BoardRow") -> str:
    """Return `cv_holds_for` with the number of groups, and what limits it."""
    n_groups = n_groups_of(row)
    counted = f" ({n_groups} groups)" * bool(n_groups)
    return "; ".join([cv_holds_for(row) + counted, *_limits(row)])


def n_groups_of(row: "BoardRow") -> int:
    """Return the number of groups that CV is over; 0 if these are recordings, with their copies."""
    return 0 if row.split_group in UNGROUPED else int(row.metrics.get("cv.n_groups", 0))


def _limits(row: "BoardRow") -> list[str]:
    limits, n_groups = [], n_groups_of(row)
    if 0 < n_groups < FEW_GROUPS:
        held = f"even over 6, only about {COVERAGE_OF_SIX} % of 95 % intervals hold the truth"
        limits.append(f"{n_groups} groups are few: {held}")
    learned_unlabelled = row.params.get("pseudo.rounds", "0") != "0" and any(
        subset in row.params.get("pseudo.source", "") for subset in ("test", "external")
    )
    if n_groups and learned_unlabelled:
        limits.append("networks also learned from unlabelled recordings, which may be of the groups held out")
    return limits


def question_legend(rows: Iterable["BoardRow"]) -> str:
    """Return one line on what the CVs of a board hold for; empty without a result.

    Results are named only if they differ in it.
    """
    rows = list(rows)
    if not rows:
        return ""
    targets: dict[str, list[str]] = {}
    limits: dict[str, list[str]] = {}
    for row in rows:
        targets.setdefault(cv_holds_for(row), []).append(row.name)
        for limit in _limits(row):
            limits.setdefault(limit, []).append(row.name)

    def with_names(text: str, names: list[str]) -> str:
        return text if len(names) == len(rows) else f"{text} ({first_few(names)})"

    holds_for = "; for ".join(with_names(*one) for one in targets.items())
    return " ".join([f"CV holds for {holds_for}.", *(f"{with_names(*one)}." for one in limits.items())])


def question_sentence(a: "BoardRow", b: "BoardRow") -> str:
    """Return what the CVs of two results hold for, or that they answer different questions."""
    if cv_holds_for(a) == cv_holds_for(b):
        return f"CV holds for {question_text(b)}."
    return (
        f"The two CVs answer different questions: that of {a.name} for {question_text(a)}, that of {b.name} "
        f"for {question_text(b)}. The change has its interval over the larger groups."
    )
