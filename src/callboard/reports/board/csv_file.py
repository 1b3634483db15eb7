"""The board for programs: one header, numbers as they are, an empty cell for what is not known."""

import csv
import io
from collections.abc import Callable, Mapping
from math import isnan

from callboard.analysis.difference import Difference
from callboard.analysis.lines import Blocks, BoardLine
from callboard.reports.board.columns import (
    Value,
    base_of,
    change_value,
    changed,
    changes_of,
    half_width,
    has_seeds,
    is_lb_noise,
    metric_of,
    name_of,
    word,
)
from callboard.results.settings import CV

Field = Callable[[BoardLine], Value]

ESTIMATE_FIELDS = (
    "fold_mean",
    "fold_sd",
    "lrap",
    "lwlrap_known",
    "macro_ap",
)
"""Other CV metrics of `metrics/cv.json`."""


def _change(key: str) -> Field:
    return lambda line: line.metric_change(key)


def _best(read: Callable[[Difference], float]) -> Field:
    return lambda line: read(line.best_change) if line.best_change else None


FIELDS: Mapping[str, Field] = {
    "name": name_of,
    "cv": metric_of(CV),
    "cv_half_width": half_width,
    "cv_low": metric_of("cv.lwlrap_low"),
    "cv_high": metric_of("cv.lwlrap_high"),
    "is_optimistic": lambda line: line.row.is_optimistic if line.row else None,
    "is_unisolated": lambda line: line.row.is_unisolated if line.row else None,
    "lb_public": metric_of("lb.public"),
    "lb_private": metric_of("lb.private"),
    "base": lambda line: base_of(line) if line.base else None,
    "base_key": lambda line: line.base.key if line.base else None,
    "cv_change": change_value,
    "cv_change_low": lambda line: line.judgement.low if line.judgement else None,
    "cv_change_high": lambda line: line.judgement.high if line.judgement else None,
    "p_better": lambda line: line.judgement.p_better if line.judgement else None,
    "verdict": lambda line: word(line) if line.judgement else None,
    "are_seeds_measured": has_seeds,
    "lb_public_change": _change("lb.public"),
    "lb_private_change": _change("lb.private"),
    "is_lb_change_within_noise": lambda line: is_lb_noise(line) if line.lb_judgement else None,
    "best": lambda line: line.best.name if line.best else None,
    "cv_change_to_best": _best(lambda change: change.value),
    "cv_change_to_best_low": _best(lambda change: change.low),
    "cv_change_to_best_high": _best(lambda change: change.high),
    "changed": lambda line: None if changes_of(line) is None else changed(line),
    "memo": lambda line: line.memo or None,
    "start": lambda line: line.row.start.isoformat(timespec="seconds") if line.row else None,
    "commit": lambda line: line.row.commit if line.row else None,
    "key": lambda line: line.row.key if line.row else None,
    "names": lambda line: " ".join(line.row.names) if line.row else None,
    **{f"cv_{name}": metric_of(f"cv.{name}") for name in ESTIMATE_FIELDS},
    "author_cv": lambda line: line.author_cv,
    "author_lb": lambda line: line.author_lb,
    "block": lambda line: line.entry.block if line.entry else None,
}
"""Header to value; the same for every board, so that a program that reads one reads all."""


def as_csv(blocks: Blocks, extra: Mapping[str, Field] | None = None) -> str:
    """A header and one row per line of the board, in its order.

    Args:
        blocks: Of the board.
        extra: Fields after those that every board has.
    """
    fields = {**FIELDS, **(extra or {})}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows([_cell(read(line)) for read in fields.values()] for block in blocks for line in block)
    return file.getvalue()


def _cell(value: Value) -> Value:
    return None if isinstance(value, float) and isnan(value) else value
