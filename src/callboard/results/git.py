"""Git: its commands and refusals in words, and the text files of a workspace or of any commit."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from callboard.core.errors import UserError

Files = Callable[[str], str]
"""Text of a file by its path in a workspace; empty where there is none."""

FOREIGN = "dubious ownership"
"""Part of what git says of a repository that another user owns: it answers no question about it."""

REMEDIES = {
    "not a git repository": "run in the folder of the project, or `git init` there",
    "ambiguous argument 'HEAD'": "nothing is committed yet: git commit",
    FOREIGN: 'git config --global --add safe.directory "{folder}"',
}
"""By a part of what git says."""


def files_in(workspace: Path) -> Files:
    """The files that lie in a folder."""

    def read(name: str) -> str:
        path = workspace / name
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    return read


class GitError(UserError):
    """A git command failed; git's own words are part of the message."""


def git(*arguments: str, folder: Path | None = None) -> str:
    """What a git command prints, run in `folder` or here.

    Raises:
        GitError: the command failed, or git is not installed.
    """
    done = _run(arguments, folder)
    if done.returncode:
        raise _error(done, arguments, folder)
    return done.stdout


def git_if_any(*arguments: str, folder: Path | None = None) -> str:
    """What a git command prints; empty where nothing is there: no such revision or file, or no repository.

    Raises:
        GitError: git refuses the repository because another user owns it, or is not installed.
    """
    done = _run(arguments, folder)
    if done.returncode and FOREIGN in done.stderr:
        raise _error(done, arguments, folder)
    return "" if done.returncode else done.stdout


def git_command(*arguments: str) -> list[str]:
    """The command line.

    Raises:
        GitError: git is not installed.
    """
    if not shutil.which("git"):
        raise GitError("git: not found on PATH; install it, results are kept in its commits")
    return ["git", *arguments]


def text_at(revision: str, name: str, folder: Path | None = None) -> str:
    """A file of `folder`, or of this one, as committed at `revision`; empty where there is none."""
    return git_if_any("show", f"{revision}:./{name}", folder=folder)


class Blob(NamedTuple):
    """A file of a commit."""

    sha: str
    """Git's hash of the content."""
    text: str


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
        """The files of one commit, for `result.read_result`."""

        def read(name: str) -> str:
            blob = self.blob(commit, name)
            return blob.text if blob else ""

        return read


@contextmanager
def committed_files(folder: Path) -> Iterator[CommittedFiles]:
    """Files of the commits of the repository around `folder`, by paths relative to it."""
    command = git_command("cat-file", "--batch")
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield CommittedFiles(process.stdin, process.stdout)


def _run(arguments: tuple[str, ...], folder: Path | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        git_command(*arguments),
        cwd=folder,
        env=os.environ | {"LC_ALL": "C"},  # messages are looked into
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def _error(
    done: subprocess.CompletedProcess[str], arguments: tuple[str, ...], folder: Path | None
) -> GitError:
    """The line of git's that says why, and what to do where that is known."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    reason = next((line for line in lines if line.startswith(("fatal:", "error:"))), "".join(lines[-1:]))
    place = (folder or Path.cwd()).resolve()
    remedy = next((text.format(folder=place) for part, text in REMEDIES.items() if part in reason), "")
    said = reason or f"exit status {done.returncode}"
    return GitError(f"git {arguments[0]} in {place}: {said}{remedy and '; '}{remedy}")
