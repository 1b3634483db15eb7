"""Git: its commands, and the text files of a workspace or of any commit."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

Files = Callable[[str], str]
"""Text of a file by its path in a workspace; empty where there is none."""


def files_in(workspace: Path) -> Files:
    """The files that lie in a folder."""

    def read(name: str) -> str:
        path = workspace / name
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    return read


def git(*arguments: str, folder: Path | None = None) -> str:
    """What a git command prints, run in `folder` or here; empty where it fails, as outside a repository."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def text_at(revision: str, name: str, folder: Path | None = None) -> str:
    """A file of `folder`, or of this one, as committed at `revision`; empty where there is none."""
    return git("show", f"{revision}:./{name}", folder=folder)


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
    command = ["git", "cat-file", "--batch"]
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield CommittedFiles(process.stdin, process.stdout)
