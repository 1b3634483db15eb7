"""`callboard adversarial`: whether the test set differs from the training set, and where."""

import argparse
from pathlib import Path
from typing import Any

from callboard.commands.arguments import LARGEST_SEED, add_command, whole_number


def add(commands: Any) -> None:
    """Add the command to the parser."""
    adversarial = add_command(
        commands,
        "adversarial",
        help="check whether a classifier can tell test from training recordings, and by which bands",
        details="Reads the log-mel frames in data/mel, which `dvc repro crop` writes.",
        examples={
            "callboard adversarial": "AUC with its spread, and the bands that differ most",
            "callboard adversarial --repeats 10 --output sets": "a steadier AUC, into the folder sets",
        },
    )
    adversarial.add_argument(
        "--folds",
        type=whole_number(2),
        default=5,
        metavar="N",
        help="cross-validation folds; default %(default)s",
    )
    adversarial.add_argument(
        "--repeats",
        type=whole_number(1),
        default=3,
        metavar="N",
        help="cross-validations, each with new folds; default %(default)s",
    )
    adversarial.add_argument(
        "--seed",
        type=whole_number(0, LARGEST_SEED),
        default=0,
        metavar="N",
        help="seed of the folds; default %(default)s",
    )
    adversarial.add_argument(
        "--decibels",
        action="store_true",
        help="judge absolute levels, which the network does not see; default: what the network sees",
    )
    adversarial.add_argument(
        "--output",
        type=Path,
        default=Path("adversarial"),
        metavar="FOLDER",
        help="where tables and picture go, relative to the workspace; default %(default)s",
    )
    adversarial.set_defaults(command=tell_sets_apart)


def tell_sets_apart(args: argparse.Namespace) -> None:
    """Compare the recordings of data/mel/train with those of data/mel/test."""
    from callboard.analysis.adversarial.validation import Settings
    from callboard.reports.adversarial import write_adversarial_report

    settings = Settings(args.folds, args.repeats, args.seed, in_decibels=args.decibels)
    write_adversarial_report(Path("data/mel"), args.output, settings)
