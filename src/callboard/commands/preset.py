"""`callboard preset`: params.yaml for other data."""

import argparse
from typing import Any


def add(commands: Any) -> None:
    """Add the command to the parser."""
    preset = commands.add_parser("preset", help="write presets/NAME.yaml into params.yaml, as rfcx")
    preset.add_argument("name", metavar="NAME", help="of a file in presets/, without .yaml")
    preset.set_defaults(command=apply)


def apply(args: argparse.Namespace) -> None:
    """Change the parameters that the preset names, or say that they are so already."""
    from callboard.core.console import counted
    from callboard.experiments.presets import apply_preset, preset_path

    path = preset_path(args.name)
    if changed := apply_preset(path):
        print(
            f"preset: {counted(len(changed), 'parameter')} of params.yaml changed as {path} says; "
            "`git checkout params.yaml` undoes it"
        )
    else:
        print(f"preset: params.yaml is as {path} says already")
