"""Defines a subcommand with its examples, and help texts of arguments that several subcommands take."""

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callboard.experiments.jobs.options import JobOptions

RESULT_NAME = "name of an experiment, branch, tag or run; or NAME@KEY; or a content key (4 digits are enough)"
"""Help on the name of a result; `results/lookup.py` has the rule."""

HEAD_RESULT = f"{RESULT_NAME}; default: the result of HEAD, or else of the workspace"

LARGEST_SEED = 2**32 - 1
"""The largest seed that numpy accepts."""

MAX_SEEDS = 100
"""Limit against typing errors: this many give the spread to 7 %, and more would train for weeks."""

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


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return the `type` of an argument: a whole number from `least` to `most`, both allowed."""
    limits = f"from {least} to {most}" if most is not None else f"of at least {least}"

    def parse(text: str) -> int:
        number = int(text) if text.removeprefix("-").isdecimal() else None
        if number is None or number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number {limits}")
        return number

    return parse


def fraction(*, with_ends: bool) -> Callable[[str], float]:
    """Return the `type` of an argument: a number from 0 to 1, or between them."""
    limits = "from 0 to 1" if with_ends else "between 0 and 1"

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not (0 < number < 1 or (with_ends and number in (0, 1))):
            raise argparse.ArgumentTypeError(f"{text!r} must be a number {limits}")
        return number

    return parse


def add_run_options(parser: argparse.ArgumentParser, *, runs: str, overridden: str) -> None:
    """Add -S, --jobs, --queue and --dry, which all commands that run experiments take.

    Args:
        parser: Parser of the subcommand.
        runs: What is run, in the plural.
        overridden: Where an override applies.
    """
    parser.add_argument(
        "-S",
        dest="extra",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"override a parameter in {overridden}; repeatable",
    )
    parser.add_argument(
        "--queue", action="store_true", help=f"queue the {runs} for `dvc queue start`; default: run them now"
    )
    add_jobs_options(parser)
    parser.add_argument("--dry", "--dry-run", action="store_true", help="only print what would be run")


def add_jobs_options(parser: argparse.ArgumentParser) -> None:
    """Add --jobs, and where they run."""
    add_place_options(
        parser,
        jobs="folds (or other stages of a matrix) trained",
        n_jobs="the number of processors divided by --cpus-per-job; on this machine 1 with a GPU",
        n_cpus="train.threads",
    )
    parser.add_argument(
        "--dashboard",
        action="store_true",
        help="with --on ray, start Ray's dashboard too and print its address; needs ray[default]",
    )
    parser.add_argument(
        "--shards",
        type=whole_number(1),
        metavar="N",
        help="number of jobs that share the stage crop, and predict, where all machines have the workspace's "
        "folder; default: all that a Ray cluster runs at a time if they have more processors than this "
        "machine, else 1",
    )


def add_place_options(parser: argparse.ArgumentParser, *, jobs: str, n_jobs: str, n_cpus: str) -> None:
    """Add --jobs, --on and what jobs occupy.

    Args:
        parser: The parser.
        jobs: Jobs in the plural and what is done with them, for the help.
        n_jobs: Default of --jobs, in words.
        n_cpus: Default of --cpus-per-job, in words.
    """
    parser.add_argument(
        "--jobs",
        type=whole_number(1),
        metavar="N",
        help=f"number of {jobs} side by side; default: {n_jobs}",
    )
    parser.add_argument(
        "--on",
        type=_place,
        default="local",
        metavar="WHERE",
        help=f"where they are {jobs.split()[-1]}: local (this machine), ray (a Ray of this machine, for its "
        "time), ray:ADDRESS (a cluster started by `ray start`), or slurm; default %(default)s",
    )
    parser.add_argument(
        "--cpus-per-job",
        type=whole_number(1),
        metavar="N",
        help=f"processors that each of them occupies, with --on; default: {n_cpus}",
    )
    parser.add_argument(
        "--gpus-per-job",
        type=_gpus,
        metavar="N",
        help="GPUs that each of them occupies, with --on, such as 0.25 for four on a GPU (Ray only); "
        "default: 1 if Ray has any, none of Slurm",
    )
    parser.add_argument(
        "--slurm",
        type=_sbatch_options,
        default={},
        metavar="KEY=VALUE,…",
        help="options of `sbatch`, such as partition=long,time=04:00:00,mem=8G, with --on slurm",
    )


def absolute_path(text: str) -> Path:
    """Parse a path, as absolute, since commands run at the root of the workspace."""
    return Path(text).absolute()


def _place(text: str) -> str:
    if text not in ("local", "ray", "slurm") and not re.fullmatch("ray:.+", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be local, ray, ray:ADDRESS or slurm")
    return text


def _sbatch_options(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    if wrong := [key for key, _, value in pairs if not key or not value]:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} of {text!r} must be KEY=VALUE")
    return {key: value for key, _, value in pairs}


def _gpus(text: str) -> float:
    """Parse a number of GPUs, which above 1 must be whole."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not (0 <= number <= 1 or (number > 1 and number.is_integer())):
        raise argparse.ArgumentTypeError(f"{text!r} must be from 0 to 1, or a whole number")
    return number


def job_options(args: argparse.Namespace) -> "JobOptions":
    """Return the options of `add_jobs_options`."""
    from callboard.experiments.jobs.options import JobOptions

    return JobOptions(**place_options(args), has_dashboard=args.dashboard, shards=args.shards)


def place_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `add_place_options`, as arguments of JobOptions."""
    return {
        "place": args.on,
        "n_jobs": args.jobs,
        "cpus": args.cpus_per_job,
        "gpus": args.gpus_per_job,
        "slurm": args.slurm,
    }
