"""Checks of files: git's objects, dvc.lock and metrics in the work tree, and the content of DVC's cache."""

import hashlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

from callboard.analysis.doctor.findings import Finding, State
from callboard.core.console import counted, first_few, progress
from callboard.core.errors import UserError
from callboard.core.workspace import main_workspace
from callboard.results.dvc_cache import (
    FOLDER_SUFFIX,
    DamagedFileError,
    is_cached,
    md5s_listed,
    object_path,
    refuse_damaged,
    regain,
)
from callboard.results.dvc_lock import Lock, all_outs, stages_in
from callboard.results.git import files_in, git, git_if_any, text_at
from callboard.results.leaderboard import CONFLICT


def git_objects(state: State) -> Iterator[Finding]:
    """Find objects of git that are damaged or missing, as after a power cut."""
    if names := state.damaged_objects:
        top = Path(git("rev-parse", "--show-toplevel", folder=state.folder).strip())
        what = f"git: {counted(len(names), 'object')} damaged or missing: {first_few(names)}"
        yield Finding(what, _objects_again(top, [name for name in names if "/" in name]), loses_results=True)


def _objects_again(top: Path, damaged: list[str]) -> str:
    """Return the commands that remove damaged objects and take all from a clone."""
    remote = next(iter(git_if_any("remote", folder=top).split()), "")
    url = git_if_any("config", "--get", f"remote.{remote}.url", folder=top).strip() or "CLONE"
    steps = [f"cd {shlex.quote(str(top))}", *([f"rm -f {shlex.join(damaged)}"] if damaged else [])]
    steps += [
        f"git clone --quiet --mirror {shlex.quote(url)} .git/whole",
        "cp -rf .git/whole/objects/. .git/objects/",
        "rm -rf .git/whole",
    ]
    return f"`{' && '.join(steps)}`" + (" with a clone that has them" if url == "CLONE" else "")


def broken_lock(state: State) -> Iterator[Finding]:
    """Find a dvc.lock in the work tree that was cut, emptied, or has the marks of a merge."""
    path = state.folder / "dvc.lock"
    committed = text_at("HEAD", "dvc.lock", state.folder)
    if path.is_file() and (why := _why_broken(path.read_bytes().decode("utf-8", "replace"), committed)):
        is_kept = bool(committed) and not _why_broken(committed, committed)
        restore = "git checkout HEAD -- dvc.lock" if is_kept else "rm dvc.lock"
        todo = f"`{restore}`, then `dvc repro` (what was made comes from DVC's cache)"
        yield Finding(f"dvc.lock {why}", todo, loses_results=not is_kept)


def _why_broken(text: str, committed: str) -> str:
    """Describe in a clause why a dvc.lock is not whole; empty if it is."""
    if not text.strip():
        return "is empty"
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith(CONFLICT):
            return f"has the marks of a merge in line {number}"
    try:
        stages = stages_in(text, "it")
    except UserError as error:
        return f"is broken: {error}"
    if not stages or not text.endswith("\n") or (text != committed and committed.startswith(text)):
        return f"was cut: it ends after {counted(len(stages), 'stage')}"
    return ""


def broken_metrics(state: State) -> Iterator[Finding]:
    """Find metrics and curves in the work tree that are not what dvc.lock says, as half-written ones."""
    made = {
        path: md5 for path, md5 in all_outs(_stages(state)).items() if path.startswith(("metrics/", "plots/"))
    }
    for path in sorted({*made, *_metrics_without(state, made)}):
        file = state.folder / path
        content = file.read_bytes() if file.is_file() else b""
        is_of_old_matrix = not file.exists() and not path.startswith("metrics/")
        if is_of_old_matrix or _is_whole(content, made.get(path)):
            continue
        is_kept = _is_whole(text_at("HEAD", path, state.folder).encode(), made.get(path))
        todo = f"git checkout HEAD -- {shlex.quote(path)}" if is_kept else "dvc repro"
        why = "is missing" if not file.exists() else "is empty" if not content else "was cut or altered"
        yield Finding(f"{path} {why}: it is not what its stage wrote", f"`{todo}`", loses_results=not is_kept)


def _stages(state: State) -> Lock:
    """Return the stages of the work tree's dvc.lock; none if it is absent or broken, see `broken_lock`."""
    try:
        return stages_in(files_in(state.folder)("dvc.lock"), "dvc.lock")
    except UserError:
        return {}


def _metrics_without(state: State, made: dict[str, str]) -> list[str]:
    """Return metrics that dvc.lock does not list."""
    found = [path.relative_to(state.folder).as_posix() for path in (state.folder / "metrics").glob("*.json")]
    return [path for path in found if path not in made]


def _is_whole(content: bytes, md5: str | None) -> bool:
    """Return whether a file is what dvc.lock says, or any JSON if it says nothing."""
    if md5:
        return hashlib.md5(content, usedforsecurity=False).hexdigest() == md5
    try:
        json.loads(content)
    except ValueError:
        return False
    return True


def damaged_files(state: State) -> Iterator[Finding]:
    """Find files of results in DVC's cache whose content is not what their names say.

    It takes about 2 s per GB the first time; digests of large files are remembered, see `refuse_damaged`.
    """
    used: dict[str, str] = {}
    for ref, *_ in state.results.values():
        for path, md5 in all_outs(state.lock_of(ref)).items():
            used.setdefault(md5, f"{path} of {ref.reference}")
    damaged: dict[Path, str] = {}
    for md5, what in progress(used.items(), total=len(used), label="DVC's cache", unit="outputs"):
        for file in _damaged(md5, what):
            damaged.setdefault(file, what)
    if damaged:
        whose = first_few(list(damaged.values()))
        what = f"{counted(len(damaged), 'file')} damaged in DVC's cache: {whose}"
        yield Finding(what, regain(*damaged), loses_results=True)


def _damaged(md5: str, what: str) -> Iterator[Path]:
    """Yield the damaged files of an output, as far as DVC's cache has it."""
    if not is_cached(md5):
        return
    path = object_path(md5, main_workspace())
    try:
        refuse_damaged(path, md5, what)
    except DamagedFileError:
        yield path
        return
    if md5.endswith(FOLDER_SUFFIX):
        for of_file in md5s_listed(path).values():
            yield from _damaged(of_file, what)
