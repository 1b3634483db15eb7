"""Copies of the workspace, each with its own lock of DVC, but all with one cache."""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

from callboard.core.errors import UserError
from callboard.results.dvc_cache import cache_folder, dvc_config
from callboard.results.git import git, text_at
from callboard.results.git_errors import GitError

COPIES = Path(".dvc/tmp/copies")
"""Folder of the copies in the main workspace: on the file system of its cache, and ignored by git and DVC."""


class Snapshot(NamedTuple):
    """The workspace as a command found it."""

    workspace: Path
    """The main workspace."""
    head: str
    """Commit that is checked out."""
    commit: str
    """The same, or a commit on it with changes that are not committed."""
    copies: Path
    """Folder for copies, which is removed at the command's end."""

    @property
    def params(self) -> str:
        """Text of params.yaml; empty if git does not track it."""
        return text_at(self.commit, "params.yaml", self.workspace)


@contextmanager
def snapshot(workspace: Path) -> Iterator[Snapshot]:
    """Yield the workspace as it is, with changes that are not committed, and a folder for its copies.

    Files that git does not track are left out, as by `dvc exp run --temp`. Nothing of the user's is
    written, not even git's index, so that a kill at any moment leaves it as it was. Copies of processes that
    ended without removing them are removed.

    Raises:
        UserError: a conflict of a merge is not resolved.
    """
    remove_left_over(workspace)
    copies = copies_of_this_process(workspace)
    copies.mkdir(parents=True, exist_ok=True)
    try:
        if unmerged := git("ls-files", "--unmerged", "-z", folder=workspace):
            name = unmerged.split("\0")[0].partition("\t")[2]
            raise UserError(
                f"{name}: a conflict of a git merge is not resolved; resolve it, or `git merge --abort`"
            )
        head = git("rev-parse", "HEAD", folder=workspace).strip()
        commit = committed(workspace, head, "callboard: workspace", copies)
        trees = git("rev-parse", f"{head}^{{tree}}", f"{commit}^{{tree}}", folder=workspace).split()
        yield Snapshot(workspace, head, head if trees[0] == trees[1] else commit, copies)
    finally:
        shutil.rmtree(copies, ignore_errors=True)


def committed(workspace: Path, parent: str, message: str, copies: Path, also: Sequence[str] = ()) -> str:
    """Return a new commit, on no branch, of the files that git tracks as they are now.

    Git's own index is neither written nor locked.

    Args:
        workspace: A workspace, or a copy of one.
        parent: Its parent commit.
        message: Its message.
        copies: Folder for a temporary index.
        also: Paths of further files and folders, below the workspace.
    """
    with tempfile.TemporaryDirectory(dir=copies) as folder:
        own, index = git_path("index", workspace), Path(folder, "index")
        if own.exists():
            shutil.copy(own, index)
            os.utime(index, (1, 1))  # older than any file: git compares contents, not sizes and times alone
        with_index = partial(git, folder=workspace, GIT_INDEX_FILE=str(index))
        with_index("add", "--update")
        if also:
            with_index("add", "--force", "--", *also)
        tree = with_index("write-tree").strip()
    return git(
        *_author(workspace), "commit-tree", tree, "-p", parent, "-m", message, folder=workspace
    ).strip()


def _author(workspace: Path) -> tuple[str, ...]:
    """Return the options that name an author if git does not know the user."""
    try:
        git("var", "GIT_AUTHOR_IDENT", folder=workspace)
    except GitError:
        return ("-c", "user.name=callboard", "-c", "user.email=callboard@localhost")
    return ()


def git_path(name: str, workspace: Path) -> Path:
    """Return the path of one of git's own files."""
    return workspace / git("rev-parse", "--git-path", name, folder=workspace).strip()


def copies_of_this_process(workspace: Path) -> Path:
    """Return the folder of the copies that this process needs, here or on machines that share the folder."""
    return workspace / COPIES / this_process()


def this_process() -> str:
    """Return the name of a folder of this process, by which `left_over` knows when it has ended."""
    return f"{platform.node()}.{os.getpid()}"


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
    """Return folders, named as by `this_process`, of processes of this machine that have ended."""
    named = [(folder, folder.suffix[1:]) for folder in parent.glob("*.*") if folder.stem == platform.node()]
    return [folder for folder, pid in named if pid.isdigit() and not psutil.pid_exists(int(pid))]


def remove_left_over(workspace: Path) -> None:
    """Remove copies for processes of this machine that have ended without removing them."""
    for folder in left_over(workspace / COPIES):
        shutil.rmtree(folder, ignore_errors=True)
