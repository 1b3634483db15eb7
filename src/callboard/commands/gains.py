"""`callboard gains`: what each row gains over its base, over all seeds."""

import argparse
from pathlib import Path
from typing import Any

from callboard.errors import UserError

EXAMPLES = """\
examples:
  callboard run stage1 stage2 && callboard run --seed 1 stage1 stage2
  callboard gains 'stage*'
  callboard gains best --against exp0051
"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    gains = commands.add_parser(
        "gains",
        help="rows of experiments.yaml over all seeds: mean scores, and what each gains over its base",
        description="A row's base is the one that it has in experiments.yaml; where that has no result that "
        "differs in nothing else, the row whose result was there when it was started. Seeds are compared "
        "with the same seed.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    gains.add_argument(
        "names",
        nargs="*",
        metavar="GLOB",
        help="only these rows, as 'stage*', or all but these, as '!exp*'; all that have results if none",
    )
    gains.add_argument(
        "--against",
        default="",
        metavar="ROW",
        help="compare all with this row, not each with its base",
    )
    gains.add_argument("--output", type=Path, metavar="FILE.md", help="write it there, relative to the root")
    gains.set_defaults(command=show)


def show(args: argparse.Namespace) -> None:
    """Print the table as Markdown, or write it."""
    if args.output and args.output.suffix != ".md":
        raise UserError(f"--output {args.output}: should end in .md")
    from callboard.board.gains import gains_of, without_results
    from callboard.board.gains_table import gains_markdown
    from callboard.outputs import written_whole
    from callboard.runs.captions import read_captions
    from callboard.runs.rows import read_rows
    from callboard.words import counted

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
