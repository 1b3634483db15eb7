"""Parts that all reports share: numbers, intervals and verdicts as text, Markdown tables, HTML pages."""

from collections.abc import Iterable, Sequence
from math import isnan
from typing import Any

from callboard.analysis.difference import Difference
from callboard.analysis.seed_noise import are_unlike
from callboard.analysis.verdict import Judgement, Verdict
from callboard.core.compute import COMPUTE_COLUMNS, Compute, Computes
from callboard.core.console import MISSING
from callboard.results.rows import BoardRow

VERDICT_WORDS = {
    Verdict.BETTER: "better",
    Verdict.WORSE: "worse",
    Verdict.WITHIN_NOISE: "within noise",
    Verdict.UNSURE: "unsure",
    Verdict.OPTIMISTIC: "optimistic",
}


def verdict_word(judgement: Judgement | None) -> str:
    """Return the verdict as a word, with a question mark if tentative; a dash if None."""
    if judgement is None:
        return MISSING
    return VERDICT_WORDS[judgement.verdict] + "?" * judgement.is_tentative


LB_WITHIN_NOISE = "≈"
LB_UNSURE = "?"
LB_LEGENDS = {
    LB_WITHIN_NOISE: f"{LB_WITHIN_NOISE} a different seed alone changes the leaderboard score by as much.",
    LB_UNSURE: f"{LB_UNSURE} beside a change of the leaderboard score: the effect of a different seed is not "
    "known, or comes from too few runs or digits; `callboard noise NAME` measures it.",
}
"""Marks at changes of a leaderboard score, with what they mean."""


def lb_mark(judgement: Judgement | None) -> str:
    """Mark at a change of a leaderboard score that is not sure; empty where it is, or without a change."""
    if judgement is None:
        return ""
    if judgement.verdict is Verdict.WITHIN_NOISE:
        return LB_WITHIN_NOISE
    return LB_UNSURE * (judgement.verdict is Verdict.UNSURE or judgement.is_tentative)


UNLIKE = "≠"
UNLIKE_LEGEND = (
    f"{UNLIKE} unlike processors, threads, precisions or versions of torch trained the results that are "
    "compared, which alone can change scores as much as a different seed; `callboard diff` lists them."
)
"""Explanation of the mark at a comparison of results that were not trained alike."""


def unlike_mark(row: BoardRow | None, base: BoardRow | None) -> str:
    """Return the mark, with a space before it, at a comparison of results not trained alike; else nothing."""
    return f" {UNLIKE}" if row and are_unlike(row, base) else ""


UNLIKE_PARTS = {
    "device": "devices",
    "processor": "processors",
    "threads": "numbers of threads",
    "precision": "precisions",
    "torch": "versions of torch",
}
"""Plural of each field of a Compute."""


def unlike_text(row: BoardRow, base: BoardRow | None) -> str:
    """Describe how what trained the base differs from what trained the result; empty if it does not."""
    if base is None or not are_unlike(row, base):
        return ""
    parts = unlike_parts(base.computed_by, row.computed_by)
    return f"trained with {parts}, which alone can change scores as much as a different seed"


def unlike_parts(*sides: Computes) -> str:
    """Return which fields differ among all of these, and their values on each side."""
    every = frozenset[Compute]().union(*sides)
    names = [name for name in COMPUTE_COLUMNS if len({getattr(one, name) for one in every}) > 1]
    texts = [_values(side, names) for side in sides]
    return f"unlike {' and '.join(UNLIKE_PARTS[name] for name in names)}: {' vs '.join(texts)}"


def _values(computes: Iterable[Compute], names: Sequence[str]) -> str:
    return " and ".join(", ".join(one.part(name) for name in names) for one in sorted(computes))


def computes_text(computes: Computes) -> str:
    """Describe what trained a result."""
    if not computes:
        return "not recorded"
    return ("mixed: " if len(computes) > 1 else "") + "; ".join(map(str, sorted(computes)))


def verdict_tone(judgement: Judgement | None) -> str:
    """Return the class that colours a verdict in a page or terminal; empty if None."""
    if judgement is None:
        return ""
    return {Verdict.BETTER: "better", Verdict.WORSE: "worse"}.get(judgement.verdict, "noise")


def lb_change_text(text: str, judgement: Judgement | None) -> str:
    """Return a change of a leaderboard score with its mark."""
    return f"{text} {lb_mark(judgement)}".rstrip()


def species_label(species_id: str, word: str = "species") -> str:
    """Return what a species is called in a sentence: a name as it is, a number as `species 7`."""
    return f"{word} {species_id}" if species_id.isdecimal() else species_id


def number(value: float | None, form: str = ".4f") -> str:
    """Format a score or a change; a dash if None or NaN."""
    return MISSING if value is None or isnan(value) else f"{value:{form}}"


def interval_text(change: Difference | None, judgement: Judgement | None = None) -> str:
    """Format a change with the interval of the judgement, or without one that of the recordings."""
    if change is None:
        return MISSING
    low, high = (judgement or change).low, (judgement or change).high
    return f"{change.value:+.4f} ({MISSING if isnan(low) else f'{low:+.4f} … {high:+.4f}'})"


def legend_markdown(notes: Sequence[str]) -> str:
    """Format notes as paragraphs below a table, with asterisks escaped."""
    return "".join(f"\n{text.replace('*', chr(92) + '*')}\n" for text in notes)


def markdown_table(header: Sequence[str], cells: Sequence[Sequence[str]], is_number: Sequence[bool]) -> str:
    """Build a table with padded columns, so that its plain text reads as a table too."""
    lines = [list(header), *([_one_cell(cell) for cell in line] for line in cells)]
    widths = [max(3, *(len(line[k]) for line in lines)) for k in range(len(header))]
    rule = [
        "-" * (width - 1) + (":" if right else "-") for width, right in zip(widths, is_number, strict=True)
    ]
    padded = [
        [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, is_number, strict=True)
        ]
        for line in (lines[0], rule, *lines[1:])
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)


def _one_cell(text: str) -> str:
    """Escape bars and HTML in a cell, and join its lines."""
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")


def page(template: str, **values: Any) -> str:
    """Fill in a template from templates/ to a self-contained HTML page, with all text escaped.

    Args:
        template: Name of the file; it can include `page.css`.
        values: Variables of the template.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("callboard.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)
