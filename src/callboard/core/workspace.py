"""The main workspace, shared by experiments that run in temporary copies of it."""

import os
from pathlib import Path

CHECKPOINTS = Path(".cache/checkpoints")
"""Folder of the main workspace for checkpoints and progress files of unfinished trainings."""


def main_workspace() -> Path:
    """Return the folder where DVC was started, also from a temporary copy; without DVC the current folder."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def workspace_path(text: str) -> Path:
    """Resolve a path from params.yaml, relative to the main workspace wherever the experiment runs."""
    return (main_workspace() / text).resolve()
