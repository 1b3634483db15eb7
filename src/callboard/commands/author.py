"""`callboard import`: the author's scores into MLflow."""

import argparse
from typing import Any


def add(commands: Any) -> None:
    """Add the command to the parser."""
    import_ = commands.add_parser("import", help="the author's scores of experiments.yaml into MLflow")
    import_.set_defaults(command=import_table)


def import_table(args: argparse.Namespace) -> None:
    """Put the author's rows into MLflow."""
    from callboard.experiments.author_scores import author_runs, import_runs
    from callboard.experiments.presets import preset_path, read_preset, with_values
    from callboard.experiments.table import read_experiments
    from callboard.params.defaults import read_full_tree

    preset = with_values(read_full_tree(), read_preset(preset_path("rfcx")))
    runs = author_runs(read_experiments(), preset)
    print(f"import: {len(runs)} rows of experiments.yaml, {import_runs(runs)}")
