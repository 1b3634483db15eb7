"""`callboard adversarial`: can train be told from test?"""

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the command to the parser."""
    adversarial = commands.add_parser(
        "adversarial", help="can a classifier tell train from test recordings, and by which bands?"
    )
    adversarial.add_argument("--folds", type=int, default=5, help="default %(default)s")
    adversarial.add_argument("--repeats", type=int, default=3, help="of the folds; default %(default)s")
    adversarial.add_argument("--seed", type=int, default=0, help="default %(default)s")
    adversarial.add_argument(
        "--decibels", action="store_true", help="judge absolute levels, which the network does not see"
    )
    adversarial.add_argument(
        "--output", type=Path, default=Path("adversarial"), metavar="FOLDER", help="default %(default)s"
    )
    adversarial.set_defaults(command=tell_sets_apart)


def tell_sets_apart(args: argparse.Namespace) -> None:
    """Tell the recordings of data/mel/train from those of data/mel/test."""
    from callboard.analysis.adversarial.validation import Settings
    from callboard.reports.adversarial import write_adversarial_report

    settings = Settings(args.folds, args.repeats, args.seed, in_decibels=args.decibels)
    write_adversarial_report(Path("data/mel"), args.output, settings)
