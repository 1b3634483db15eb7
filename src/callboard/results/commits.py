"""Results as git has them: which commits may hold one, and their files through one git process."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, NamedTuple

from callboard.results.finished import NAMED
from callboard.results.git import git
from callboard.results.result import Files

RefKind = Literal["experiment", "branch", "tag", "HEAD", "commit"]

REF_KINDS: dict[str, RefKind] = {"exps": "experiment", "heads": "branch", "tags": "tag"}
"""Folder below refs/ to what lies in it."""


class Blob(NamedTuple):
    """A file of a commit."""

    sha: str
    """Git's hash of the content."""
    text: str


@dataclass(frozen=True)
class Named:
    """A commit that may hold a result."""

    kind: RefKind
    name: str
    """Of what refers to it; a commit that only later ones refer to goes by its hash."""
    commit: str
    time_ms: int
    """When it was committed."""
    baseline: str
    """For an experiment the commit that it started from, else empty."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.kind != "HEAD" else "HEAD"


def commits_with_results(folder: Path) -> list[Named]:
    """Every named commit, then those below branches, tags and HEAD that brought another dvc.lock.

    A commit that deletes dvc.lock withdraws what lies before it and has no name: so the results of this
    project's own past, which come along with its history, are not those of whoever clones it.
    """
    named = named_commits(folder)
    known = {each.commit for each in named}
    history = ("log", "--branches", "--tags", "HEAD")
    # merges that kept their own dvc.lock would hide the deletion without --full-history
    deleting = ("--full-history", "--diff-filter=D", "--format=%H", "--", "dvc.lock")
    deletions = git(*history, *deleting, folder=folder).split()
    changing = ("--not", *deletions, "--format=%H %ct", "--reverse", "--", "dvc.lock")
    lines = [line.split() for line in git(*history, *changing, folder=folder).splitlines()]
    earlier = [
        Named("commit", commit[:7], commit, int(time_s) * 1000, "")
        for commit, time_s in lines
        if commit not in known
    ]
    return named + earlier


def named_commits(folder: Path) -> list[Named]:
    """Every experiment, branch and tag, and HEAD: experiments first; of a kind the oldest first."""
    # %(*…) is about the commit behind an annotated tag, and empty otherwise
    fields = "%(refname) %(objectname) %(committerdate:unix) %(*objectname) %(*committerdate:unix)"
    lines = git("for-each-ref", f"--format={fields}", folder=folder).splitlines()
    if head := git("log", "-1", "--format=HEAD %H %ct", "HEAD", folder=folder):
        lines.append(head)
    found = [named for line in lines if (named := _named(line))]
    order = [*REF_KINDS.values(), "HEAD"]
    return sorted(found, key=lambda named: (order.index(named.kind), named.time_ms, named.name))


def _named(line: str) -> Named | None:
    ref, *fields = line.split()
    if len(fields) < 2:
        return None  # a tag of something that is no commit
    commit, time_s = fields[-2:]
    if ref == "HEAD":
        return Named("HEAD", "HEAD", commit, int(time_s) * 1000, "")
    match = NAMED.fullmatch(ref)
    if not match:
        return None
    parts = ref.split("/")
    kind = REF_KINDS[parts[1]]
    baseline = "".join(parts[2:4]) if kind == "experiment" else ""
    return Named(kind, match["name"], commit, int(time_s) * 1000, baseline)


def reached_from(named: Named, folder: Path) -> tuple[str, int]:
    """The commit that a committed result was made on, and the time in ms of the commit that brought it.

    `dvc repro` runs on one commit and its dvc.lock becomes part of the next.
    """
    if named.baseline:
        return named.baseline, named.time_ms
    line = git("log", "-1", "--format=%ct %P", named.commit, "--", "dvc.lock", folder=folder).split()
    return (line[1] if len(line) > 1 else named.commit), int(line[0]) * 1000 if line else named.time_ms


class CommittedFiles:
    """Reads files of any commit through one git process, which answers in a fraction of a millisecond."""

    def __init__(self, requests: IO[bytes], answers: IO[bytes]) -> None:
        """Speak with a running `git cat-file --batch`; see `committed_files`."""
        self._requests, self._answers = requests, answers

    def blob(self, commit: str, path: str) -> Blob | None:
        """A file by its path in the workspace; None where the commit has none."""
        self._requests.write(f"{commit}:./{path}\n".encode())
        self._requests.flush()
        header = self._answers.readline().decode().split()
        if len(header) != 3 or header[1] not in ("blob", "tree"):
            return None  # `<request> missing`
        content = self._answers.read(int(header[2]) + 1)[:-1]
        return Blob(header[0], content.decode("utf-8", "replace")) if header[1] == "blob" else None

    def of(self, commit: str) -> Files:
        """The files of one commit, for `results.read_result`."""

        def read(name: str) -> str:
            blob = self.blob(commit, name)
            return blob.text if blob else ""

        return read


@contextmanager
def committed_files(folder: Path) -> Iterator[CommittedFiles]:
    """Files of the commits of the repository around `folder`, by paths relative to it."""
    command = ["git", "cat-file", "--batch"]
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield CommittedFiles(process.stdin, process.stdout)
