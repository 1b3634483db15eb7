"""Submissions: the results that they came from, and whether they have the rows their competition wants."""

import csv
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from callboard.core.errors import UserError
from callboard.core.workspace import main_workspace
from callboard.results.commits import committed_files, named_commits
from callboard.results.committed import Locked, Locks, lock_content
from callboard.results.finished import cached_file
from callboard.results.leaderboard import entries_of
from callboard.results.mlflow import record as tags
from callboard.results.naming import MIN_DIGITS, Name, names_in_git, results_named
from callboard.results.result import files_in
from callboard.results.stored_runs import stored_runs

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
    lock = lock_content(files_in(main_workspace())("dvc.lock"))
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


SAMPLE = "sample_submission.csv"
SKIPPED = "skipped.csv"


def refuse_incomplete(submission: Path, data_md5: str, name: str) -> None:
    """Look at a submission before it costs one of a day's few.

    Args:
        submission: The file.
        data_md5: Of data/source behind it, as dvc.lock tells it.
        name: What to call it in errors.

    Raises:
        UserError: a recording or a column is missing or too many, or data/source is not in DVC's cache.
    """
    columns, wanted = _header_and_ids(_of_source(data_md5, SAMPLE))
    with _of_source(data_md5, SKIPPED).open(encoding="utf-8", newline="") as file:
        wanted |= {row["recording_id"] for row in csv.DictReader(file) if row["subset"] == "test"}
    found_columns, found = _header_and_ids(submission)
    if found_columns != columns:
        raise UserError(f"{name}: columns {', '.join(found_columns)}; {SAMPLE} has {', '.join(columns)}")
    for ids, what in ((wanted - found, "without"), (found - wanted, "with too many:")):
        if ids:
            raise UserError(
                f"{name}: {what} {len(ids)} of {len(wanted)} test recordings, first {min(ids)}; Kaggle would "
                "refuse it. Recordings that were skipped are told in data/source/skipped.csv"
            )


def refuse_no_submission(path: Path) -> None:
    """A file that is no submission has an md5 too, which no run will ever have.

    Raises:
        UserError: its first column is not `recording_id`.
    """
    first = (
        path.read_bytes().partition(b"\n")[0].removeprefix(b"\xef\xbb\xbf").partition(b",")[0].strip(b'"\r')
    )
    if first != b"recording_id":
        raise UserError(
            f"{path.name}: no submission, the first column is {first[:40].decode('utf-8', 'replace')!r}, "
            "must be recording_id"
        )


def _header_and_ids(path: Path) -> tuple[list[str], set[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        return header, {row[0] for row in rows if row}


def _of_source(data_md5: str, name: str) -> Path:
    """A file of data/source in DVC's cache, by the list of its files that lies there too."""
    what = "data/source"
    listed = json.loads(cached_file(data_md5, what).read_text(encoding="utf-8"))
    md5 = next((entry["md5"] for entry in listed if entry["relpath"] == name), "")
    return cached_file(md5, f"{what}/{name}")
