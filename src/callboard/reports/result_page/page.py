"""The page of a report: its head, and blocks of several kinds, each with a macro in the template."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import ClassVar

from markupsafe import Markup

from callboard.analysis.lines import BoardLine, judged_line
from callboard.core.console import counted
from callboard.experiments.captions import read_captions
from callboard.reports.cv_question import question_text
from callboard.reports.text import (
    computes_text,
    lb_change_text,
    number,
    page,
    unlike_text,
    verdict_tone,
    verdict_word,
)
from callboard.results.result import Result, changes
from callboard.results.rows import MARKS, BoardRow, mark_of


@dataclass(frozen=True)
class LeakCheck:
    """A statement that must hold, and the cases that violate it."""

    claim: str
    counted: str
    """Number of things checked, in words."""
    violations: list[str]

    @property
    def holds(self) -> bool:
        """Whether no case violates it."""
        return not self.violations


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Figures:
    """Drawings with one caption, side by side where there is room."""

    kind: ClassVar[str] = "figures"
    drawings: Sequence[Markup]
    caption: str
    title: str = ""
    is_wide: bool = False
    """Whether a narrow screen scrolls sideways instead of shrinking the drawings."""


@dataclass(frozen=True)
class Grid:
    """A table of text."""

    kind: ClassVar[str] = "grid"
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    n_words: int = 1
    """Number of leading columns with words; all others are numbers, aligned right."""


@dataclass(frozen=True)
class Checks:
    """A list of checks, each marked as passed or violated."""

    kind: ClassVar[str] = "checks"
    checks: Sequence[LeakCheck]


PageBlock = Text | Figures | Grid | Checks


@dataclass(frozen=True)
class PageSection:
    """A heading and the blocks below it."""

    name: str
    """Name of the anchor."""
    title: str
    blocks: Sequence[PageBlock] = field(default_factory=tuple)
    missing: str = ""
    """Reason why there are no blocks; empty if nothing is missing."""


@dataclass(frozen=True)
class Card:
    """A key figure."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class PageHead:
    """The top of the page."""

    name: str
    memo: str
    cards: Sequence[Card]
    facts: Sequence[tuple[str, str]]
    changed: Sequence[str]
    """Parameters changed against the base, as `key: old → new`."""
    verdict: str = ""
    """`better`, `worse`, `within noise` …; empty without a base."""
    reason: str = ""
    tone: str = "noise"
    warning: str = ""


def read_head(result: Result, row: BoardRow | None, rows: Sequence[BoardRow]) -> PageHead:
    """Build the head for a result, without the facts of the board if `row` is None."""
    line = judged_line(row, rows, read_captions()) if row else BoardLine(None)
    base = line.base
    return PageHead(
        name=result.name,
        memo=line.memo,
        cards=_cards(_scores(result, row), line),
        facts=_facts(result, row, base),
        changed=changes(base.params, row.params) if row and base else [],
        verdict=verdict_word(line.judgement) if line.judgement else "",
        reason=_sentence(line),
        tone=verdict_tone(line.judgement) or "noise",
        warning=MARKS.get(mark_of(row), ""),
    )


def _scores(result: Result, row: BoardRow | None) -> dict[str, float]:
    """Return the scores; those of the board override the commit's, which may lack later LB scores."""
    return result.cv | result.lb | (row.metrics if row else {})


def _cards(scores: dict[str, float], line: BoardLine) -> list[Card]:
    base, change = line.base, line.change
    low, high = scores.get("cv.lwlrap_low"), scores.get("cv.lwlrap_high")
    interval = "" if low is None or high is None else f"95 %: {low:.3f} … {high:.3f}"
    cards = [Card("CV, LWLRAP out of fold", number(scores.get("cv.lwlrap")), interval)]
    public = line.metric_change("lb.public")
    change_text = lb_change_text(number(public, "+.4f"), line.lb_judgement)
    note = "" if public is None else f"{change_text} against base"
    cards.append(Card("LB public", number(scores.get("lb.public")), note))
    cards.append(Card("LB private", number(scores.get("lb.private")), ""))
    if change is not None and base is not None:
        interval = f"95 %: {change.low:+.3f} … {change.high:+.3f}" if change.has_interval else ""
        cards.append(Card(f"CV against {base.name}", f"{change.value:+.4f}", interval))
    return cards


def _facts(result: Result, row: BoardRow | None, base: BoardRow | None) -> list[tuple[str, str]]:
    facts = [
        ("commit", result.ref.commit[:7] or "none yet: the result is in the work tree"),
        ("content key", result.key),
        ("data", f"{result.data_source}, {result.data_md5[:8]}"),
        ("made", f"{row.start:%Y-%m-%d %H:%M} UTC" if row else "not on the board; `callboard sync` adds it"),
        ("CV holds for", question_text(row) if row else ""),
        ("trained on", computes_text(row.computed_by if row else result.computed_by)),
        ("also known as", ", ".join(name for name in (row.names if row else ()) if name != result.name)),
        ("base", f"{base.name}, CV {number(base.metrics.get('cv.lwlrap'))}" if base else "none on the board"),
    ]
    return [(label, value) for label, value in facts if value]


def _sentence(line: BoardLine) -> str:
    verdict, change, base = line.judgement, line.change, line.base
    if verdict is None or change is None or base is None:
        return ""
    over = counted(change.n_groups, "group") if change.n_groups else "recordings"
    covered = f"{over} and seeds" if verdict.has_seeds else f"{over} alone, as seeds were not measured"
    interval = "" if isnan(verdict.low) else f" ({verdict.low:+.4f} … {verdict.high:+.4f} over {covered})"
    chance = "" if isnan(verdict.p_better) else f", probability of being better {verdict.p_better:.0%}"
    trained = f"; {unlike}" if line.row and (unlike := unlike_text(line.row, base)) else ""
    return f"{change.value:+.4f} of CV against {base.name}{interval}{chance}{trained}"


def row_of(result: Result, rows: Sequence[BoardRow]) -> BoardRow | None:
    """Return the row of the board with the same content key; None if there is none."""
    return next((row for row in rows if row.key == result.key), None)


def render(head: PageHead, sections: list[PageSection], note: str = "") -> str:
    """Render the self-contained HTML page.

    Args:
        head: Top of the page.
        sections: Sections in order.
        note: Reason why the board could not be read; empty if it was.
    """
    return page("report.html.j2", head=head, sections=sections, note=note)
