"""`callboard diff`: what changed from one result to another, and whether that is better."""

import argparse
from pathlib import Path
from typing import Any

from callboard.commands.arguments import RESULT_NAME, add_command
from callboard.core.errors import UserError


def add(commands: Any) -> None:
    """Add the command to the parser."""
    diff = add_command(
        commands,
        "diff",
        help="compare two results: parameters, scores, species, verdict",
        examples={
            "callboard diff exp0051 exp0058": "what exp0058 changed, and for which species that helped",
            "callboard diff exp0051 exp0058 --output diff.html": "the same as a page, with learning curves",
        },
    )
    diff.add_argument("a", metavar="A", help=f"result before the change: {RESULT_NAME}")
    diff.add_argument("b", metavar="B", help="result after the change, named likewise")
    diff.add_argument("--all", action="store_true", help="list all species; default: those that changed most")
    diff.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write to this .md or .html file, relative to the workspace; default: print Markdown",
    )
    diff.set_defaults(command=show)


def show(args: argparse.Namespace) -> None:
    """Print the change, or write it; a name that several results have means the newest."""
    from callboard.analysis.pair import compare
    from callboard.core.files import written_whole
    from callboard.reports.diff import pair_markdown
    from callboard.results.lookup import held_result

    suffix = args.output.suffix.lower() if args.output else ""
    if args.output and suffix not in (".md", ".html"):
        raise UserError(f"--output {args.output}: must end in .md or .html")
    pair = compare(args.a, args.b)
    if args.output is None:
        print(pair_markdown(pair, args.all), end="")
        return
    if suffix == ".html":
        from callboard.reports.diff import pair_html

        text = pair_html(pair, (held_result(pair.a.ref), held_result(pair.b.ref)))
    else:
        text = pair_markdown(pair, args.all)
    with written_whole(args.output) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    print(f"diff: {pair.a.name} to {pair.b.name} in {args.output}")
