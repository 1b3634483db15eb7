"""`callboard trust`: does CV still predict LB?"""

import argparse
from typing import Any

from callboard.core.errors import UserError


def add(commands: Any) -> None:
    """Add the command to the parser."""
    trust = commands.add_parser(
        "trust", help="does CV still predict LB, and which estimate of CV does so best?"
    )
    trust.add_argument(
        "--author", action="store_true", help="the author's history of experiments.yaml, not the results here"
    )
    trust.add_argument(
        "--lb", choices=("public", "private"), default="public", help="which LB; default %(default)s"
    )
    trust.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only results with this parameter, as train.epochs=12; KEY!=VALUE for those without; repeatable",
    )
    trust.set_defaults(command=show)


def show(args: argparse.Namespace) -> None:
    """Print the correlations, a warning where they are lost, and the estimates of CV; never a failure."""
    from callboard.reports import cv_vs_lb as report

    if args.author and args.where:
        raise UserError("--where: chooses among results; the author's history has none, leave out --author")
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
        heading(len(runs), "the author's CV against public LB", left_out),
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
