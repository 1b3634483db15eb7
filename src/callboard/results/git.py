"""Questions to git about the workspace, and its refusals in words."""

import os
import shutil
import subprocess
from pathlib import Path

from ruamel.yaml import YAML

from callboard.core.errors import UserError
from callboard.results.result import flatten

FOREIGN = "dubious ownership"
"""Part of what git says of a repository that another user owns: it answers no question about it."""

REMEDIES = {
    "not a git repository": "run in the folder of the project, or `git init` there",
    "ambiguous argument 'HEAD'": "nothing is committed yet: git commit",
    FOREIGN: 'git config --global --add safe.directory "{folder}"',
}
"""By a part of what git says."""


class GitError(UserError):
    """A git command failed; git's own words are part of the message."""


def git(*arguments: str, folder: Path | None = None) -> str:
    """What a git command prints, run in `folder` or here.

    Raises:
        GitError: the command failed, or git is not installed.
    """
    done = _run(arguments, folder)
    if done.returncode:
        raise _error(done, arguments, folder)
    return done.stdout


def git_if_any(*arguments: str, folder: Path | None = None) -> str:
    """What a git command prints; empty where nothing is there: no such revision or file, or no repository.

    Raises:
        GitError: git refuses the repository because another user owns it, or is not installed.
    """
    done = _run(arguments, folder)
    if done.returncode and FOREIGN in done.stderr:
        raise _error(done, arguments, folder)
    return "" if done.returncode else done.stdout


def git_command(*arguments: str) -> list[str]:
    """The command line.

    Raises:
        GitError: git is not installed.
    """
    if not shutil.which("git"):
        raise GitError("git: not found on PATH; install it, results are kept in its commits")
    return ["git", *arguments]


def text_at(revision: str, name: str, folder: Path | None = None) -> str:
    """A file of `folder`, or of this one, as committed at `revision`; empty where there is none."""
    return git_if_any("show", f"{revision}:./{name}", folder=folder)


def params_at(revision: str) -> dict[str, str]:
    """Flat parameters as committed at `revision`; empty where there are none."""
    text = text_at(revision, "params.yaml")
    return flatten(YAML(typ="safe", pure=True).load(text)) if text else {}


def _run(arguments: tuple[str, ...], folder: Path | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        git_command(*arguments),
        cwd=folder,
        env=os.environ | {"LC_ALL": "C"},  # messages are looked into
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def _error(
    done: subprocess.CompletedProcess[str], arguments: tuple[str, ...], folder: Path | None
) -> GitError:
    """The line of git's that says why, and what to do where that is known."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    reason = next((line for line in lines if line.startswith(("fatal:", "error:"))), "".join(lines[-1:]))
    place = (folder or Path.cwd()).resolve()
    remedy = next((text.format(folder=place) for part, text in REMEDIES.items() if part in reason), "")
    said = reason or f"exit status {done.returncode}"
    return GitError(f"git {arguments[0]} in {place}: {said}{remedy and '; '}{remedy}")
