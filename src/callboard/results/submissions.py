"""Submissions: the results that they came from, and checks for the rows that their competition requires."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from callboard.core.console import counted
from callboard.core.csv_rows import refuse_missing, table_rows, utf8_text
from callboard.core.errors import UserError
from callboard.core.reading import reading
from callboard.core.workspace import main_workspace
from callboard.results.committed import LockFacts, Locks, lock_content
from callboard.results.dvc_cache import cached_file, cached_in_folder
from callboard.results.git import committed_files, files_in
from callboard.results.leaderboard import entries_of
from callboard.results.lookup import MIN_DIGITS, choose
from callboard.results.mlflow.record import nameless
from callboard.results.refs import named_commits, refs_in_git
from callboard.results.result import SOURCE, ResultRef
from callboard.results.rows import BoardRow, board_refs, read_board

HASH = re.compile(rf"[0-9a-f]{{{MIN_DIGITS},32}}")
"""A content key or md5, or the beginning of one."""

MD5_LENGTH = 32


@dataclass(frozen=True)
class Submission:
    """A submission and the result that it belongs to."""

    md5: str
    key: str = ""
    """Content key of the result; empty if no result has the submission."""
    names: tuple[str, ...] = ()
    """Names of the result; empty if no result has the submission."""
    data_md5: str = ""
    """md5 of the recordings and annotations that it was made from."""

    @property
    def name(self) -> str:
        """First name of the result, or the beginning of the md5."""
        return self.names[0] if self.names else f"submission {self.md5[:8]}"


def find_submission(what: str) -> Submission:
    """Return the submission that `what` refers to.

    Args:
        what: A submission file, a result as for `lookup.find`, or the beginning of a submission's md5.

    Raises:
        UserError: nothing has that name, or several submissions match.
    """
    rows, _ = read_board()
    known = {one.key: one for one in _known(rows)}
    if Path(what).is_file():
        md5 = md5_of(Path(what))
        return next((one for one in known.values() if one.md5 == md5), Submission(md5))
    refs = [
        *board_refs(rows),
        *(ResultRef(name, one.key) for one in known.values() for name in one.names),
        *refs_in_git(),
    ]
    is_name = any(ref.name == what for ref in refs)
    if not is_name and (found := _by_hash(what, known.values())):
        return found
    try:
        meant = choose(what, refs)[-1]
    except UserError as error:
        raise UserError(f"{error}; nor is it a file or a submission's md5") from error
    return replace(known[meant.key], names=tuple(dict.fromkeys([meant.name, *known[meant.key].names])))


def known_submissions() -> list[Submission]:
    """Return submissions of the workspace's own result, of results in git, and of the board, its newest last.

    If MLflow cannot be read, those in git are still returned.
    """
    rows, _ = read_board()
    return _known(rows)


def _known(rows: Sequence[BoardRow]) -> list[Submission]:
    board = [
        Submission(row.submission_md5, row.key, tuple(dict.fromkeys([row.name, *row.names])), row.data_md5)
        for row in rows
    ]
    keys = {one.key for one in board}
    others = {one.key: one for one in (*_in_workspace(), *_in_git()) if one.key not in keys}
    return [*others.values(), *board]


def md5_of(path: Path) -> str:
    """Return the md5 of a file, by which DVC identifies it."""
    with reading(path):
        return hashlib.md5(path.read_bytes()).hexdigest()


def _by_hash(what: str, known: Iterable[Submission]) -> Submission | None:
    if not HASH.fullmatch(what):
        return None
    in_ledger = [Submission(entry.submission_md5, entry.key) for entry in entries_of(Path.cwd())]
    found: dict[str, Submission] = {}
    for one in (*known, *in_ledger):
        if one.key.startswith(what) or one.md5.startswith(what):
            found.setdefault(one.md5, one)
    own = {md5: one for md5, one in found.items() if one.names}
    if len(found := own or found) > 1:
        several = ", ".join(f"{one.name} ({one.key}, {one.md5[:8]})" for one in found.values())
        raise UserError(f"several keys or md5s start with {what}: {several}; give more digits")

    return next(iter(found.values()), Submission(what) if len(what) == MD5_LENGTH else None)


def _in_workspace() -> list[Submission]:
    lock = lock_content(files_in(main_workspace())("dvc.lock"))
    return [_of(lock, nameless(lock.key))] if lock.key else []


def _in_git() -> list[Submission]:
    """Return submissions of every experiment, branch and tag, and of HEAD if its result has no other name."""
    folder = main_workspace()
    found: dict[str, Submission] = {}
    with committed_files(folder) as files:
        locks = Locks(files)
        for ref in named_commits(folder):
            lock = locks.at(ref.commit)
            if lock.key and not (ref.kind == "HEAD" and lock.key in found):
                names = found[lock.key].names if lock.key in found else ()
                found[lock.key] = _of(lock, *names, ref.name)
        locks.save()
    return list(found.values())


def _of(lock: LockFacts, *names: str) -> Submission:
    return Submission(lock.submission_md5, lock.key, names, lock.data_md5)


SAMPLE = "sample_submission.csv"
SKIPPED = "skipped.csv"


def refuse_incomplete(submission: Path, data_md5: str, name: str) -> None:
    """Check the columns and recordings of a submission, since Kaggle accepts only a few submissions a day.

    Args:
        submission: The file.
        data_md5: md5 of the data/source that it was made from, in dvc.lock.
        name: Name of the submission in errors.

    Raises:
        UserError: a recording or column is missing or unexpected, or data/source is not in DVC's cache.
    """
    columns, wanted = _header_and_ids(_of_source(data_md5, SAMPLE), SAMPLE)
    header, rows = table_rows(utf8_text(_of_source(data_md5, SKIPPED)), SKIPPED)
    refuse_missing(SKIPPED, header, ["recording_id", "subset"])
    skipped = [dict(zip(header, cells, strict=True)) for cells in rows.values()]
    wanted |= {row["recording_id"] for row in skipped if row["subset"] == "test"}
    found_columns, found = _header_and_ids(submission, name)
    if found_columns != columns:
        raise UserError(f"{name}: columns {', '.join(found_columns)}; {SAMPLE} has {', '.join(columns)}")
    for ids, what in (
        (wanted - found, f"lacks {len(wanted - found)} of {len(wanted)} test recordings"),
        (found - wanted, f"has {counted(len(found - wanted), 'recording')} outside the test set"),
    ):
        if ids:
            raise UserError(
                f"{name}: {what}, first {min(ids)}; Kaggle would refuse it. "
                "Skipped recordings are listed in data/source/skipped.csv"
            )


def refuse_no_submission(path: Path) -> None:
    """Refuse a file that is not a submission, since its md5 would never match a run.

    Raises:
        UserError: the first column is not `recording_id`.
    """
    with reading(path):
        line = path.read_bytes().partition(b"\n")[0]
    first = line.removeprefix(b"\xef\xbb\xbf").partition(b",")[0].strip(b'"\r')
    if first != b"recording_id":
        raise UserError(
            f"{path.name}: not a submission, the first column is {first[:40].decode('utf-8', 'replace')!r}, "
            "must be recording_id"
        )


def _header_and_ids(path: Path, name: str) -> tuple[list[str], set[str]]:
    header, rows = table_rows(utf8_text(path), name)
    return header, {cells[0] for cells in rows.values()}


def _of_source(data_md5: str, name: str) -> Path:
    return cached_in_folder(cached_file(data_md5, SOURCE), name, SOURCE)
