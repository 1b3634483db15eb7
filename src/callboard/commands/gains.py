"""`callboard gains`: the mean gain of each row over its base, over all seeds."""

import argparse
from pathlib import Path
from typing import Any

from callboard.commands.arguments import add_command
from callboard.core.errors import UserError


def add(commands: Any) -> None:
    """Add the command to the parser."""
    gains = add_command(
        commands,
        "gains",
        help="show mean scores of rows over all seeds, and what each row gains over its base",
        details="A row's base is the one named in experiments.yaml or, where that has no result that differs "
        "in nothing else, the row whose result the run started from. Runs are compared seed by seed; "
        "`callboard run --seed N` adds a seed.",
        examples={
            "callboard gains 'stage*'": "what each stage adds to the one before",
            "callboard gains best --against exp0051": "the sum of all steps",
        },
    )
    gains.add_argument(
        "names",
        nargs="*",
        metavar="GLOB",
        help="only these rows, such as 'stage*', or all but these, such as '!exp*'; default: all",
    )
    gains.add_argument(
        "--against",
        default="",
        metavar="ROW",
        help="compare all rows with this one; default: each with its base",
    )
    gains.add_argument(
        "--output",
        type=Path,
        metavar="FILE.md",
        help="write the table to this file, relative to the workspace; default: print it",
    )
    gains.set_defaults(command=show)


def show(args: argparse.Namespace) -> None:
    """Print the table as Markdown, or write it."""
    if args.output and args.output.suffix != ".md":
        raise UserError(f"--output {args.output}: must end in .md")
    from callboard.analysis.gains import gains_of, without_results
    from callboard.core.console import counted
    from callboard.core.files import written_whole
    from callboard.experiments.captions import read_captions
    from callboard.reports.seeds import gains_markdown
    from callboard.results.rows import read_rows

    rows, captions = read_rows(), read_captions()
    gains = gains_of(rows, captions, args.names, args.against)
    if not gains:
        named = f" among {', '.join(args.names)}" if args.names else ""
        raise UserError(f"no row of experiments.yaml has a result{named}; `callboard run NAME` makes one")
    without = without_results(rows, captions, args.names)
    text = gains_markdown(gains, without)
    if not args.output:
        print(text, end="")
        return
    with written_whole(args.output) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    print(f"gains: {counted(len(gains), 'row')} in {args.output}")
