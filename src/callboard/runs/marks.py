"""Marks of results whose CV cannot be trusted."""

from callboard.runs.rows import Row

OPTIMISTIC = "*"
UNISOLATED = "!"
LEGEND = (
    f"{OPTIMISTIC} CV is optimistic: the epoch or the learning rate was chosen on the validation fold "
    "(train.select, sched.name plateau), or "
    "pseudo-labels came from teachers that had learned from other folds' labels (pseudo.final above 0, "
    "pseudo.isolation not nested), or "
    "training started from the weights of such a result (train.init_from)."
)
UNISOLATED_LEGEND = (
    f"{UNISOLATED} CV is not out of fold: models voted on recordings that they had trained on "
    "(pseudo.isolation none), for this result or for one that it started from."
)


def mark_of(row: Row | None) -> str:
    """What stands behind a CV that cannot be trusted; empty behind others."""
    if row is None:
        return ""
    return UNISOLATED if row.is_unisolated else OPTIMISTIC * row.is_optimistic


MARKS = {OPTIMISTIC: LEGEND, UNISOLATED: UNISOLATED_LEGEND}
"""Marks of CV with what they mean."""
