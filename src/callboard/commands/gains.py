"""`callboard gains`: what each row gains over its base, over all seeds."""

import argparse
from pathlib import Path
from typing import Any

from callboard.core.errors import UserError

GAINS_EXAMPLES = """\
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
        epilog=GAINS_EXAMPLES,
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
