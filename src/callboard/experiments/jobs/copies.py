"""Copies of the workspace, each with its own lock of DVC, but all with one cache."""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from callboard.core.errors import UserError
from callboard.results.dvc_cache import cache_folder, dvc_config
from callboard.results.git import git, git_if_any

COPIES = Path(".dvc/tmp/copies")
"""Folder of the copies in the main workspace: on the file system of its cache, and ignored by git and DVC."""


class Snapshot(NamedTuple):
    """The workspace as a command found it."""

    workspace: Path
    """The main workspace."""
    commit: str
    """Commit with changes that are not committed."""
    copies: Path
    """Folder for copies, which is removed at the command's end."""


def snapshot(workspace: Path) -> str:
    """Return a commit of the workspace as it is, with changes that are not committed; nothing is changed.

    Files that git does not track are left out, as by `dvc exp run --temp`.

    Raises:
        UserError: a conflict of a merge is not resolved.
    """
    if unmerged := git("diff", "--name-only", "--diff-filter=U", folder=workspace).split("\n")[0]:
        raise UserError(
            f"{unmerged}: a conflict of a git merge is not resolved; resolve it, or `git merge --abort`"
        )
    git_if_any("update-index", "-q", "--refresh", folder=workspace)  # stash fails where only times differ
    return (
        git("stash", "create", folder=workspace).strip() or git("rev-parse", "HEAD", folder=workspace).strip()
    )


def copies_of_this_process(workspace: Path) -> Path:
    """Return the folder of the copies that this process needs, here or on machines that share the folder."""
    return workspace / COPIES / f"{platform.node()}.{os.getpid()}"


def repository(workspace: Path) -> tuple[Path, Path]:
    """Return the top folder of the workspace's git repository, and the workspace's path in it."""
    top = Path(git("rev-parse", "--show-toplevel", folder=workspace).strip())
    return top, workspace.resolve().relative_to(top.resolve())


@contextmanager
def workspace_copy(workspace: Path, commit: str, copies: Path, name: str) -> Iterator[Path]:
    """Yield the root of a temporary copy of the workspace at a commit, with the workspace's DVC cache.

    Args:
        workspace: The main workspace, which can be a folder inside a git repository.
        commit: Commit to check out; it need not be on a branch.
        copies: What `copies_of_this_process` returned in the process that needs the copy.
        name: Part of the folder's name.
    """
    top, subfolder = repository(workspace)
    copies.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=copies))
    try:
        git("clone", "--quiet", "--shared", "--no-checkout", str(top), str(folder), folder=workspace)
        git("checkout", "--quiet", "--detach", commit, folder=folder)
        root = folder / subfolder
        _share_cache(workspace, root)
        yield root
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _share_cache(workspace: Path, root: Path) -> None:
    """Give a copy the workspace's own settings of DVC, its cache, and a place for DVC's notes on files."""
    if not (root / ".dvc").is_dir():
        raise UserError(f"{workspace}: git does not track .dvc/config; `git add .dvc` and commit")
    local = dvc_config(workspace, ["config.local"])
    own = {
        "cache": {"dir": str(cache_folder(workspace).resolve())},
        "core": {"site_cache_dir": str((root / ".dvc/tmp/site").resolve())},
    }
    for section, values in own.items():
        if not local.has_section(section):
            local.add_section(section)
        for key, value in values.items():
            local.set(section, key, value)
    with (root / ".dvc/config.local").open("w", encoding="utf-8") as file:
        local.write(file)


def left_over(parent: Path) -> list[Path]:
    """Return folders, named as by `copies_of_this_process`, of processes of this machine that have ended."""
    named = [(folder, folder.suffix[1:]) for folder in parent.glob("*.*") if folder.stem == platform.node()]
    return [folder for folder, pid in named if pid.isdigit() and not psutil.pid_exists(int(pid))]


def remove_left_over(workspace: Path) -> None:
    """Remove copies for processes of this machine that have ended without removing them."""
    for folder in left_over(workspace / COPIES):
        shutil.rmtree(folder, ignore_errors=True)
