"""Git: commands, errors with remedies, and the text files of a workspace or of any commit."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, NamedTuple

from callboard.core.errors import UserError

Files = Callable[[str], str]
"""Function from the path of a file in a workspace to its text; empty if the file does not exist."""

FOREIGN = "dubious ownership"
"""Part of git's error for a repository that another user owns, for which all commands fail."""

REMEDIES = {
    "not a git repository": "run in the folder of the project, or `git init` there",
    "ambiguous argument 'HEAD'": "nothing is committed yet: git commit",
    FOREIGN: 'git config --global --add safe.directory "{folder}"',
}
"""Part of git's error to what to do about it."""


def files_in(workspace: Path) -> Files:
    """Return a reader of the files in a folder."""

    def read(name: str) -> str:
        path = workspace / name
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    return read


class GitError(UserError):
    """A git command failed; git's own words are part of the message."""


def git(*arguments: str, folder: Path | None = None, **variables: str) -> str:
    """Run a git command in `folder` or the current one, and return its output.

    Args:
        arguments: Of git.
        folder: Where it runs.
        variables: Environment variables to set, such as GIT_INDEX_FILE.

    Raises:
        GitError: the command failed, or git is not installed.
    """
    done = _run(arguments, folder, variables)
    if done.returncode:
        raise _error(done, arguments, folder)
    return done.stdout


def git_if_any(*arguments: str, folder: Path | None = None) -> str:
    """Run a git command and return its output; empty if the revision, file or repository does not exist.

    Other failures give an empty text too.

    Raises:
        GitError: git refuses the repository because another user owns it, or git is not installed.
    """
    done = _run(arguments, folder)
    if done.returncode and FOREIGN in done.stderr:
        raise _error(done, arguments, folder)
    return "" if done.returncode else done.stdout


def git_command(*arguments: str) -> list[str]:
    """Return the command line.

    Raises:
        GitError: git is not installed.
    """
    if not shutil.which("git"):
        raise GitError("git: not found on PATH; install it, since results are kept in its commits")
    return ["git", *arguments]


def text_at(revision: str, name: str, folder: Path | None = None) -> str:
    """Return a file of `folder` or the current one as committed at `revision`; empty if it is not there."""
    return git_if_any("show", f"{revision}:./{name}", folder=folder)


class Blob(NamedTuple):
    """A file in a commit."""

    sha: str
    """Git's hash of the content."""
    text: str


class CommittedFiles:
    """A reader of files of any commit through one git process, in a fraction of a millisecond per file."""

    def __init__(self, requests: IO[bytes], answers: IO[bytes]) -> None:
        """Take the pipes of a running `git cat-file --batch`; see `committed_files`."""
        self._requests, self._answers = requests, answers

    def blob(self, commit: str, path: str) -> Blob | None:
        """Return a file by its path in the workspace; None if the commit does not have it."""
        self._requests.write(f"{commit}:./{path}\n".encode())
        self._requests.flush()
        header = self._answers.readline().decode().split()
        if len(header) != 3 or header[1] not in ("blob", "tree"):
            return None  # `<request> missing`
        content = self._answers.read(int(header[2]) + 1)[:-1]
        return Blob(header[0], content.decode("utf-8", "replace")) if header[1] == "blob" else None

    def of(self, commit: str) -> Files:
        """Return a reader of the files of one commit, for `result.read_result`."""

        def read(name: str) -> str:
            blob = self.blob(commit, name)
            return blob.text if blob else ""

        return read


@contextmanager
def committed_files(folder: Path) -> Iterator[CommittedFiles]:
    """Yield a reader of files in commits of the repository around `folder`, by paths relative to it."""
    command = git_command("cat-file", "--batch")
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield CommittedFiles(process.stdin, process.stdout)


def _run(
    arguments: tuple[str, ...], folder: Path | None, variables: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        git_command(*arguments),
        cwd=folder,
        env={**os.environ, "LC_ALL": "C", **variables},  # messages are parsed
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def _error(
    done: subprocess.CompletedProcess[str], arguments: tuple[str, ...], folder: Path | None
) -> GitError:
    """Build an error from the line of git's output that gives the reason, with a remedy if one is known."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    reason = next((line for line in lines if line.startswith(("fatal:", "error:"))), "".join(lines[-1:]))
    place = (folder or Path.cwd()).resolve()
    remedy = next((text.format(folder=place) for part, text in REMEDIES.items() if part in reason), "")
    said = reason or f"exit status {done.returncode}"
    return GitError(f"git {arguments[0]} in {place}: {said}{remedy and '; '}{remedy}")
