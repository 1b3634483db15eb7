"""What git knows about the workspace."""

import subprocess

from ruamel.yaml import YAML

from callboard.results import flatten


def git(*arguments: str) -> str:
    """What a git command prints; empty where it fails, as outside a repository."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def params_at(revision: str) -> dict[str, str]:
    """Flat parameters as committed at `revision`; empty where there are none."""
    text = git("show", f"{revision}:./params.yaml")
    return flatten(YAML(typ="safe", pure=True).load(text)) if text else {}
