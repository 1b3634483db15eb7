"""The `callboard` command: everything around an experiment that `dvc` does not do."""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from types import ModuleType
from typing import Any

from callboard.commands import (
    adversarial,
    audit,
    author,
    board,
    detections,
    diff,
    doctor,
    export,
    gains,
    init,
    labels,
    lb,
    noise,
    predict,
    preset,
    report,
    repro,
    review,
    run,
    show,
    suspects,
    sync,
    thresholds,
    trust,
    ui,
    watch,
)
from callboard.commands.arguments import format_examples
from callboard.core.console import run_guarded as run_guarded
from callboard.core.console import say
from callboard.core.errors import UnknownResultError, UserError
from callboard.core.workspace import enclosing_workspace

INTERRUPTED = 128 + 2
"""Exit status that shells give to a program that Ctrl-C ends."""

DESCRIPTION = """\
Run experiments with a detector of species calls, and judge their results.

`dvc repro` runs the pipeline as far as something changed, `callboard run` rows of
experiments.yaml, and `dvc exp run` any override of params.yaml; each result
becomes one row of `callboard board`.
"""

EXAMPLES = {
    "dvc repro": "the result of params.yaml",
    "callboard run exp0058": "a row of experiments.yaml as an experiment",
    "dvc exp run -n mine -S loss.neg_mask=seq": "an experiment of your own",
    "dvc exp run --queue -S seed=1 && dvc queue start": "the same for later, in the background",
    "callboard board": "all results, and which are better",
}

GROUPS: dict[str, Sequence[ModuleType]] = {
    "run": (init, run, repro, preset, watch),
    "look at results": (board, show, diff, report, ui),
    "use a result": (predict, thresholds, detections, export),
    "labels": (labels, suspects, review),
    "leaderboard scores": (lb,),
    "decide what to trust": (gains, noise, trust, adversarial, audit),
    "keep git, DVC and MLflow in step": (sync, doctor, author),
}
"""Modules of the subcommands by heading, in the order of --help. They import other rooms only when run."""


class Group:
    """Subcommands listed under a heading, which argparse does not support."""

    def __init__(self, commands: Any, title: str) -> None:
        """Start an empty group.

        Args:
            commands: Object that `add_subparsers` returned.
            title: Heading.
        """
        self._commands = commands
        self._lines = [f"{title}:"]

    def add_parser(self, name: str, *, help: str, **settings: Any) -> argparse.ArgumentParser:
        """Add a subcommand as argparse does, but list it in this group."""
        self._lines.append(f"  {name:<13}{help}")
        parser: argparse.ArgumentParser = self._commands.add_parser(name, **settings)
        return parser

    def __str__(self) -> str:
        return "\n".join(self._lines)


def main() -> None:
    """Run the command; a user's mistake becomes one message and exit status 1, Ctrl-C one word and 130."""
    try:
        run_guarded(lambda: dispatch(sys.argv[1:]))
    except KeyboardInterrupt:
        say("interrupted", sys.stderr)
        sys.exit(INTERRUPTED)


def dispatch(argv: list[str]) -> None:
    """Parse the arguments and run the subcommand from the root of the workspace."""
    args = build_parser().parse_args(argv)
    with suppress(UserError) if "runs_anywhere" in args else nullcontext():
        os.chdir(enclosing_workspace())
    try:
        args.command(args)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("", "callboard"):
            raise
        raise UserError(
            f"callboard {argv[0]} needs the package {error.name}: pip install -e '.[train]' in the clone"
        ) from error
    except UnknownResultError as error:
        from callboard.experiments.table import refuse_row_without_result

        refuse_row_without_result(error.name)
        raise


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of `callboard` with all subcommands."""
    parser = argparse.ArgumentParser(
        "callboard", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", help="one of those below")
    groups = []
    for title, modules in GROUPS.items():
        groups.append(Group(commands, title))
        for module in modules:
            module.add(groups[-1])
    closing = "`callboard COMMAND --help` explains the arguments of a command, with examples."
    parser.epilog = "\n\n".join([*map(str, groups), format_examples(EXAMPLES), closing])
    return parser
