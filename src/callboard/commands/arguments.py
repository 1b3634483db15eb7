"""Defines a subcommand with its examples, and help texts of arguments that several subcommands take."""

import argparse
from collections.abc import Mapping
from textwrap import fill
from typing import Any

RESULT_NAME = "name of an experiment, branch, tag or run; or NAME@KEY; or a content key (4 digits are enough)"
"""Help on the name of a result; `results/lookup.py` has the rule."""

HEAD_RESULT = f"{RESULT_NAME}; default: the result of HEAD"

HELP_WIDTH = 90


def add_command(
    commands: Any, name: str, *, help: str, examples: Mapping[str, str], details: str = ""
) -> argparse.ArgumentParser:
    """Add a subcommand.

    Args:
        commands: A `cli.Group`, or the object that `add_subparsers` returned.
        name: Name of the subcommand.
        help: What it does, beginning with a lower-case verb and without a full stop: its line in the list of
            commands and, as a sentence, the head of its own help.
        examples: Command lines to a word on what each shows, printed below the arguments.
        details: Further sentences of its own help.
    """
    description = fill(f"{help[0].upper()}{help[1:]}. {details}", HELP_WIDTH, break_on_hyphens=False)
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=description,
        epilog=format_examples(examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def format_examples(examples: Mapping[str, str]) -> str:
    """Format command lines as the end of a help text, each with its meaning as a shell comment."""
    width = max(map(len, examples))
    return "\n".join(["examples:", *(f"  {line:<{width}}  # {shows}" for line, shows in examples.items())])
