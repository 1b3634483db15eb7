"""`callboard audit`: which networks made the pseudo-labels of a result, and what they had seen."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from callboard.commands.arguments import HEAD_RESULT, add_command
from callboard.core.errors import UserError

if TYPE_CHECKING:
    from callboard.pseudo.provenance import RoundLineage
    from callboard.results.result import Result

AUDIT_LEGEND = """
in no fold: labels of test and external recordings.
unseen: no network in the label's lineage had been trained on the recording.
inherited: the networks that voted had not, but one whose labels they were trained on had.
seen or unsure: a network that voted had been trained on it, or may have been.
"""
AUDIT_HEADER = ("round", "teachers", "labels", "in no fold", "unseen", "inherited", "seen or unsure")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    audit = add_command(
        commands,
        "audit",
        help="check the pseudo-labels and start weights of a result for leakage",
        details="Counts for each round which networks made the pseudo-labels, and how many labels are of "
        "recordings that these had been trained on, according to the weights files. Exits with status 1 if "
        "pseudo.isolation is broken or cannot be proved (isolation none promises nothing), or where the "
        "weights that a fold started from had seen recordings that the fold holds out.",
        examples={
            "callboard audit": "the result of HEAD",
            "callboard audit exp0045-oof_noisy_label": "a result by its name",
        },
    )
    audit.add_argument("name", nargs="?", metavar="NAME", help=HEAD_RESULT)
    audit.set_defaults(command=show)


def show(args: argparse.Namespace) -> None:
    """Print the lineage of every round, also of each result that the start weights come from.

    Raises:
        UserError: a label breaks the promise of `pseudo.isolation`, start weights had seen what their fold
            holds out, or a file needed as proof is missing.
    """
    from callboard.params.references import init_from
    from callboard.pseudo.provenance import first_of
    from callboard.results.lookup import find_result
    from callboard.results.result import FOLDS
    from callboard.results.rows import board_refs, read_board

    rows, _ = read_board()
    board = board_refs(rows)
    result = find_result(args.name, board)
    folds = result.output(FOLDS)
    violations = audit(result)
    has_rounds = result.params["pseudo.rounds"] != "0"
    while start := init_from(result.params):
        before = find_result(start, board)
        print(f"\n{result.name} started from {start}")
        violations += [*audit_start(before, folds), *audit(before)]
        result = before
        has_rounds |= result.params["pseudo.rounds"] != "0"
    if has_rounds:
        print(AUDIT_LEGEND, end="")
    if violations:
        raise UserError(f"leak: {first_of(violations)}")


def audit(result: "Result") -> list[str]:
    """Print the lineage of one result, and return what breaks the promise of its `pseudo.isolation`.

    Raises:
        UserError: the result is a blend, or a file needed as proof is missing.
    """
    from callboard.pseudo.provenance import read_lineage
    from callboard.reports.text import markdown_table

    result.refuse_blend()
    params = result.params
    rounds = read_lineage(result.output, result.outs, params)
    if not rounds:
        print(f"{result.name}: no pseudo-labels; its networks have learned from annotations alone")
        return []
    print(markdown_table(AUDIT_HEADER, [audit_cells(one) for one in rounds], [False, False, *[True] * 5]))
    for one in rounds:
        print(f"round {one.round}: {one.sentence}; {one.depth}")
    print(inflation(result))
    return [f"pseudo-labels of round {one.round}: {words}" for one in rounds for words in one.violations]


def audit_start(start: "Result", folds: Path) -> list[str]:
    """Print whether start weights had seen what their folds hold out, and return the cases where they had.

    Args:
        start: Result that the start weights belong to.
        folds: Folds table of the result that started from them.

    Raises:
        UserError: a weights file is missing.
    """
    from callboard.data.folds import read_folds
    from callboard.model.weights import read_held_out
    from callboard.reports.result_page.leaks import network_checks

    paths = start.weights.values()
    (check,) = network_checks({path: read_held_out(start.output(path)) for path in paths}, read_folds(folds))
    print(f"{check.claim}: {'yes' if check.holds else 'NO'}, {check.counted}")
    return [f"{start.name}: {words}" for words in check.violations]


def inflation(result: "Result") -> str:
    """Describe CV as it is, and as it would be if the last round's pseudo-labels counted as truth."""
    from callboard.analysis.cv_estimates import relabeled_cv

    confirmed, with_pseudo = relabeled_cv(result)
    return f"CV {confirmed:.4f} on confirmed labels; {with_pseudo:.4f} if pseudo-labels counted as truth"


def audit_cells(one: "RoundLineage") -> list[str]:
    """Return the cells of one round under AUDIT_HEADER; `pseudo/provenance.py` defines the terms."""
    inherited = f"{one.n_inherited:,}" if one.is_traced else "unknown"
    unseen = f"{one.n_unseen:,}" if one.is_traced else "unknown"
    counts = [f"{one.n_labels:,}", f"{one.n_unfolded:,}", unseen, inherited, f"{one.n_seen + one.n_unsure:,}"]
    return [f"r{one.round}", ", ".join(f"{name} {n:,}" for name, n in one.by_teacher.items()), *counts]
