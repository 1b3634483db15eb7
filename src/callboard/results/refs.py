"""References to results in git: experiments, branches, tags and HEAD, with what their commits hold."""

import re
from collections.abc import Callable
from pathlib import Path

from callboard.core.workspace import main_workspace
from callboard.results.committed import Locks
from callboard.results.git import CommittedFiles, committed_files, git, git_if_any
from callboard.results.result import RefKind, ResultRef

NAMED = re.compile(r"refs/(?:exps/[0-9a-f]{2}/[0-9a-f]{38}|heads|tags)/(?P<name>.+)")
"""Experiments hang below the commit that they started from; DVC's own notes, as refs/exps/exec, do not."""

REF_KINDS: dict[str, RefKind] = {"exps": "experiment", "heads": "branch", "tags": "tag"}
"""Folder below refs/ to what lies in it."""

Tell = Callable[[str], None]


def refs_in_git(folder: Path | None = None) -> list[ResultRef]:
    """Every experiment, branch and tag, and HEAD, of a workspace or of the main one, see `named_commits`."""
    folder = folder or main_workspace()
    with committed_files(folder) as files:
        locks = Locks(files)
        found = [ref._replace(key=locks.at(ref.commit).key) for ref in named_commits(folder)]
        locks.save()
    return found


def results_in_git(files: CommittedFiles, folder: Path, tell: Tell) -> dict[str, list[ResultRef]]:
    """By content key, what refers to each result that a commit holds, see `commits_with_results`.

    Args:
        files: Of any commit.
        folder: The main workspace.
        tell: Told of every dvc.lock that cannot be read.
    """
    locks = Locks(files)
    found: dict[str, list[ResultRef]] = {}
    for ref in commits_with_results(folder):
        lock = locks.at(ref.commit)
        if lock.is_broken:
            tell(f"{ref}: its dvc.lock cannot be read; nothing is recorded of it")
        elif lock.key:
            found.setdefault(lock.key, []).append(ref._replace(key=lock.key))
    locks.save()
    return found


def experiments_among(refs: list[ResultRef]) -> tuple[str, ...]:
    """Names of the experiments, without repeats, in order."""
    return tuple(dict.fromkeys(ref.name for ref in refs if ref.kind == "experiment"))


def commits_with_results(folder: Path) -> list[ResultRef]:
    """Every named commit, then those below branches, tags and HEAD that brought another dvc.lock; no keys.

    A commit that deletes dvc.lock withdraws what lies before it and has no name: so the results of this
    project's own past, which come along with its history, are not those of whoever clones it.
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
    """Every experiment, branch and tag, and HEAD, in this order; of a kind the oldest first; no keys."""
    # %(*…) is about the commit behind an annotated tag, and empty otherwise
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
    """The commit that a committed result was made on, and the time in ms of the commit that brought it.

    `dvc repro` runs on one commit and its dvc.lock becomes part of the next.
    """
    if ref.baseline:
        return ref.baseline, ref.time_ms
    line = git("log", "-1", "--format=%ct %P", ref.commit, "--", "dvc.lock", folder=folder).split()
    return (line[1] if len(line) > 1 else ref.commit), int(line[0]) * 1000 if line else ref.time_ms
