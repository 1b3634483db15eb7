"""What git knows about the workspace."""

import subprocess
from pathlib import Path

from ruamel.yaml import YAML

from callboard.results.result import flatten


def git(*arguments: str, folder: Path | None = None) -> str:
    """What a git command prints, run in `folder` or here; empty where it fails, as outside a repository."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def text_at(revision: str, name: str, folder: Path | None = None) -> str:
    """A file of `folder`, or of this one, as committed at `revision`; empty where there is none."""
    return git("show", f"{revision}:./{name}", folder=folder)


def params_at(revision: str) -> dict[str, str]:
    """Flat parameters as params.yaml lists them at `revision`; empty where there are none."""
    text = text_at(revision, "params.yaml")
    return flatten(YAML(typ="safe", pure=True).load(text)) if text else {}
