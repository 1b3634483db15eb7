"""`callboard import`: the original author's scores in MLflow."""

import argparse
from typing import Any

from callboard.commands.arguments import add_command


def add(commands: Any) -> None:
    """Add the command to the parser."""
    import_ = add_command(
        commands,
        "import",
        help="copy the original author's scores from experiments.yaml into MLflow",
        details="Each row becomes a run; repeating the command updates the runs.",
        examples={"callboard import": "how many rows are new, renewed, removed or unchanged"},
    )
    import_.set_defaults(command=import_table)


def import_table(args: argparse.Namespace) -> None:
    """Write the original author's rows to MLflow and print how many were new or changed."""
    from callboard.experiments.author_scores import author_runs, import_runs
    from callboard.experiments.presets import preset_path, read_preset, with_values
    from callboard.experiments.table import read_experiments
    from callboard.params.defaults import read_full_tree

    preset = with_values(read_full_tree(), read_preset(preset_path("rfcx")))
    runs = author_runs(read_experiments(), preset)
    print(f"import: {len(runs)} rows of experiments.yaml, {import_runs(runs)}")
