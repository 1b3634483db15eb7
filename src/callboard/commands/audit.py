"""`callboard audit`: who made the pseudo-labels of a result, and what they had seen."""

import argparse
from typing import TYPE_CHECKING, Any

from callboard.commands import RESULT_NAME
from callboard.errors import UserError

if TYPE_CHECKING:
    from callboard.lineage import RoundLineage
    from callboard.runs.files import Source

HEADER = ("round", "teachers", "labels", "of test", "unseen", "inherited", "seen or unsure")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    audit = commands.add_parser(
        "audit", help="had a teacher seen the recordings that it pseudo-labelled? fails where it had"
    )
    audit.add_argument("name", nargs="?", metavar="NAME", help=f"{RESULT_NAME}; default the result of HEAD")
    audit.set_defaults(command=show)


def show(args: argparse.Namespace) -> None:
    """Print the lineage of every round.

    Raises:
        UserError: a label breaks the promise of `pseudo.isolation`, or a file that proves it is missing.
    """
    from callboard.board.table import markdown_table
    from callboard.lineage import read_lineage, refuse_violations
    from callboard.report.head import read_board
    from callboard.runs.files import find_source

    rows, _ = read_board()
    source = find_source(args.name, rows)
    params = source.result.params
    if params.get("infer.blend", "[]") != "[]":
        raise UserError(f"{source.name} is a blend and has no networks of its own; audit its parts")
    rounds = read_lineage(source.output, params)
    if not rounds:
        print(f"{source.name}: no pseudo-labels, its networks have learned from annotations alone")
        return
    print(markdown_table(HEADER, [cells(one) for one in rounds], [False, False, *[True] * 5]))
    for one in rounds:
        print(f"round {one.round}: {one.sentence}; {one.depth}")
    if (start := params.get("train.init_from", "null")) != "null":
        print(f"all of them started from {start}, which is not traced here: `callboard audit {start}`")
    print(inflation(source, rounds[-1].round))
    for one in rounds:
        refuse_violations(one)


def inflation(source: "Source", last: int) -> str:
    """CV as it is, and as it would be if the last round's pseudo-labels counted as truth."""
    from callboard.clips import read_clips
    from callboard.evaluation import relabeled_lwlrap
    from callboard.results import CLIPS, OUT_OF_FOLD
    from callboard.submission import read_score_table

    out_of_fold = read_score_table(source.output(OUT_OF_FOLD))
    clips, pseudo = read_clips(source.output(CLIPS)), read_clips(source.output(f"pseudo/r{last}.csv"))
    of_experts = relabeled_lwlrap(out_of_fold, clips, pseudo.head(0))
    with_pseudo = relabeled_lwlrap(out_of_fold, clips, pseudo)
    return f"CV {of_experts:.4f} on the experts' labels; {with_pseudo:.4f} if pseudo-labels counted as truth"


def cells(one: "RoundLineage") -> list[str]:
    """A line of the table; lineage.py says what the words mean."""
    inherited = f"{one.n_inherited:,}" if one.is_traced else "unknown"
    unseen = f"{one.n_unseen:,}" if one.is_traced else "unknown"
    counts = [f"{one.n_labels:,}", f"{one.n_test:,}", unseen, inherited, f"{one.n_seen + one.n_unsure:,}"]
    return [f"r{one.round}", ", ".join(f"{name} {n:,}" for name, n in one.by_teacher.items()), *counts]
