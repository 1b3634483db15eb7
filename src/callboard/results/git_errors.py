"""Errors of git as sentences: its own words, and what to do about them."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from callboard.core.console import first_few
from callboard.core.errors import UserError

FOREIGN = "dubious ownership"
"""Part of git's error for a repository that another user owns, for which all commands fail."""

NO_REPOSITORY = "not a git repository"

WORDS_OF_ABSENCE = re.compile(
    rf"{NO_REPOSITORY}|unknown revision or path not in the working tree|bad revision '|"
    r"invalid object name|does not exist in '|exists on disk, but not in '"
)
"""Git's words for a revision, file or repository that does not exist."""

WORDS_OF_DAMAGE = re.compile(
    r"is corrupt|is empty|bad object|missing object|unable to read|not a tree object"
)
"""Git's words for objects that a power cut or a bad disk destroyed."""

LOCKED = re.compile(r"Unable to create '(?P<lock>.+\.lock)': File exists")
"""Git's words for a lock that another process holds, or that a killed one has left."""

BROKEN_REF = re.compile(r"ignoring broken ref (?P<ref>\S+)")
"""Git's words for a branch, tag or experiment whose file does not hold a commit; it then leaves it out."""


class GitError(UserError):
    """A git command failed; git's own words are part of the message."""

    def __init__(self, where: str, reason: str, remedy: str = "", said: str = "") -> None:
        """Compose the message.

        Args:
            where: Command and folder.
            reason: Line of git's output that gives the reason.
            remedy: What to do about it; empty if unknown.
            said: All that git said.
        """
        super().__init__(f"{where}: {reason}{remedy and '; '}{remedy}")
        self.reason, self.remedy, self.said = reason, remedy, said


class DamagedObjectsError(GitError):
    """Git cannot read an object, as after a power cut."""


class SilentError(GitError):
    """A git command failed without a word, as one with `--quiet` does whose object does not exist."""


def error_of(command: str, folder: Path, errors: str, output: str = "") -> GitError:
    """Return the error of a failed command.

    Args:
        command: Its name, such as `show`.
        folder: Absolute path of the folder that it ran in.
        errors: What it wrote to stderr.
        output: What it wrote to stdout, which some commands use for errors too.
    """
    lines = [line.strip() for line in (errors or output).splitlines() if line.strip()]
    reason = next(
        (line for line in lines if line.startswith("fatal:")),
        next((line for line in lines if line.startswith("error:")), "".join(lines[-1:])),
    )
    remedy = next(
        (todo(found, folder) for words, todo in REMEDIES.items() if (found := words.search(reason))), ""
    )
    kind = DamagedObjectsError if WORDS_OF_DAMAGE.search(reason) else GitError
    return kind(f"git {command} in {folder}", reason, remedy, errors + output)


def is_absent(error: GitError, folder: Path) -> bool:
    """Return whether a failure only says that a revision, a file or the repository does not exist.

    A folder with a .git that git does not take for a repository is damaged: nothing in it is absent.
    """
    if NO_REPOSITORY in error.reason:
        return repository_around(folder) is None
    return isinstance(error, SilentError) or bool(WORDS_OF_ABSENCE.search(error.reason))


def repository_around(folder: Path) -> Path | None:
    """Return the nearest folder, from `folder` upwards, that has a .git, damaged or not; None if none has."""
    return next((place for place in (folder, *folder.parents) if (place / ".git").exists()), None)


def lock_remedy(lock: Path, folder: Path) -> str:
    """Say whether a process can hold a lock of git or DVC, and how to go on."""
    if running := git_and_dvc_in(repository_around(folder) or folder):
        return f"{first_few(running)} runs there and may hold it: wait for its end, then try again"
    return f"no git or DVC process runs there, so a killed one left it: `rm {lock}`, then try again"


def git_and_dvc_in(folder: Path) -> list[str]:
    """Return the processes of git and DVC, not started by this one, whose current folder is in `folder`."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            words = [Path(word).name.removesuffix(".exe") for word in process.cmdline()[:3]]
            if process.ppid() == os.getpid():
                continue
            programs = {word.rpartition(".")[2] for word in words} & {"git", "dvc", "dvc_commands"}
            if programs and Path(process.cwd()).is_relative_to(folder):
                found.append(f"{min(programs)} (process {process.pid})")
        except (psutil.Error, OSError):
            continue  # has ended, or belongs to somebody else
    return found


def _no_repository(_found: re.Match[str], folder: Path) -> str:
    if top := repository_around(folder):
        return f"{top / '.git'} is damaged: its file HEAD must hold `ref: refs/heads/BRANCH`"
    return "run in the folder of the project, or `git init` there"


def _broken_ref(found: re.Match[str], folder: Path) -> str:
    """Say how to get a branch, tag or experiment back whose file is empty or cut."""
    git_folder = (repository_around(folder) or folder) / ".git"
    ref = found["ref"] if "ref" in found.re.groupindex else _branch(git_folder)
    try:
        before = (git_folder / "logs" / ref).read_text(encoding="utf-8").splitlines()[-1].split()[1]
    except (OSError, IndexError):
        return (
            f"`rm {git_folder / ref}` removes the name; `git fsck --lost-found` lists the commit that it had"
        )
    return f"`rm {git_folder / ref} && git update-ref {ref} {before}` sets it to what it was"


def _branch(git_folder: Path) -> str:
    return (git_folder / "HEAD").read_text(encoding="utf-8").removeprefix("ref:").strip()


REMEDIES: dict[re.Pattern[str], Callable[[re.Match[str], Path], str]] = {
    re.compile(NO_REPOSITORY): _no_repository,
    re.compile("ambiguous argument 'HEAD'|bad revision 'HEAD'"): lambda *_: (
        "nothing is committed yet: git commit"
    ),
    re.compile(FOREIGN): lambda _, folder: f'`git config --global --add safe.directory "{folder}"`',
    LOCKED: lambda found, folder: lock_remedy(Path(found["lock"]), folder),
    BROKEN_REF: _broken_ref,
    re.compile("your current branch appears to be broken"): _broken_ref,
    re.compile("index file|index uses"): lambda *_: (
        "the index is damaged: `rm .git/index && git reset` makes it anew"
    ),
    WORDS_OF_DAMAGE: lambda *_: "`callboard doctor` lists what is damaged, and how to get it back",
}
"""Git's words to what to do about them."""
