"""A process that runs commands in a copy of the workspace for the command that started it.

It reads a `CopyJob` as one line of JSON from standard input and answers with a `JobResult` in one line. If
the input ends before that, because the command was killed, it kills them with all that they started and
removes the copy.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import yaml

from callboard.core.errors import UserError
from callboard.experiments.jobs.copies import workspace_copy
from callboard.experiments.jobs.dvc_commands import in_one_process
from callboard.experiments.jobs.full_disk import full_disk
from callboard.results.dvc_cache import cache_folder

SMALL_BYTES = 1_000_000
"""Size up to which an output travels with a job's result."""


class CopyJob(NamedTuple):
    """Commands in a copy of the workspace."""

    name: str
    """Name of the copy: experiment and stage."""
    workspace: str
    """The main workspace."""
    copies: str
    """Folder for the copy, as `copies_of_this_process` returns it."""
    commit: str
    """Commit that the copy is at."""
    params: str
    """Text of params.yaml."""
    lock: str
    """Text of dvc.lock; empty to leave the commit's."""
    commands: list[list[str]]
    """Arguments of `python -m`, one command after the other."""
    environment: dict[str, str]
    """Variables to set."""
    log: str
    """File for what the commands print; empty if they print where this process does, to be seen at once."""
    returned: str = ""
    """Stage whose small outputs are returned: DVC pushes none that it does not cache, such as curves."""
    needed: Mapping[str, str] = {}
    """Files that a machine without the workspace's folder gets from DVC's remote: md5 to the file's path in
    the workspace, or to an empty text if it has its place in the cache alone."""


class JobResult(NamedTuple):
    """Result of a job."""

    status: int
    """Exit status of the first command that failed, or 0."""
    lock: str
    """Text of dvc.lock afterwards."""
    printed: str
    """Output of the commands, if it went into a file."""
    seconds: float
    node: str
    """Name of the machine."""
    small: dict[str, str]
    """Contents of the small outputs of `CopyJob.returned`, by md5."""
    error: str = ""
    """Why no command could be run, or that one failed for lack of space."""


def answer() -> None:
    """Run the job, in a process that is no child of the one that waits: Ray kills its children at its end."""
    if hasattr(os, "fork") and (pid := os.fork()):
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    job = CopyJob(*json.loads(sys.stdin.readline()))
    print(json.dumps(run_job(job)), flush=True)


def run_job(job: CopyJob) -> JobResult:
    """Run the commands of a job in a copy of its own, until the first that fails."""
    start, node, full = time.monotonic(), platform.node(), ""
    workspace = Path(job.workspace)
    written = [workspace, cache_folder(workspace), Path(tempfile.gettempdir())]
    runner = _Runner(job)
    threading.Thread(target=runner.stop_with_input, daemon=True).start()
    try:
        with workspace_copy(workspace, job.commit, Path(job.copies), job.name) as root:
            (root / "params.yaml").write_text(job.params, encoding="utf-8")
            if job.lock:
                (root / "dvc.lock").write_text(job.lock, encoding="utf-8")
            status = runner.run(root)
            lock = root / "dvc.lock"
            text = lock.read_text(encoding="utf-8") if lock.exists() else ""
            small = _small_outputs(root, text, job.returned) if job.returned and not status else {}
            printed = Path(job.log).read_text(encoding="utf-8", errors="replace") if job.log else ""
            if status:  # before the copy is removed, which makes room
                full = full_disk(printed, written)
    except (UserError, OSError) as error:
        why = full_disk(str(error), written) or str(error)
        return JobResult(1, "", "", time.monotonic() - start, node, {}, why)
    return JobResult(status, text, printed, time.monotonic() - start, node, small, full)


def _small_outputs(root: Path, lock: str, stage: str) -> dict[str, str]:
    """Return the contents of a stage's outputs of less than `SMALL_BYTES` that are text, by md5."""
    found = {}
    for out in yaml.safe_load(lock)["stages"][stage]["outs"]:
        path = root / out["path"]
        if path.is_file() and path.stat().st_size < SMALL_BYTES:
            with suppress(UnicodeDecodeError):
                found[out["md5"]] = path.read_bytes().decode("utf-8")
    return found


class _Runner:
    """Runs commands until one fails or the input ends."""

    def __init__(self, job: CopyJob) -> None:
        self._job = job
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    def run(self, root: Path) -> int:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # stages run `python`
        environment |= self._job.environment | {"PATH": path}
        with Path(self._job.log).open("wb") if self._job.log else nullcontext() as log:
            for arguments in in_one_process(self._job.commands):
                command = [sys.executable, "-m", *arguments]
                self._process = subprocess.Popen(
                    command,
                    cwd=root,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log or sys.stderr,  # the answer goes to standard output
                    stderr=log,
                )
                if self._is_stopped:
                    kill_tree(self._process.pid)
                if status := self._process.wait():
                    return status
        return 0

    def stop_with_input(self) -> None:
        sys.stdin.read()
        self._is_stopped = True
        if self._process:
            kill_tree(self._process.pid)


def kill_tree(pid: int) -> None:
    """Kill a process and all that it started."""
    try:
        root = psutil.Process(pid)
        family = [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


if __name__ == "__main__":
    answer()
