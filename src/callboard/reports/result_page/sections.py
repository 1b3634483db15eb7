"""The sections of a report, each a function from a result to blocks, and the report as a whole."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from callboard.analysis.correlation import correlation, spearman
from callboard.core.console import Stopwatch, progress, summarize
from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.data.presence import positives
from callboard.reports.result_page import figures
from callboard.reports.result_page.evidence import Evidence, Subject, lost_points, reliability
from callboard.reports.result_page.leaks import leak_audit
from callboard.reports.result_page.page import (
    Figures,
    Grid,
    PageBlock,
    PageSection,
    Text,
    read_head,
    render,
    row_of,
)
from callboard.results.lookup import find_result
from callboard.results.rows import board_refs, read_board
from callboard.scoring.metrics import average_precisions

RECORDING_KINDS = ("training, with TP", "training, FP only", "test or external")
"""Kinds of recordings that pseudo-labels can be in."""
MIN_SCORED = 3
"""Minimum number of results with CV and LB for a plot of one against the other."""


def learning_curves(subject: Subject) -> Iterator[PageBlock]:
    """Draw loss and validation LWLRAP of every fold and round."""
    rounds: dict[str, dict[str, figures.Curve]] = {}
    for name, epochs in subject.result.curves.items():
        number, _, fold = name.partition("-")
        rounds.setdefault(number, {})[fold.replace("fold", "fold ")] = epochs
    for number, curves in rounds.items():
        drawings = [figures.draw_curves(curves, "loss", "training loss", f"loss-{number}")]
        if any("val_lwlrap" in epoch for epochs in curves.values() for epoch in epochs):
            drawings.append(figures.draw_curves(curves, "val_lwlrap", "validation LWLRAP", f"val-{number}"))
        title = f"Round {number.removeprefix('r')}" if len(rounds) > 1 else ""
        caption = (
            "Loss on the clips of the training folds; LWLRAP on the clips of the held-out fold, at the "
            "epochs that were validated."
        )
        yield Figures(drawings, caption, title)


def species(subject: Subject) -> Iterator[PageBlock]:
    """Draw each species' average precision and share of the lost points."""
    table = species_table(subject.evidence)
    drawings = [figures.draw_species(table), figures.draw_losses(table)]
    yield Figures(
        drawings,
        "Average precision measures how well a species' score ranks the recordings. Lost points are those "
        "by which LWLRAP falls short of 1: each confirmed pair of recording and species loses 1 minus the "
        "precision at its rank. A bar beyond the dashed line: the species loses more than its share of "
        "recordings.",
    )


def species_table(evidence: Evidence) -> pd.DataFrame:
    """Build a table of species, ap, n_tp (recordings) and lost (share of all lost points), best ap first."""
    has_tp = evidence.is_present.any(axis=1)
    lost = lost_points(evidence).sum(axis=0)
    table = pd.DataFrame(
        {
            "species": evidence.species,
            "ap": average_precisions(evidence.is_present[has_tp], evidence.scores[has_tp]),
            "n_tp": evidence.is_present.sum(axis=0),
            "lost": lost / max(lost.sum(), np.finfo(float).tiny),
        }
    )
    return table.sort_values(["ap", "species"], ascending=[False, True], ignore_index=True)


def cv_against_lb(subject: Subject) -> Iterator[PageBlock]:
    """Draw CV against LB of all results on the same data, with this one marked.

    Raises:
        UserError: this result, or its LB, is not on the board.
    """
    if subject.row is None:
        raise UserError("this result is not on the board; `callboard sync` records it there")
    drawings, sentences, few = [], [], []
    same_data = [row for row in subject.rows if row.data_md5 == subject.row.data_md5]
    for part in ("public", "private"):
        keys = ("cv.lwlrap", f"lb.{part}")
        if not all(key in subject.row.metrics for key in keys):
            continue
        scored = [row for row in same_data if all(key in row.metrics for key in keys)]
        if len(scored) < MIN_SCORED:
            few.append(f"{len(scored)} with {part} LB")
            continue
        cv, lb = (np.array([row.metrics[key] for row in scored]) for key in keys)
        marked = (subject.row.metrics[keys[0]], subject.row.metrics[keys[1]])
        drawings.append(figures.draw_cv_against_lb(cv, lb, marked, part))
        rho = correlation(spearman, cv, lb)
        if np.isfinite(rho.value):
            sentences.append(
                f"{part} {rho.value:+.2f} ({rho.low:+.2f} … {rho.high:+.2f}) over {rho.n} results"
            )
    if few:
        yield Text(
            f"Not drawn, since it takes at least {MIN_SCORED} results on the same data: there are "
            f"{', '.join(few)}, this one included."
        )
    elif not drawings:
        raise UserError("no LB of this result is known; `callboard lb add` records one")
    found = f" Spearman's correlation with its 95 % interval: {'; '.join(sentences)}." if sentences else ""
    if drawings:
        yield Figures(drawings, f"Results on the same data as this one, which is marked.{found}")


def calibration(subject: Subject) -> Iterator[PageBlock]:
    """Draw the reliability of recording scores on judged cells."""
    evidence = subject.evidence
    bins = reliability(evidence.scores, evidence.is_present, evidence.is_absent)
    unknown = ~(evidence.is_present | evidence.is_absent)
    groups = {
        "confirmed (TP)": evidence.scores[evidence.is_present],
        "rejected (FP)": evidence.scores[evidence.is_absent],
        "unlabelled": evidence.scores[unknown],
    }
    drawings = [figures.draw_reliability(bins), figures.draw_histogram(groups)]
    yield Figures(
        drawings,
        f"{len(evidence.scores[~unknown]):,} of {unknown.size:,} cells (recording × species) are judged: "
        "present if there is a TP annotation, absent if there are only FP annotations. Unlabelled cells are "
        "left out of the first figure. Experts judged what an earlier detector had proposed, so the share "
        "does not carry over to all cells. Numbers are counts of cells, bars are Wilson's 95 % intervals; "
        f"the mean distance from the diagonal is {bins.expected_error:.3f}.",
    )


def pseudo_labels(subject: Subject) -> Iterator[PageBlock]:
    """Count pseudo-labels by round, species and kind of recording."""
    if not subject.pseudo_labels:
        yield Text("None: this result was trained on annotations alone.")
        return
    drawings, rows = [], []
    for number, found in subject.pseudo_labels.items():
        table = positives(found)
        counts = pseudo_counts(table, subject.evidence)
        drawings.append(figures.draw_pseudo_labels(counts, number))
        rows.append(
            [
                f"round {number}",
                ", ".join(sorted({teacher.partition("/")[0] for teacher in table["teacher"]})),
                f"{len(table):,}",
                f"{table['recording_id'].nunique():,}",
                *(f"{counts[kind].sum():,}" if kind in counts else "0" for kind in RECORDING_KINDS),
                f"{table['score'].mean():.2f}",
                f"{table['votes'].mean():.1f}",
                f"{len(found) - len(table):,}",
            ]
        )
    header = [
        "",
        "teachers",
        "labels",
        "recordings",
        *RECORDING_KINDS,
        "mean score",
        "mean votes",
        "absences",
    ]
    yield Grid(header, rows, n_words=2)
    yield Figures(drawings, "Positive spans that teachers added, by species and by kind of recording.")


def pseudo_counts(table: pd.DataFrame, evidence: Evidence) -> pd.DataFrame:
    """Count pseudo-labels by species (rows, in class order) and kind of recording (columns, if it occurs)."""
    clips = evidence.clips
    with_tp = set(clips.loc[clips["label_type"] == "tp", "recording_id"])
    is_folded = table["recording_id"].isin(set(evidence.folds["recording_id"]))
    kind = np.where(
        table["recording_id"].isin(with_tp),
        RECORDING_KINDS[0],
        np.where(is_folded, RECORDING_KINDS[1], RECORDING_KINDS[2]),
    )
    counts = pd.crosstab(table["species_id"], kind)
    columns = [name for name in RECORDING_KINDS if name in counts]
    return counts.reindex(index=evidence.species, columns=columns, fill_value=0)


def recordings(subject: Subject) -> Iterator[PageBlock]:
    """Draw the recordings that cost most; scoring them needs torch."""
    from callboard.reports.result_page.worst import worst_blocks

    yield from worst_blocks(subject.result, subject.evidence, subject.n_worst, subject.with_scores)


PAGE_SECTIONS: dict[str, tuple[str, Callable[[Subject], Iterator[PageBlock]]]] = {
    "curves": ("Learning curves", learning_curves),
    "species": ("Species", species),
    "cv-lb": ("CV against LB", cv_against_lb),
    "worst": ("The recordings that cost most", recordings),
    "calibration": ("Calibration", calibration),
    "leaks": ("Leak audit", leak_audit),
    "pseudo": ("Pseudo-labels", pseudo_labels),
}
"""Anchor to title and builder, in the order of the page."""


def build_section(name: str, subject: Subject) -> PageSection:
    """Build a section, or one that says what is missing."""
    title, build = PAGE_SECTIONS[name]
    try:
        return PageSection(name, title, list(build(subject)))
    except UserError as error:
        return PageSection(name, title, missing=str(error))


REPORT_FOLDER = Path("reports")
"""Default folder, in the workspace."""


def write_report(reference: str | None, output: Path | None, n_worst: int, with_scores: bool) -> Path:
    """Write the page of one result and print one line about it.

    Args:
        reference: Name of a result, see lookup.find; None for the result of HEAD.
        output: File to write; None for one named after the result.
        n_worst: Number of recordings to draw.
        with_scores: Whether to load the networks and run them over these recordings.

    Returns:
        The file written.

    Raises:
        UserError: the result does not exist, or the file cannot be written.
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
