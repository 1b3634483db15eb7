"""The main workspace, shared by experiments that run in temporary copies of it."""

import os
from pathlib import Path

from callboard.core.errors import UserError
from callboard.core.reading import refuse_no_path

CHECKPOINTS = Path(".cache/checkpoints")
"""Folder of the main workspace for checkpoints and progress files of unfinished trainings."""


def main_workspace() -> Path:
    """Return the folder where DVC was started, also from a temporary copy; without DVC the current folder."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def enclosing_workspace() -> Path:
    """Return the nearest folder, from the current one upwards, that has a dvc.yaml.

    Raises:
        UserError: no such folder exists.
    """
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise UserError(f"no dvc.yaml in {Path.cwd()} or above; run callboard inside a workspace")


UNUSABLE_CHARACTERS = "?%"
"""Characters that MLflow's address of a database cannot have: what follows is an option, or is decoded."""


def refuse_unusable_name() -> None:
    """Refuse a main workspace beside which MLflow would put its database.

    Raises:
        UserError: its path has one of UNUSABLE_CHARACTERS.
    """
    folder = str(main_workspace())
    if found := [character for character in UNUSABLE_CHARACTERS if character in folder]:
        raise UserError(
            f"workspace {folder}: MLflow cannot have its database in a folder with {found[0]!r} in its path; "
            "rename the folder, or set MLFLOW_TRACKING_URI to the address of a server"
        )


def workspace_path(text: str) -> Path:
    """Resolve a path from params.yaml, relative to the main workspace wherever the experiment runs.

    Raises:
        UserError: it begins with ~ and a user that does not exist, or no file system takes it.
    """
    refuse_no_path(text, "params.yaml")
    try:
        return (main_workspace() / Path(text).expanduser()).resolve()
    except RuntimeError:
        raise UserError(f"{text}: no home folder is known for {Path(text).parts[0]}") from None
