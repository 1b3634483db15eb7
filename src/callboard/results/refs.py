"""References to results in git: experiments, branches, tags and HEAD, with the keys of their results."""

import re
from collections.abc import Callable
from pathlib import Path

from callboard.core.workspace import main_workspace
from callboard.results.committed import Locks
from callboard.results.git import CommittedFiles, committed_files, git, git_if_any
from callboard.results.result import RefKind, ResultRef

NAMED = re.compile(r"refs/(?:exps/[0-9a-f]{2}/[0-9a-f]{38}|heads|tags)/(?P<name>.+)")
"""Refs of experiments, below the commit that they started from (not DVC's refs/exps/exec), branches, tags."""

REF_KINDS: dict[str, RefKind] = {"exps": "experiment", "heads": "branch", "tags": "tag"}
"""Folder below refs/ to the kind of refs in it."""

Tell = Callable[[str], None]


def experiment_ref(head: str, name: str) -> str:
    """Return git's name for an experiment on a commit."""
    return f"refs/exps/{head[:2]}/{head[2:]}/{name}"


def refs_in_git(folder: Path | None = None) -> list[ResultRef]:
    """Return every experiment, branch and tag, and HEAD, of a folder, by default the main workspace.

    In the order of `named_commits`, with keys.
    """
    folder = folder or main_workspace()
    with committed_files(folder) as files:
        locks = Locks(files)
        found = [ref._replace(key=locks.at(ref.commit).key) for ref in named_commits(folder)]
        locks.save()
    return found


def results_in_git(files: CommittedFiles, folder: Path, tell: Tell) -> dict[str, list[ResultRef]]:
    """Return the references to each result that a commit holds, by content key, see `commits_with_results`.

    Args:
        files: Reader of the files of any commit.
        folder: The main workspace.
        tell: Called with a warning for every dvc.lock that cannot be read.
    """
    locks = Locks(files)
    found: dict[str, list[ResultRef]] = {}
    for ref in commits_with_results(folder):
        lock = locks.at(ref.commit)
        if lock.is_broken:
            tell(f"{ref}: its dvc.lock cannot be read; it is not recorded")
        elif lock.key:
            found.setdefault(lock.key, []).append(ref._replace(key=lock.key))
    locks.save()
    return found


def experiments_among(refs: list[ResultRef]) -> tuple[str, ...]:
    """Return the names of the experiments, without repeats, in order."""
    return tuple(dict.fromkeys(ref.name for ref in refs if ref.kind == "experiment"))


def commits_with_results(folder: Path) -> list[ResultRef]:
    """Return every named commit, then earlier ones that changed dvc.lock, without keys.

    A commit that deletes dvc.lock withdraws unnamed results before it, so that results in this project's own
    history do not count as those of whoever clones it.
    """
    named = named_commits(folder)
    known = {ref.commit for ref in named}
    history = ("log", "--branches", "--tags", "HEAD")
    # merges that kept their own dvc.lock would hide the deletion without --full-history
    deleting = ("--full-history", "--diff-filter=D", "--format=%H", "--", "dvc.lock")
    deletions = git_if_any(*history, *deleting, folder=folder).split()
    changing = ("--not", *deletions, "--format=%H %ct", "--reverse", "--", "dvc.lock")
    lines = [line.split() for line in git_if_any(*history, *changing, folder=folder).splitlines()]
    earlier = [
        ResultRef(commit[:7], "", commit, int(time_s) * 1000, "commit")
        for commit, time_s in lines
        if commit not in known
    ]
    return named + earlier


def named_commits(folder: Path) -> list[ResultRef]:
    """Return experiments, branches, tags and HEAD, in this order, oldest of a kind first, without keys."""
    # %(*…) describes the commit of an annotated tag, and is empty otherwise
    fields = "%(refname) %(objectname) %(committerdate:unix) %(*objectname) %(*committerdate:unix)"
    lines = git_if_any("for-each-ref", f"--format={fields}", folder=folder).splitlines()
    if head := git_if_any("log", "-1", "--format=HEAD %H %ct", "HEAD", folder=folder):
        lines.append(head)
    found = [ref for line in lines if (ref := _named(line))]
    order = [*REF_KINDS.values(), "HEAD"]
    return sorted(found, key=lambda ref: (order.index(ref.kind), ref.time_ms, ref.name))


def _named(line: str) -> ResultRef | None:
    ref, *fields = line.split()
    if len(fields) < 2:
        return None  # a tag of something that is not a commit
    commit, time_s = fields[-2:]
    if ref == "HEAD":
        return ResultRef("HEAD", "", commit, int(time_s) * 1000, "HEAD")
    match = NAMED.fullmatch(ref)
    if not match:
        return None
    parts = ref.split("/")
    kind = REF_KINDS[parts[1]]
    baseline = "".join(parts[2:4]) if kind == "experiment" else ""
    return ResultRef(match["name"], "", commit, int(time_s) * 1000, kind, baseline)


def reached_from(ref: ResultRef, folder: Path) -> tuple[str, int]:
    """Return the commit that a committed result was made on, and the time (ms) of the commit that added it.

    `dvc repro` runs on one commit, and its dvc.lock becomes part of the next.
    """
    if ref.baseline:
        return ref.baseline, ref.time_ms
    line = git("log", "-1", "--format=%ct %P", ref.commit, "--", "dvc.lock", folder=folder).split()
    return (line[1] if len(line) > 1 else ref.commit), int(line[0]) * 1000 if line else ref.time_ms
