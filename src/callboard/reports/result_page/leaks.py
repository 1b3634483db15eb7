"""Check whether a network could have seen what it was scored on, and write the section about it."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import pandas as pd

from callboard.core.console import counted
from callboard.core.errors import UserError
from callboard.data.folds import GROUP, groups_apart
from callboard.features.frame_cache import read_index
from callboard.pseudo.provenance import RoundLineage, read_lineage
from callboard.reports.result_page.evidence import Evidence, Subject
from callboard.reports.result_page.page import Checks, Grid, LeakCheck, PageBlock, Text
from callboard.results.result import Result


def fold_checks(folds: pd.DataFrame, clips: pd.DataFrame, test_ids: Collection[str]) -> list[LeakCheck]:
    """Check that each annotated recording and group is in one fold, and no test recording in any.

    Args:
        folds: recording_id, fold, unchecked; and group, if recordings are grouped.
        clips: recording_id of all annotations.
        test_ids: Test recordings; empty if unknown.
    """
    n_folds = folds.groupby("recording_id")["fold"].size()
    annotated, assigned = set(clips["recording_id"]), set(folds["recording_id"])
    checks = [
        LeakCheck(
            "No recording is in two folds", f"{len(assigned)} recordings", _names(n_folds[n_folds > 1].index)
        ),
        LeakCheck(
            "Every annotated recording has a fold, and only those",
            f"{len(annotated)} annotated recordings",
            _names(annotated ^ assigned),
        ),
    ]
    if GROUP in folds:
        claim, counted_groups = "No group is in two folds", f"{folds[GROUP].nunique()} groups"
        checks.append(LeakCheck(claim, counted_groups, groups_apart(folds)))
    if test_ids:
        claim = "No test recording is in a fold"
        checks.append(LeakCheck(claim, f"{len(test_ids)} test recordings", _names(assigned & set(test_ids))))
    return checks


def score_checks(out_of_fold: pd.DataFrame, folds: pd.DataFrame) -> list[LeakCheck]:
    """Check that each recording of the folds is scored once, as one of its own fold."""
    n_rows = out_of_fold["recording_id"].value_counts()
    scored, assigned = set(n_rows.index), set(folds["recording_id"])
    pairs = set(zip(folds["recording_id"], folds["fold"].astype(int), strict=True))
    moved = [
        f"{recording_id} (scored in fold {fold})"
        for recording_id, fold in zip(
            out_of_fold["recording_id"], out_of_fold["fold"].astype(int), strict=True
        )
        if (recording_id, fold) not in pairs
    ]
    counted = f"{len(out_of_fold)} rows"
    return [
        LeakCheck(
            "Each recording has one row of out-of-fold scores", counted, _names(n_rows[n_rows > 1].index)
        ),
        LeakCheck("Exactly the recordings of the folds are scored", counted, _names(scored ^ assigned)),
        LeakCheck("Each was scored as a recording of its own fold", counted, sorted(moved)),
    ]


def network_checks(
    held_out: Mapping[str, tuple[int, Collection[str]]], folds: pd.DataFrame
) -> list[LeakCheck]:
    """Check that networks held out the recordings of their fold, according to their weights files.

    Args:
        held_out: Path of a weights file to its fold and the recordings that it was not trained on.
        folds: recording_id, fold.
    """
    numbers = folds["fold"].astype(int)
    violations = []
    for path, (fold, held) in held_out.items():
        if seen := sorted(set(folds.loc[numbers == fold, "recording_id"]) - set(held)):
            violations.append(f"{path} has trained on {len(seen)} recordings of fold {fold}, first {seen[0]}")
    claim = "No network has trained on a recording of its own fold, according to its weights file"
    return [LeakCheck(claim, f"{len(held_out)} networks", violations)]


def lineage_checks(rounds: Sequence[RoundLineage]) -> list[LeakCheck]:
    """Check by weights files that no teacher labelled a recording that it had trained on.

    With `pseudo.isolation` none, where violations are intended, one line stands for all of them. With nested,
    also check that nothing a student is validated on has reached its teachers.
    """
    checks = []
    for lineage in rounds:
        seen = lineage.seen if lineage.isolation != "none" else [lineage.sentence] * bool(lineage.seen)
        checks += [
            LeakCheck(
                f"Round {lineage.round}: every teacher is of the previous round, and its weights file exists",
                f"{counted(lineage.n_labels, 'pseudo-label')}, {counted(len(lineage.by_teacher), 'teacher')}",
                lineage.strangers,
            ),
            LeakCheck(
                f"Round {lineage.round}: no teacher labelled a training recording that it had trained on, "
                "according to its weights file",
                f"{counted(lineage.n_training, 'pseudo-label')} of training recordings",
                seen,
            ),
        ]
        if lineage.isolation == "nested":
            claim = "nothing that a student is validated on had reached its teachers, by training or labels"
            labels = counted(lineage.n_labels, "pseudo-label")
            checks.append(LeakCheck(f"Round {lineage.round}: {claim}", labels, lineage.known))
    return checks


def pseudo_checks(number: int, pseudo: pd.DataFrame, folds: pd.DataFrame) -> list[LeakCheck]:
    """Check the teachers by their names alone, without reading weights files.

    Args:
        number: The student's round.
        pseudo: recording_id and teacher (`r0/fold3`, or `r0` for all models of a round) of its pseudo-labels.
        folds: recording_id, fold. Any network may label recordings without a fold (test, external).
    """
    fold_of = dict(zip(folds["recording_id"], folds["fold"].astype(int), strict=True))
    seen, late = [], []
    for recording_id, teacher in zip(pseudo["recording_id"], pseudo["teacher"], strict=True):
        made_in, _, named_folds = teacher.partition("/fold")
        held_out = named_folds.removeprefix("s").split("-")
        if recording_id in fold_of and str(fold_of[recording_id]) not in held_out:
            seen.append(f"{recording_id} (fold {fold_of[recording_id]}) labelled by {teacher}")
        if not made_in.removeprefix("r").isdigit() or int(made_in.removeprefix("r")) >= number:
            late.append(f"{recording_id} labelled by {teacher}")
    counted = f"{len(pseudo)} pseudo-labels"
    return [
        LeakCheck(
            f"Round {number}: no teacher labelled a training recording that it had trained on",
            counted,
            sorted(set(seen)),
        ),
        LeakCheck(f"Round {number}: every teacher is of an earlier round", counted, sorted(set(late))),
    ]


def _names(recording_ids: Collection[str]) -> list[str]:
    return sorted(recording_ids)


def leak_audit(subject: Subject) -> Iterator[PageBlock]:
    """Build the section, which checks that no network has seen what it was scored on."""
    evidence, result = subject.evidence, subject.result
    checks = fold_checks(evidence.folds, evidence.clips, _test_ids(result))
    checks += score_checks(evidence.out_of_fold, evidence.folds)
    makers, depth = _maker_checks(subject)
    networks, why_not = _network_checks(subject)
    yield Checks(checks + makers + networks)
    if why_not:
        yield Text(f"The recordings that networks were trained on are not checked: {why_not}.")
    if depth:
        yield Text(depth)
    yield fold_grid(evidence)
    if subject.pseudo_labels:
        yield Text(
            "CV of a result with pseudo-labels is optimistic even if all of this holds: the students of a "
            "fold learn from teachers that had learned from that fold's labels."
        )


def _maker_checks(subject: Subject) -> tuple[list[LeakCheck], str]:
    """Check the makers of pseudo-labels by weights files or else by names; return how far that goes too."""
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
        return by_name, f"The makers of pseudo-labels are checked by their names alone: {error}."
    return lineage_checks(rounds), " ".join(f"Round {one.round}: {one.depth}." for one in rounds)


def _network_checks(subject: Subject) -> tuple[list[LeakCheck], str]:
    """Check the networks by their weights files; return why these are not read too."""
    if not subject.with_scores:
        return [], "--no-scores"
    from callboard.reports.result_page.listening import held_out_by

    try:
        return network_checks(held_out_by(subject.result), subject.evidence.folds), ""
    except UserError as error:
        return [], str(error)


def fold_grid(evidence: Evidence) -> Grid:
    """Count the recordings and annotations of each fold."""
    clips = evidence.clips.merge(evidence.folds.drop_duplicates("recording_id"), on="recording_id")
    rows = []
    for fold, members in evidence.folds.groupby("fold"):
        of_fold = clips[clips["fold"] == fold]
        tp, fp = (of_fold.loc[of_fold["label_type"] == kind, "recording_id"] for kind in ("tp", "fp"))
        counts = (len(members), tp.nunique(), len(set(fp) - set(tp)), len(tp), len(fp))
        rows.append([f"fold {fold}", *(f"{count:,}" for count in counts)])
    header = ["", "recordings", "with TP", "FP only", "TP rows", "FP rows"]
    return Grid(header, rows, "Recordings and annotations of each fold")


def _test_ids(result: Result) -> set[str]:
    """Return the test recordings in the mel cache; none if it is missing, which another section reports."""
    try:
        with result.folder("data/mel", "test/index.csv") as mel:
            return set(read_index(mel / "test")["recording_id"])
    except UserError:
        return set()
