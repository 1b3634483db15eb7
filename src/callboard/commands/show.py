"""`callboard show`: one result on one screen."""

import argparse
from typing import Any

from callboard.commands.arguments import RESULT_NAME, add_command


def add(commands: Any) -> None:
    """Add the command to the parser."""
    show = add_command(
        commands,
        "show",
        help="show one result: scores, verdict, changed parameters, species, files",
        examples={
            "callboard show exp0058": "the newest result of that name",
            "callboard show 0123abcd": "the result whose content key begins so",
        },
    )
    show.add_argument("name", metavar="NAME", help=RESULT_NAME)
    show.set_defaults(command=show_result)


def show_result(args: argparse.Namespace) -> None:
    """Print everything known about the newest result of that name."""
    from callboard.analysis.lines import judged_line
    from callboard.core.workspace import main_workspace
    from callboard.experiments.captions import read_captions
    from callboard.reports.details import details
    from callboard.results.leaderboard import entries_of
    from callboard.results.lookup import held_result
    from callboard.results.rows import rows_named, rows_so_far

    rows = rows_so_far()
    *namesakes, row = rows_named(args.name, rows)
    line = judged_line(row, rows, read_captions())
    print(details(line, namesakes, held_result(row.ref), entries_of(main_workspace())), end="")
