"""`callboard thresholds`: for each species the score from which detections have the precision asked for."""

import argparse
from typing import Any

from callboard.commands.arguments import HEAD_RESULT, absolute_path, add_command, fraction

DEFAULT_PRECISION = 0.9


def add(commands: Any) -> None:
    """Add the command to the parser."""
    thresholds = add_command(
        commands,
        "thresholds",
        help="choose a threshold for each species, from judged boxes and the verdicts of `callboard review`",
        details="A threshold is the lowest score at or above which the share of windows with the species is "
        "surely the precision asked for: the lower end of its 95 % interval reaches it. Boxes are scored out "
        "of fold. A species with at least 20 verdicts takes these instead.",
        examples={
            "callboard thresholds exp0058": "writes thresholds/exp0058/thresholds.csv and a plot",
            "callboard thresholds exp0058 --precision 0.95 --verdicts june": "from the review of june",
        },
    )
    thresholds.add_argument("name", nargs="?", metavar="NAME", help=HEAD_RESULT)
    thresholds.add_argument(
        "--precision",
        type=fraction(with_ends=False),
        default=DEFAULT_PRECISION,
        metavar="P",
        help="share of detections that must be right, between 0 and 1; default %(default)s",
    )
    thresholds.add_argument(
        "--verdicts",
        nargs="+",
        type=absolute_path,
        default=[],
        metavar="FOLDER",
        help="folders of predictions of this result that were reviewed; default: predictions/NAME, if it has "
        "verdicts",
    )
    thresholds.add_argument(
        "--output",
        type=absolute_path,
        metavar="FOLDER",
        help="folder of the table and the plot; default: thresholds/NAME in the workspace",
    )
    thresholds.set_defaults(command=write_chosen)


def write_chosen(args: argparse.Namespace) -> None:
    """Write and print the thresholds."""
    from callboard.reports.thresholds import write_thresholds

    write_thresholds(args.name, args.precision, args.verdicts, args.output)
