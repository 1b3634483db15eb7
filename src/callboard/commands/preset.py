"""`callboard preset`: params.yaml for different data."""

import argparse
from typing import Any

from callboard.commands.arguments import add_command


def add(commands: Any) -> None:
    """Add the command to the parser."""
    preset = add_command(
        commands,
        "preset",
        help="write the values of presets/NAME.yaml into params.yaml",
        examples={"callboard preset rfcx": "params.yaml for the competition's data; then `dvc repro`"},
    )
    preset.add_argument("name", metavar="NAME", help="a file in presets/ without .yaml, such as rfcx")
    preset.set_defaults(command=apply)


def apply(args: argparse.Namespace) -> None:
    """Write the preset's parameters, and print how many changed."""
    from callboard.core.console import counted
    from callboard.experiments.presets import apply_preset, preset_path

    path = preset_path(args.name)
    if changed := apply_preset(path):
        print(
            f"preset: {counted(len(changed), 'parameter')} of params.yaml changed to those of {path}; "
            "`git checkout params.yaml` undoes it"
        )
    else:
        print(f"preset: params.yaml already has all values of {path}")
