"""What a page is made of; the template has a macro for each kind."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from markupsafe import Markup

from callboard.reports.result_page.leaks import LeakCheck


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Figures:
    """Drawings side by side as far as there is room, under one caption."""

    kind: ClassVar[str] = "figures"
    drawings: Sequence[Markup]
    caption: str
    title: str = ""
    is_wide: bool = False
    """Whether a phone scrolls it sideways rather than shrinking it."""


@dataclass(frozen=True)
class Grid:
    """A table of text."""

    kind: ClassVar[str] = "grid"
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    n_words: int = 1
    """Leading columns that are words; all others are numbers, set to the right."""


@dataclass(frozen=True)
class Checks:
    """Claims with a mark each."""

    kind: ClassVar[str] = "checks"
    checks: Sequence[LeakCheck]


PageBlock = Text | Figures | Grid | Checks


@dataclass(frozen=True)
class PageSection:
    """A heading, and what stands below it."""

    name: str
    """Of its anchor."""
    title: str
    blocks: Sequence[PageBlock] = field(default_factory=tuple)
    missing: str = ""
    """Why there is nothing, where something its blocks need is not there."""
