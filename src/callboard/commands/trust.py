"""`callboard trust`: whether CV still predicts LB."""

import argparse
from typing import Any

from callboard.commands.arguments import add_command
from callboard.core.errors import UserError


def add(commands: Any) -> None:
    """Add the command to the parser."""
    trust = add_command(
        commands,
        "trust",
        help="show whether CV still predicts LB, and which CV estimate does so best",
        examples={
            "callboard trust": "correlations over all results, the best and blocks in time",
            "callboard trust --where train.epochs=12": "the same over results with one setting",
            "callboard trust --author": "where the original author's CV lost its meaning",
        },
    )
    trust.add_argument(
        "--author",
        action="store_true",
        help="judge the original author's scores in experiments.yaml; default: your results",
    )
    trust.add_argument(
        "--lb",
        choices=("public", "private"),
        default="public",
        help="leaderboard score to compare CV with; default %(default)s",
    )
    trust.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only results with this value of a parameter; KEY!=VALUE for all others; repeatable",
    )
    trust.set_defaults(command=show)


def show(args: argparse.Namespace) -> None:
    """Print the correlations, a warning where they are lost, and the CV estimates; never fail."""
    from callboard.reports import cv_vs_lb as report

    if args.author and args.where:
        raise UserError("--where: selects among your results, not the original author's; leave out --author")
    parts = _of_author() if args.author else _of_results(f"lb.{args.lb}", args.where)
    print("\n".join([*parts, report.INTERVALS]))


def _of_author() -> list[str]:
    from collections import Counter

    from callboard.analysis.cv_vs_lb import author_points, trust
    from callboard.experiments.author_scores import author_rows
    from callboard.experiments.table import read_experiments
    from callboard.reports.cv_vs_lb import conclusion, correlations, heading

    table = read_experiments()
    runs = author_points(table)
    left_out = Counter({"without CV or LB": len(author_rows(table)) - len(runs)})
    found = trust(runs)
    return [
        heading(len(runs), "the original author's CV against public LB", left_out),
        correlations(found),
        conclusion(found),
    ]


def _of_results(lb: str, where: list[str]) -> list[str]:
    from callboard.analysis.choice import Choice, chosen
    from callboard.analysis.cv_estimates import estimates_of
    from callboard.analysis.cv_vs_lb import points, points_of_results, trust
    from callboard.reports.cv_vs_lb import (
        conclusion,
        correlations,
        estimates_text,
        followings,
        heading,
        marked,
    )
    from callboard.results.rows import read_rows

    rows = chosen(read_rows(), Choice(where=tuple(where)))
    rows, left_out = points_of_results(rows, lb)
    found = trust(points(rows, lb))
    return [
        heading(len(rows), f"cv.lwlrap against {lb}", left_out),
        *filter(None, [marked(rows)]),
        correlations(found),
        conclusion(found),
        estimates_text(followings(rows, estimates_of(rows))),
    ]
