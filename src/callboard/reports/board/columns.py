"""The columns of the board: each cell as text for people and as a value for programs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isnan

from callboard.analysis.lines import Blocks, BoardLine
from callboard.analysis.verdict import Verdict
from callboard.core.console import MISSING
from callboard.reports.cv_question import question_legend
from callboard.reports.text import (
    LB_LEGENDS,
    UNLIKE,
    UNLIKE_LEGEND,
    interval_text,
    lb_change_text,
    lb_mark,
    number,
    unlike_mark,
    verdict_tone,
    verdict_word,
)
from callboard.results.result import changes
from callboard.results.rows import CV, MARKS, BoardRow, mark_of

SEEDS_LEGEND = (
    "Seeds were not measured: intervals cover recordings alone; `callboard noise NAME` measures seeds."
)

IS_BEST = "best"

Value = str | float | bool | None
"""Value of a cell for programs; None for an empty one."""


@dataclass(frozen=True)
class Column:
    """A column of the board."""

    name: str
    text: Callable[[BoardLine], str]
    is_number: bool = False
    may_wrap: bool = False
    value: Callable[[BoardLine], Value] | None = None
    """Value that a page sorts by; by the text if None."""
    is_extra: bool = False
    """Whether only some boards have the column."""
    meaning: str = ""
    """Explanation, if the name alone does not give it."""
    tone: Callable[[BoardLine], str] | None = None
    """Class that colours the text: `better`, `worse` or `noise`."""


def base_of(line: BoardLine) -> str:
    """Return the name of the result that a line is compared with; a dash if there is none."""
    if line.base and line.step and line.step.base in line.base.names:
        return line.step.base
    return line.base.name if line.base else MISSING


def changes_of(line: BoardLine) -> list[str] | None:
    """List parameters changed against the base or else the start commit; None if neither is known."""
    before = line.base.params if line.base else line.row.base if line.row else {}
    return changes(before, line.row.params) if line.row and before else None


def changed(line: BoardLine) -> str:
    """Return the changed parameters as text; a dash if unknown."""
    found = changes_of(line)
    return MISSING if found is None else ", ".join(found)


def half_width(line: BoardLine) -> float | None:
    """Return half the width of the 95 % interval of CV, not of its change; None if unknown."""
    low, high = line.metric("cv.lwlrap_low"), line.metric("cv.lwlrap_high")
    return None if low is None or high is None else (high - low) / 2


def has_seeds(line: BoardLine) -> bool | None:
    """Return whether the verdict's interval covers seeds; None without an interval."""
    if line.judgement is None or isnan(line.judgement.low):
        return None
    return line.judgement.has_seeds


def _probability(line: BoardLine) -> str:
    return number(line.judgement.p_better if line.judgement else None, ".2f")


def _cv(line: BoardLine) -> str:
    return number(line.metric(CV)) + mark_of(line.row)


def _against_best(line: BoardLine) -> str:
    if line.row and line.best and line.best.key == line.row.key:
        return IS_BEST
    return interval_text(line.best_change) + unlike_mark(line.row, line.best)


def marked_verdict(line: BoardLine) -> str:
    """Return the verdict as a word, with a mark if the result and its base were not trained alike."""
    return verdict_word(line.judgement) + unlike_mark(line.row, line.base) * bool(line.judgement)


def is_lb_noise(line: BoardLine) -> bool:
    """Return whether a different seed alone could change the public leaderboard score as much."""
    return bool(line.lb_judgement and line.lb_judgement.verdict is Verdict.WITHIN_NOISE)


def _lb_change(line: BoardLine) -> str:
    return lb_change_text(number(line.metric_change("lb.public"), "+.4f"), line.lb_judgement)


def _author_verdict(line: BoardLine) -> str:
    from callboard.experiments.author_scores import author_verdict

    return author_verdict(line.entry) if line.entry else MISSING


def _author_cv(line: BoardLine) -> str:
    if line.entry and line.entry.cv is None and line.entry.lb is None:
        return _author_verdict(line)
    return number(line.author_cv)


def _author_lb(line: BoardLine) -> str:
    if line.entry and line.entry.cv is not None and line.entry.lb is None:
        return _author_verdict(line)
    return number(line.author_lb)


def estimate_column(name: str, estimates: dict[str, dict[str, float]]) -> Column:
    """Build the column of a CV estimate that replaces the pooled one.

    Args:
        name: Name in CV_NAMES.
        estimates: Content key of a result to its estimates by name.
    """

    def value(line: BoardLine) -> float | None:
        return estimates.get(line.row.key, {}).get(name) if line.row else None

    def text(line: BoardLine) -> str:
        return number(value(line)) + mark_of(line.row)

    return Column(f"CV {name}", text, is_number=True, value=value, is_extra=True)


def metric_of(key: str) -> Callable[[BoardLine], float | None]:
    """Return a function that reads a metric of a line."""
    return lambda line: line.metric(key)


def change_value(line: BoardLine) -> float | None:
    """Return the change of CV against the base."""
    return line.change.value if line.change else None


def _best_value(line: BoardLine) -> float | None:
    return line.best_change.value if line.best_change else None


NAME = Column("name", lambda line: line.name)
MEMO = Column("memo", lambda line: line.memo, may_wrap=True)
POOLED_CV = Column("CV", _cv, is_number=True, value=metric_of(CV))
SCORE_COLUMNS = (
    Column(
        "±",
        lambda line: number(half_width(line)),
        is_number=True,
        value=half_width,
        meaning="half of the 95 % interval of CV",
    ),
    Column(
        "verdict",
        marked_verdict,
        value=lambda line: verdict_word(line.judgement),
        tone=lambda line: verdict_tone(line.judgement),
    ),
    Column("LB public", lambda line: number(line.metric("lb.public")), True, value=metric_of("lb.public")),
    Column("LB private", lambda line: number(line.metric("lb.private")), True, value=metric_of("lb.private")),
)
COMPARISON = (
    Column("base", base_of),
    Column(
        "Δ CV",
        lambda line: interval_text(line.change, line.judgement),
        is_number=True,
        value=change_value,
        meaning="change of CV against the base, with its 95 % interval",
    ),
    Column("P", _probability, is_number=True, meaning="probability that CV is better than that of the base"),
    Column(
        "Δ LB",
        _lb_change,
        is_number=True,
        value=lambda line: line.metric_change("lb.public"),
        meaning="change of LB public against the base",
    ),
)
BEST = Column(
    "Δ best", _against_best, is_number=True, value=_best_value, meaning="change of CV against the best"
)
CHANGED = Column("changed", changed, may_wrap=True)
ORIGIN = (
    Column("date", lambda line: f"{line.row.start.astimezone():%Y-%m-%d %H:%M}" if line.row else MISSING),
    Column("commit", lambda line: line.row.commit[:7] if line.row else MISSING),
)
AUTHOR_COLUMNS = (
    Column("author CV", _author_cv, is_number=True, value=lambda line: line.author_cv),
    Column("author Δ CV", lambda line: number(line.author_cv_change, "+.4f"), is_number=True),
    Column("author LB", _author_lb, is_number=True, value=lambda line: line.author_lb),
    Column("author Δ LB", lambda line: number(line.author_lb_change, "+.3f"), is_number=True),
)


def columns_of(cv: Column = POOLED_CV) -> tuple[Column, ...]:
    """Return the columns of the board of results, from left to right.

    Args:
        cv: Column of the CV estimate; changes and verdicts are always of the pooled one.
    """
    return (NAME, cv, *SCORE_COLUMNS, *COMPARISON, MEMO, CHANGED, BEST, *ORIGIN)


def author_columns_of(cv: Column = POOLED_CV) -> tuple[Column, ...]:
    """Return the columns of the original author's table, with the original author's scores next to ours."""
    return (NAME, cv, *SCORE_COLUMNS, *COMPARISON, *AUTHOR_COLUMNS, MEMO, *ORIGIN)


BOARD_COLUMNS: Sequence[Column] = columns_of()


def filled(columns: Sequence[Column], blocks: Blocks) -> list[Column]:
    """Return the columns in which some line says something: a single result has neither base nor changes."""
    lines = [line for block in blocks for line in block]

    def says_something(column: Column) -> bool:
        nothing = (MISSING, "", IS_BEST if column is BEST else "")
        return not lines or any(column.text(line) not in nothing for line in lines)

    return [column for column in columns if says_something(column)]


def shown_rows(blocks: Blocks) -> dict[str, BoardRow]:
    """Return the results in the lines, each once, by content key or, without one, by name."""
    return {line.row.key or line.row.name: line.row for block in blocks for line in block if line.row}


def legends(blocks: Blocks, columns: Sequence[Column] = BOARD_COLUMNS) -> list[str]:
    """Explain the columns and the marks that occur in them, and name the best results.

    Also explain what is easily misread: intervals without seeds, and a CV column of a different estimate.
    """
    lines = [line for block in blocks for line in block if line.row]
    found = [_meanings(columns) if lines else ""]
    found += [_best_legend(line.best for line in lines if line.best)] if BEST in columns else []
    has_cv = any(column.text is _cv or column.is_extra for column in columns)
    found += [question_legend(shown_rows(blocks).values())] if has_cv else []
    marks = {mark_of(line.row) for line in lines if has_cv}
    found += [legend for mark, legend in MARKS.items() if mark in marks]
    has_lb_change = any(column.text is _lb_change for column in columns)
    lb_marks = {lb_mark(line.lb_judgement) for line in lines if has_lb_change}
    found += [legend for mark, legend in LB_LEGENDS.items() if mark in lb_marks]
    marked = [column for column in columns if column.text in (marked_verdict, _against_best)]
    is_marked = any(UNLIKE in column.text(line) for column in marked for line in lines)
    found += [UNLIKE_LEGEND] * is_marked
    is_judged = any(column.name in ("verdict", "Δ CV", "P") for column in columns)
    found.append(SEEDS_LEGEND if is_judged and any(has_seeds(line) is False for line in lines) else "")
    found += [
        f"{column.name} is that estimate; ±, Δ, P, verdict and best refer to the pooled LWLRAP."
        for column in columns
        if column.is_extra
    ]
    return [text for text in found if text]


def _meanings(columns: Sequence[Column]) -> str:
    found = "; ".join(f"{column.name}: {column.meaning}" for column in columns if column.meaning)
    return f"{found}." if found else ""


def _best_legend(rows: Iterable[BoardRow]) -> str:
    best = {row.key: row for row in rows}
    found = ", ".join(f"{row.name} ({number(row.metrics[CV])})" for row in best.values())
    return (
        f"Best: {found}, for each data set and split.group the highest CV that is not optimistic."
        if found
        else ""
    )
