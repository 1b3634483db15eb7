"""The workspace for a machine without its folder: git's objects in a bundle, data through DVC's remote.

There it becomes a workspace of that machine, of which jobs make copies as they do of the shared one. Its
cache and checkpoints stay for later jobs.
"""

import getpass
import hashlib
import io
import platform
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from callboard.core.errors import UserError, one_line
from callboard.core.files import locked, written_whole
from callboard.experiments.jobs.copies import Snapshot, copies_of_this_process, remove_left_over, repository
from callboard.experiments.jobs.full_disk import full_disk
from callboard.experiments.jobs.remote import default_remote, pull_files, why_without
from callboard.experiments.jobs.schedule import TaskError
from callboard.experiments.jobs.worker import CopyJob
from callboard.results.dvc_cache import dvc_config, object_path
from callboard.results.git import git

REF = "refs/callboard/carried"
"""Git's name for the snapshot in the bundle, since a bundle has no commits without names."""


class Carried(NamedTuple):
    """Everything of a workspace that git and DVC's remote need elsewhere."""

    name: str
    """Name of the folder elsewhere."""
    bundle: bytes
    """All commits, with their branches and experiments."""
    subfolder: str
    """Path of the workspace in its repository."""
    settings: str
    """The user's own settings of DVC, which may have the remote's address and keys."""


def carry(snapshot: Snapshot) -> Carried:
    """Pack a workspace; what is not committed is in the snapshot, and nothing need be pushed.

    Raises:
        UserError: DVC has no default remote.
    """
    workspace = snapshot.workspace
    if not default_remote(workspace):
        raise UserError(
            f"nodes do not have {workspace}: share the folder, or give DVC a remote, `dvc remote add -d NAME "
            "URL`, through which data and results travel"
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "bundle")
        git("update-ref", REF, snapshot.commit, folder=workspace)
        try:
            git("bundle", "create", "--quiet", str(file), "--all", folder=workspace)
        finally:
            git("update-ref", "-d", REF, folder=workspace)
        bundle = file.read_bytes()
    settings = dvc_config(workspace, ["config.local"])
    settings.remove_section("cache")  # a path of this machine
    text = io.StringIO()
    settings.write(text)
    origin = hashlib.sha256(f"{platform.node()}:{workspace}".encode()).hexdigest()[:12]
    subfolder = repository(workspace)[1].as_posix()
    return Carried(f"{workspace.name}-{origin}", bundle, subfolder, text.getvalue())


def unpack(carried: Carried, commit: str) -> Path:
    """Return the workspace of this machine at a commit; it is made or brought up to date."""
    top = Path(tempfile.gettempdir(), f"callboard-{getpass.getuser()}", carried.name)
    workspace = top / carried.subfolder
    with locked(top.with_suffix(".lock"), UserError), tempfile.NamedTemporaryFile() as file:
        if not (top / ".git").is_dir():
            git("init", "--quiet", str(top), folder=top.parent)
        file.write(carried.bundle)
        file.flush()
        git("fetch", "--quiet", "--update-head-ok", file.name, "+refs/*:refs/*", folder=top)
        git("checkout", "--quiet", "--force", "--detach", commit, folder=top)
        (workspace / ".dvc/config.local").write_text(carried.settings, encoding="utf-8")
        remove_left_over(workspace)
    return workspace


def unpacked(job: CopyJob, carried: Carried) -> CopyJob:
    """Return the job for a workspace of this machine, which has the files that the job needs.

    Raises:
        TaskError: DVC's remote does not give them, or something cannot be written; the message names this
            machine.
    """
    try:
        return _unpacked(job, carried)
    except (UserError, OSError) as error:
        raise TaskError(f"{job.name} on {platform.node()}: {_why(error)}") from error


def _why(error: Exception) -> str:
    """Return why this machine cannot work for a workspace that it lacks."""
    return full_disk(str(error), [Path(tempfile.gettempdir())]) or one_line(error)


def _unpacked(job: CopyJob, carried: Carried) -> CopyJob:
    workspace = unpack(carried, job.commit)
    log = workspace / Path(job.log).relative_to(job.workspace)
    log.parent.mkdir(parents=True, exist_ok=True)
    pull_files(job.needed, workspace)
    for md5, name in job.needed.items():
        if name:
            with written_whole(workspace / name, writer=job.name) as unfinished:
                shutil.copyfile(object_path(md5, workspace), unfinished)
    return job._replace(
        workspace=str(workspace),
        copies=str(copies_of_this_process(workspace)),
        environment=job.environment | {"DVC_ROOT": str(workspace)},
        log=str(log),
    )


def why_not_here(carried: Carried, commit: str, mark: str) -> str:
    """Return why this machine cannot work for a workspace that it lacks; empty if it can.

    Args:
        carried: The workspace.
        commit: The commit of the snapshot.
        mark: A file of `marked_remote`.
    """
    try:
        return why_without(mark, unpack(carried, commit))
    except (UserError, OSError) as error:
        return _why(error)
