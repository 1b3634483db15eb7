"""Checks for what killed commands of git, DVC and this project leave: locks, stashes, copies, a queue."""

import json
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from callboard.analysis.doctor.findings import Finding, State
from callboard.core.console import counted, first_few
from callboard.experiments.jobs.copies import COPIES, left_over
from callboard.results.dvc_cache import dvc_config
from callboard.results.git import git, git_if_any
from callboard.results.git_errors import git_and_dvc_in

RWLOCKS = (".dvc/tmp/rwlock", ".dvc/tmp/exps/rwlock")
"""Files in which DVC's commands note what they read and write."""


def git_locks(state: State) -> Iterator[Finding]:
    """Find locks of git that no running process can hold: every later commit fails on them."""
    places = git("rev-parse", "--git-dir", "--git-common-dir", folder=state.folder).splitlines()
    folders = {(state.folder / place).resolve() for place in places}
    patterns = ("*.lock", "refs/**/*.lock")
    if found := sorted(path for folder in folders for one in patterns for path in folder.glob(one)):
        if git_and_dvc_in(state.folder):
            return
        names = first_few(list(map(str, found)))
        what = f"{counted(len(found), 'lock')} of git that a killed process left, so commits fail: {names}"
        yield Finding(what, f"`rm {_quoted(found)}`")


def dvc_locks(state: State) -> Iterator[Finding]:
    """Find locks of DVC that no running process holds and that DVC does not remove by itself."""
    for name in RWLOCKS:
        path = state.folder / name
        holders = _holders(path)
        if holders is None:
            yield Finding(f"{name} is not whole, so every DVC command fails", f"`rm {name}`")
        elif strangers := [pid for pid, _ in holders if psutil.pid_exists(pid) and not _is_holder(pid, path)]:
            numbers = first_few(list(map(str, strangers)))
            what = f"{name} is held by killed DVC commands whose process numbers others have now: {numbers}"
            yield Finding(what, f"`rm {name}`")
    lock = state.folder / ".dvc/tmp/lock"
    is_a_link = dvc_config(state.folder).get("core", "hardlink_lock", fallback="").strip().lower() == "true"
    if is_a_link and lock.exists() and not git_and_dvc_in(state.folder):
        yield Finding(
            ".dvc/tmp/lock of a DVC command that was killed, so every DVC command fails", "`rm .dvc/tmp/lock`"
        )


def running_dvc(state: State) -> Iterator[Finding]:
    """Find DVC commands that now hold locks in this workspace."""
    holders: dict[int, str] = {}
    for name in RWLOCKS:
        path = state.folder / name
        holders |= {pid: command for pid, command in _holders(path) or () if _is_holder(pid, path)}
    if holders:
        who = first_few([f"{command} (process {pid})" for pid, command in sorted(holders.items())])
        what = f"{counted(len(holders), 'DVC command')} running in this workspace: {who}"
        yield Finding(
            what, "wait for it, or use `dvc exp run --temp` or the queue; two in one workspace break both"
        )


def stashes(state: State) -> Iterator[Finding]:
    """Find changes of the work tree in git's stash, where a killed `dvc exp run` leaves those of the user."""
    entries = git_if_any("stash", "list", "--format=%gd %gs", folder=state.folder).splitlines()
    if not entries:
        return
    stashed = git("stash", "show", "--name-only", "stash@{0}", folder=state.folder).splitlines()
    changed = set(git("diff", "--name-only", "HEAD", folder=state.folder).splitlines())
    both = [name for name in stashed if name in changed]
    dropping = f"git checkout HEAD -- {_quoted([f':/{name}' for name in both])} && " if both else ""
    losing = f" (forgets what {first_few(both)} has now)" if both else ""
    what = f"git's stash has {counted(len(entries), 'set')} of changes that are on no branch: "
    yield Finding(
        what + first_few(entries),
        f"`{dropping}git stash pop` brings the last one back{losing}, or `git stash drop` forgets it",
    )


def experiments_cut_short(state: State) -> Iterator[Finding]:
    """Find refs that DVC has only while an experiment runs; left, they change what the next one runs."""
    places = ("refs/exps/stash", "refs/exps/exec", "refs/exps/temp")
    found = git_if_any("for-each-ref", "--format=%(refname)", *places, folder=state.folder).split()
    refs = [ref for ref in found if ref != "refs/exps/exec/EXEC_APPLY"]  # `dvc exp apply` leaves it for good
    if refs and not git_and_dvc_in(state.folder):
        what = f"{counted(len(refs), 'ref')} of an experiment that was killed, which DVC would go on with: "
        todo = " && ".join(f"git update-ref --no-deref -d {ref}" for ref in refs)
        yield Finding(
            what + first_few(refs),
            f"`{todo}`, then run it again; `git diff HEAD` shows what it left in params.yaml",
        )


def copies(state: State) -> Iterator[Finding]:
    """Find temporary copies of the workspace whose commands were killed: they only take space."""
    found = left_over(state.folder / COPIES)
    if not git_and_dvc_in(state.folder):
        found += [path.parent for path in (state.folder / ".dvc/tmp/exps").glob("**/tmp*/.git")]
    if found:
        names = [str(path.relative_to(state.folder)) for path in found]
        what = f"{counted(len(found), 'temporary folder')} of commands that were killed: "
        yield Finding(what + first_few(names), f"`rm -rf {_quoted(found)}`")


def idle_queue(state: State) -> Iterator[Finding]:
    """Find queued experiments that no worker will run."""
    stash = "refs/exps/celery/stash"
    entries = git_if_any(
        "log", "--walk-reflogs", "--format=%gs", stash, "--", folder=state.folder
    ).splitlines()
    names = [entry.split(":")[4] or "without a name" for entry in entries if entry.count(":") >= 4]
    if names and not any(map(_runs, (state.folder / ".dvc/tmp/exps/celery").glob("dvc-exp-worker-*.json"))):
        what = f"{counted(len(names), 'experiment')} in DVC's queue and no worker: {first_few(names)}"
        yield Finding(what, "`dvc queue start`, or `dvc queue remove --queued` to forget them")


ABANDONED_S = 600.0
"""Age from which a file under a temporary name is left over, s; writing one takes a minute at most."""

UNFINISHED = ("*.unfinished", ".*.part", ".*.old")
"""Names that files and folders have until they are complete, see `core/files.py`."""

UNSEARCHED = {".git", ".venv", "cache", "tmp"}


def unfinished_files(state: State) -> Iterator[Finding]:
    """Find half-written files that killed commands left under temporary names."""
    found = []
    for folder, folders, files in os.walk(state.folder):
        here = Path(folder)
        names = [name for name in (*folders, *files) if any(Path(name).match(one) for one in UNFINISHED)]
        found += [here / name for name in names if _is_settled(here / name)]
        is_dvc = here == state.folder / ".dvc"
        folders[:] = [
            name
            for name in folders
            if name not in names and name not in (UNSEARCHED if is_dvc else {".git", ".venv"})
        ]
    if found:
        names = [str(path.relative_to(state.folder)) for path in found]
        what = f"{counted(len(found), 'file')} that a killed command left half-written: {first_few(names)}"
        yield Finding(what, f"`rm -rf {_quoted(names)}`")


def _is_settled(path: Path) -> bool:
    """Return whether nothing has been written to a path for a while; not if it is gone by now."""
    try:
        return time.time() - path.lstat().st_mtime > ABANDONED_S
    except OSError:
        return False


def _holders(rwlock: Path) -> list[tuple[int, str]] | None:
    """Return process number and command of each holder of DVC's lock; None if the file is not whole."""
    try:
        held = json.loads(rwlock.read_text(encoding="utf-8"))
        readers = [info for infos in held.get("read", {}).values() for info in infos]
        return [(int(info["pid"]), str(info["cmd"])) for info in (*held.get("write", {}).values(), *readers)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None


def _is_holder(pid: int, rwlock: Path) -> bool:
    """Return whether a process runs that began before the lock was last written, so can have written it."""
    try:
        return bool(psutil.Process(pid).create_time() <= rwlock.stat().st_mtime + 1)
    except (psutil.Error, OSError):
        return False


def _runs(info: Path) -> bool:
    """Return whether the process runs that a file of DVC's queue describes."""
    try:
        return bool(psutil.pid_exists(int(json.loads(info.read_text(encoding="utf-8"))["pid"])))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _quoted(paths: list[Path] | list[str]) -> str:
    return shlex.join(map(str, paths))
