"""Refuse unknown, mistyped or contradictory parameters before anything runs."""

import argparse
import os
from pathlib import Path

from callboard.core.console import run_guarded, summarize
from callboard.core.files import written_whole
from callboard.core.workspace import refuse_unusable_name
from callboard.params.experiment import load_experiment

VERDICT = "no parameter is unknown, mistyped or contradictory\n"
"""Constant content of the output, so that stages that depend on it do not rerun after a valid edit."""


def main(argv: list[str] | None = None) -> None:
    """Check all of params.yaml, including keys that no other stage reads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("params", type=Path)
    parser.add_argument("verdict", type=Path)
    args = parser.parse_args(argv)

    experiment = load_experiment(args.params)
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        refuse_unusable_name()  # rather than after all trainings

    with written_whole(args.verdict) as unfinished:
        unfinished.write_text(VERDICT, encoding="utf-8")
    summarize("check", f"{len(type(experiment).model_fields)} sections of {args.params} are valid")


if __name__ == "__main__":
    run_guarded(main)
