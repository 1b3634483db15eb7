"""Git: commands, and the text files of a workspace or of any commit."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple

from callboard.core.reading import reading
from callboard.results.git_errors import (
    BROKEN_REF,
    GitError,
    SilentError,
    error_of,
    is_absent,
    lock_remedy,
    repository_around,
)

Files = Callable[[str], str]
"""Function from the path of a file in a workspace to its text; empty if the file does not exist."""


def files_in(workspace: Path) -> Files:
    """Return a reader of the files in a folder, which refuses those that cannot be read."""

    def read(name: str) -> str:
        path = workspace / name
        with reading(path):
            return path.read_text(encoding="utf-8") if path.is_file() else ""

    return read


def git(*arguments: str, folder: Path | None = None, **variables: str) -> str:
    """Run a git command in `folder` or the current one, and return its output.

    Args:
        arguments: Of git.
        folder: Where it runs.
        variables: Environment variables to set, such as GIT_INDEX_FILE.

    Raises:
        GitError: the command failed, left out something damaged, or git is not installed.
    """
    place = (folder or Path.cwd()).resolve()
    done = subprocess.run(
        git_command(*arguments),
        cwd=place,
        env=_environment() | variables,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode or BROKEN_REF.search(done.stderr):
        if done.stderr or done.stdout:
            raise error_of(arguments[0], place, done.stderr, done.stdout)
        raise _silent(f"git {arguments[0]} in {place}", done.returncode, place)
    return done.stdout


def _silent(where: str, status: int, place: Path) -> SilentError:
    """Return the error of a command that gave no reason, which may be a lock."""
    top = repository_around(place)
    if top and (lock := top / ".git/index.lock").exists():
        return SilentError(where, f"exit status {status}, and {lock} exists", lock_remedy(lock, place))
    return SilentError(where, f"exit status {status}")


def git_if_any(*arguments: str, folder: Path | None = None) -> str:
    """Run a git command and return its output; empty if the revision, file or repository does not exist.

    Raises:
        GitError: any other failure, such as damaged objects, or git is not installed.
    """
    try:
        return git(*arguments, folder=folder)
    except GitError as error:
        if is_absent(error, (folder or Path.cwd()).resolve()):
            return ""
        raise


def _environment() -> dict[str, str]:
    return os.environ | {"LC_ALL": "C"}  # messages are parsed


def git_command(*arguments: str) -> list[str]:
    """Return the command line.

    Raises:
        GitError: git is not installed.
    """
    if not shutil.which("git"):
        raise GitError("git", "not found on PATH", "install it, since results are kept in its commits")
    return ["git", *arguments]


def text_at(revision: str, name: str, folder: Path | None = None) -> str:
    """Return a file of `folder` or the current one as committed at `revision`; empty if it is not there.

    Raises:
        GitError: as `CommittedFiles.blob`.
    """
    with committed_files(folder or Path.cwd()) as files:
        return files.of(revision)(name)


class Blob(NamedTuple):
    """A file in a commit."""

    sha: str
    """Git's hash of the content."""
    text: str


class CommittedFiles:
    """A reader of files of any commit through one git process, in a fraction of a millisecond per file."""

    def __init__(self, folder: Path) -> None:
        """Read below `folder`; git is started by the first question. See `committed_files`."""
        self._folder = folder.resolve()
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] = TemporaryFile()  # noqa: SIM115 (closed by `close`)

    def blob(self, commit: str, path: str) -> Blob | None:
        """Return a file by its path in the workspace; None if there is no such commit or it lacks the file.

        Raises:
            GitError: the file or a folder around it is damaged, or git refuses the repository.
        """
        if found := self._object(f"{commit}:./{path}"):
            kind, sha, content = found
            return Blob(sha, content.decode("utf-8", "replace")) if kind == "blob" else None
        self._refuse_damage(commit, path)
        return None

    def of(self, commit: str) -> Files:
        """Return a reader of the files of one commit, for `result.read_result`."""

        def read(name: str) -> str:
            blob = self.blob(commit, name)
            return blob.text if blob else ""

        return read

    def close(self) -> None:
        """End the process."""
        self._end()
        self._said.close()

    def _object(self, name: str) -> tuple[str, str, bytes] | None:
        """Return kind, hash and content of an object; None if git does not find it."""
        requests, answers = self._pipes()
        with suppress(BrokenPipeError):  # it has ended, with a reason
            requests.write(f"{name}\n".encode())
            requests.flush()
        header = answers.readline().decode().split()
        if not header:
            error = self._last_words()
            if is_absent(error, self._folder):
                return None
            raise error
        if len(header) != 3 or not header[2].isdigit():
            return None  # `<request> missing`
        return header[1], header[0], answers.read(int(header[2]) + 1)[:-1]

    def _refuse_damage(self, commit: str, path: str) -> None:
        """Refuse a damaged object; one is merely absent if what contains it can be read and lacks it."""
        folder, _, name = path.rpartition("/")
        around = self._object(f"{commit}:./{folder}")
        if around is None and folder:
            self._refuse_damage(commit, folder)
        elif around is None:
            if self._object(commit) and not self._object(f"{commit}^{{tree}}"):
                raise self._error(f"fatal: unable to read the tree of {commit}")
        elif f" {name}\0".encode() in around[2]:
            raise self._error(f"fatal: unable to read {path} of {commit}")

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._process is None:
            self._process = subprocess.Popen(
                git_command("cat-file", "--batch"),
                cwd=self._folder,
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def _last_words(self) -> GitError:
        """Return the reason why the process has ended; the next question starts another."""
        self._end()
        self._said.seek(0)
        return self._error(self._said.read().decode("utf-8", "replace"))

    def _end(self) -> None:
        if self._process:
            self._process.communicate()
            self._process = None

    def _error(self, said: str) -> GitError:
        return error_of("cat-file", self._folder, said)


@contextmanager
def committed_files(folder: Path) -> Iterator[CommittedFiles]:
    """Yield a reader of files in commits of the repository around `folder`, by paths relative to it."""
    files = CommittedFiles(folder)
    try:
        yield files
    finally:
        files.close()
