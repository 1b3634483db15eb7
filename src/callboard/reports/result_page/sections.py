"""The sections of a report: each a function from a result to blocks, or a refusal that says what lacks."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from callboard.analysis.correlation import correlation, spearman
from callboard.core.errors import UserError
from callboard.data.clips import read_clips
from callboard.data.presence import positives
from callboard.features.frame_cache import read_index
from callboard.pseudo.provenance import read_lineage
from callboard.reports.result_page import figures
from callboard.reports.result_page.blocks import Checks, Figures, Grid, PageBlock, PageSection, Text
from callboard.reports.result_page.evidence import Evidence, lost_points, read_evidence, reliability
from callboard.reports.result_page.leaks import (
    LeakCheck,
    fold_checks,
    lineage_checks,
    pseudo_checks,
    score_checks,
)
from callboard.reports.result_page.worst import worst_blocks
from callboard.results.result import Result
from callboard.results.rows import BoardRow
from callboard.scoring.metrics import average_precisions

PSEUDO = re.compile(r"pseudo/r(?P<round>\d+)\.csv")
RECORDING_KINDS = ("training, with TP", "training, FP only", "test or external")
"""Kinds of recordings that pseudo-labels are in."""
MIN_SCORED = 3
"""Results with CV and LB below which a picture of one against the other is left out."""


@dataclass(frozen=True)
class Subject:
    """The result that is reported on, and the board that it stands on."""

    result: Result
    row: BoardRow | None
    rows: Sequence[BoardRow]
    n_worst: int
    with_scores: bool

    @cached_property
    def evidence(self) -> Evidence:
        """Its tables; read once.

        Raises:
            UserError: one is missing.
        """
        return read_evidence(self.result)

    @cached_property
    def pseudo_labels(self) -> dict[int, pd.DataFrame]:
        """Round to the pseudo-labels that its students had, of all rounds up to the last.

        Raises:
            UserError: a table is not in the cache.
        """
        final = int(self.result.params.get("pseudo.rounds", "0"))
        rounds = {int(m["round"]): path for path in self.result.outs if (m := PSEUDO.fullmatch(path))}
        return {k: read_clips(self.result.output(path)) for k, path in sorted(rounds.items()) if k <= final}


def learning_curves(subject: Subject) -> Iterator[PageBlock]:
    """Loss and validation LWLRAP of every fold and round."""
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
            "Loss on the training folds' clips; LWLRAP on the held-out fold's clips, in the epochs in which "
            "it was validated."
        )
        yield Figures(drawings, caption, title)


def species(subject: Subject) -> Iterator[PageBlock]:
    """Average precision and share of the errors."""
    table = species_table(subject.evidence)
    drawings = [figures.draw_species(table), figures.draw_losses(table)]
    yield Figures(
        drawings,
        "Average precision compares recordings with each other, by one species' score. The share of lost "
        "points is of what LWLRAP lacks to 1: each confirmed pair of recording and species loses 1 minus the "
        "precision at its rank. A bar beyond its tick: the species loses more than its recordings would by "
        "chance.",
    )


def species_table(evidence: Evidence) -> pd.DataFrame:
    """species, ap, n_tp (recordings) and lost (share of all lost points), best ap first."""
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
    """Every result of the board on the same data, this one marked.

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
            f"Not drawn, since {MIN_SCORED} results on the same data are the least that show anything: "
            f"there are {', '.join(few)}, this one included."
        )
    elif not drawings:
        raise UserError("no LB is known of this result; `callboard lb add` records one")
    told = f" Spearman's correlation with its 95 % interval: {'; '.join(sentences)}." if sentences else ""
    if drawings:
        yield Figures(drawings, f"Results on the same data as this one, which is marked.{told}")


def calibration(subject: Subject) -> Iterator[PageBlock]:
    """Reliability of recording scores on judged cells."""
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
        "present where a TP annotation is, absent where only an FP annotation is. What nobody labelled is "
        "unknown and left out of the first figure. Experts judged what another detector had proposed, so the "
        "share says nothing about cells at large. Numbers count cells, bars are Wilson's 95 % interval; the "
        f"mean distance from the diagonal is {bins.expected_error:.3f}.",
    )


def leak_audit(subject: Subject) -> Iterator[PageBlock]:
    """Checks that no network can have seen what it was scored on."""
    evidence, result = subject.evidence, subject.result
    checks = fold_checks(evidence.folds, evidence.clips, _test_ids(result))
    checks += score_checks(evidence.out_of_fold, evidence.folds)
    makers, told = _maker_checks(subject)
    networks, why_not = _network_checks(subject)
    yield Checks(checks + makers + networks)
    if why_not:
        yield Text(f"What the networks were trained on is not checked: {why_not}.")
    if told:
        yield Text(told)
    yield fold_grid(evidence)
    if subject.pseudo_labels:
        yield Text(
            "CV of a result with pseudo-labels is optimistic even where all of this holds: the students of a "
            "fold learn from teachers that had learned from that fold's labels."
        )


def _maker_checks(subject: Subject) -> tuple[list[LeakCheck], str]:
    """Who made the pseudo-labels, by their weights files or else by their names, and how far that goes."""
    if not subject.pseudo_labels:
        return [], ""
    try:
        if not subject.with_scores:  # weights files are read with torch
            raise UserError("--no-scores")
        rounds = read_lineage(subject.result.output, subject.result.outs, subject.result.params)
    except UserError as error:
        folds = subject.evidence.folds
        by_name = [
            check
            for number, table in subject.pseudo_labels.items()
            for check in pseudo_checks(number, table, folds)
        ]
        return by_name, f"Makers of pseudo-labels are checked by their names alone: {error}."
    return lineage_checks(rounds), " ".join(f"Round {one.round}: {one.depth}." for one in rounds)


def _network_checks(subject: Subject) -> tuple[list[LeakCheck], str]:
    """What the networks' files say of their training, or why they are not asked."""
    if not subject.with_scores:
        return [], "--no-scores"
    from callboard.reports.result_page.listening import network_checks_of

    try:
        return network_checks_of(subject.result, subject.evidence.folds), ""
    except UserError as error:
        return [], str(error)


def fold_grid(evidence: Evidence) -> Grid:
    """Recordings and annotations of each fold."""
    clips = evidence.clips.merge(evidence.folds.drop_duplicates("recording_id"), on="recording_id")
    rows = []
    for fold, members in evidence.folds.groupby("fold"):
        of_fold = clips[clips["fold"] == fold]
        tp, fp = (of_fold.loc[of_fold["label_type"] == kind, "recording_id"] for kind in ("tp", "fp"))
        counts = (len(members), tp.nunique(), len(set(fp) - set(tp)), len(tp), len(fp))
        rows.append([f"fold {fold}", *(f"{count:,}" for count in counts)])
    header = ["", "recordings", "with TP", "FP only", "TP rows", "FP rows"]
    return Grid(header, rows, "What each fold holds")


def _test_ids(result: Result) -> set[str]:
    """Of the mel cache; none where it is gone, which the section on recordings tells."""
    try:
        with result.folder("data/mel") as mel:
            return set(read_index(mel / "test")["recording_id"])
    except UserError:
        return set()


def pseudo_labels(subject: Subject) -> Iterator[PageBlock]:
    """Pseudo-labels by round, species and kind of recording."""
    if not subject.pseudo_labels:
        yield Text("None: this result has learned from experts' annotations alone.")
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
    yield Figures(
        drawings, "Positive spans that a teacher added, by species and by what was known of the recording."
    )


def pseudo_counts(table: pd.DataFrame, evidence: Evidence) -> pd.DataFrame:
    """Number of pseudo-labels: species in class order as index, columns those of SOURCES that occur."""
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
    """The recordings that cost most, drawn; the network's part needs torch."""
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
    """A section, or a sentence in its place where an input is missing."""
    title, build = PAGE_SECTIONS[name]
    try:
        return PageSection(name, title, list(build(subject)))
    except UserError as error:
        return PageSection(name, title, missing=str(error))
