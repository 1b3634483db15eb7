"""Submissions, and the results that they came from."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from callboard.errors import UserError
from callboard.ledger.entries import entries_of
from callboard.results import files_in
from callboard.runs.commits import committed_files, named_commits
from callboard.runs.locks import Locked, Locks, locked
from callboard.runs.naming import MIN_DIGITS, Name, names_in_git, results_named
from callboard.runs.stored_runs import stored_runs
from callboard.tracker import tags
from callboard.workspace import main_workspace

HASH = re.compile(rf"[0-9a-f]{{{MIN_DIGITS},32}}")
"""A content key, an md5, or the beginning of one."""

MD5_LENGTH = 32


@dataclass(frozen=True)
class Submitted:
    """A submission and the result that it belongs to."""

    md5: str
    key: str = ""
    """Content key of the result; empty where no result has the submission."""
    names: tuple[str, ...] = ()
    """Of the result; none where no result has the submission."""
    data_md5: str = ""
    """Of the recordings and annotations behind it."""
    time_ms: int = 0
    """Of the run in MLflow, else 0."""

    @property
    def name(self) -> str:
        """What to call it."""
        return self.names[0] if self.names else f"submission {self.md5[:8]}"


def find_submitted(what: str) -> Submitted:
    """The submission that `what` means.

    Args:
        what: A submission file, a result by `naming.results_named`, or the beginning of a submission's md5.

    Raises:
        UserError: nothing has that name, or several do.
    """
    if Path(what).is_file():
        md5 = md5_of(Path(what))
        return next((known for known in known_submissions() if known.md5 == md5), Submitted(md5))
    known = {one.key: one for one in known_submissions()}
    on_board = [Name(name, one.key, one.time_ms) for one in known.values() for name in one.names]
    names = [*on_board, *names_in_git()]
    is_name = any(one.name == what for one in names)
    if not is_name and (found := _by_hash(what, known.values())):
        return found
    try:
        meant = results_named(what, names)[-1]
    except UserError as error:
        raise UserError(f"{error}; nor is it a file or a submission's md5") from error
    return replace(known[meant.key], names=tuple(dict.fromkeys([meant.name, *known[meant.key].names])))


def known_submissions() -> list[Submitted]:
    """Of finished experiments in git, of the workspace's own result, and of the board, its newest last."""
    board = _on_board()
    keys = {one.key for one in board}
    others = {one.key: one for one in (*_in_workspace(), *_in_git()) if one.key not in keys}
    return [*others.values(), *board]


def md5_of(path: Path) -> str:
    """As DVC calls a file by."""
    return hashlib.md5(path.read_bytes()).hexdigest()


def _by_hash(what: str, known: Iterable[Submitted]) -> Submitted | None:
    if not HASH.fullmatch(what):
        return None
    in_ledger = [Submitted(entry.submission_md5, entry.key) for entry in entries_of(Path.cwd())]
    found: dict[str, Submitted] = {}
    for one in (*known, *in_ledger):
        if one.key.startswith(what) or one.md5.startswith(what):
            found.setdefault(one.md5, one)
    own = {md5: one for md5, one in found.items() if one.names}
    if len(found := own or found) > 1:
        several = ", ".join(f"{one.name} ({one.key}, {one.md5[:8]})" for one in found.values())
        raise UserError(f"{what} begins the key or md5 of several submissions: {several}; give more digits")
    return next(iter(found.values()), Submitted(what) if len(what) == MD5_LENGTH else None)


def _on_board() -> list[Submitted]:
    try:
        runs = stored_runs()
    except UserError:  # no database yet, or its server is down: git knows most of it
        return []
    return [
        Submitted(
            run.tags.get(tags.SUBMISSION_MD5, ""),
            run.tags.get(tags.KEY, ""),
            tuple(dict.fromkeys([run.name, *tags.split_names(run.tags.get(tags.NAMES, ""))])),
            run.tags.get(tags.DATA_MD5, ""),
            run.start_ms,
        )
        for run in runs
    ]


def _in_workspace() -> list[Submitted]:
    lock = locked(files_in(main_workspace())("dvc.lock"))
    return [_of(lock, tags.nameless(lock.key))] if lock.key else []


def _in_git() -> list[Submitted]:
    """Of every experiment, branch and tag; of HEAD where no other name has its result."""
    folder = main_workspace()
    found: dict[str, Submitted] = {}
    with committed_files(folder) as files:
        locks = Locks(files)
        for named in named_commits(folder):
            lock = locks.at(named.commit)
            if lock.key and not (named.kind == "HEAD" and lock.key in found):
                names = found[lock.key].names if lock.key in found else ()
                found[lock.key] = _of(lock, *names, named.name)
        locks.save()
    return list(found.values())


def _of(lock: Locked, *names: str) -> Submitted:
    return Submitted(lock.submission_md5, lock.key, names, lock.data_md5)
