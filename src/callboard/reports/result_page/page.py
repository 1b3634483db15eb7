"""The page as a whole: gathered section by section, then written as one HTML file."""

from pathlib import Path

from callboard.core.console import Stopwatch, progress, summarize
from callboard.core.files import written_whole
from callboard.reports.html import page as html_of
from callboard.reports.result_page.blocks import PageSection
from callboard.reports.result_page.head import PageHead, read_head, row_of
from callboard.reports.result_page.sections import PAGE_SECTIONS, Subject, build_section
from callboard.results.lookup import find_result
from callboard.results.rows import board_refs, read_board

REPORT_FOLDER = Path("reports")
"""Where a report goes if nothing else is said, below the workspace."""


def write_report(reference: str | None, output: Path | None, n_worst: int, with_scores: bool) -> Path:
    """Gather one result, write its page and print one line about it.

    Args:
        reference: See lookup.find; None for the result of HEAD.
        output: The file; None for one named after the result.
        n_worst: Recordings to be drawn.
        with_scores: Whether to run the networks over them.

    Returns:
        The file.

    Raises:
        UserError: no such result, or the file cannot be written.
    """
    watch = Stopwatch()
    rows, why_not = read_board()
    result = find_result(reference, board_refs(rows))
    row = row_of(result, rows)
    subject = Subject(result, row, rows, n_worst, with_scores)
    names = progress(PAGE_SECTIONS, total=len(PAGE_SECTIONS), label=f"report {result.name}", unit="sections")
    sections = [build_section(name, subject) for name in names]
    text = render(read_head(result, row, rows), sections, why_not)
    output = output or REPORT_FOLDER / f"{result.name.replace('/', '-')}.html"
    with written_whole(output) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    n_missing = sum(bool(section.missing) for section in sections)
    summarize(
        "report",
        f"{result.name} in {output}",
        f"{output.stat().st_size / 1e6:.1f} MB",
        *([f"{n_missing} sections without input"] if n_missing else []),
        f"{watch.elapsed_s:.1f} s",
    )
    return output


def render(head: PageHead, sections: list[PageSection], note: str = "") -> str:
    """The HTML of a page, complete in itself.

    Args:
        head: Its top.
        sections: In order.
        note: On what could not be read at all.
    """
    return html_of("report.html.j2", head=head, sections=sections, note=note)
