"""leaderboard.csv: scores that people or a leaderboard reported, by the md5 of the submission.

Rows are only added: a correction is a later row, and the last public and the last private score count.
"""

import csv
import heapq
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from callboard.core.csv_rows import CsvRow, csv_rows, row_name, utf8_text
from callboard.core.errors import UserError
from callboard.core.files import locked, written_whole
from callboard.core.workspace import main_workspace
from callboard.results.git import committed_files, git_if_any, text_at
from callboard.results.result import METRIC_DIGITS, Result

LEDGER = "leaderboard.csv"

LEADERBOARD_COLUMNS = ("submission_md5", "key", "public", "private", "date", "note")
WITHOUT_KEY = ("submission_md5", "public", "private", "date", "note")
"""Columns of an older form of the file; a merge of both forms has rows of both."""

FORMS = {len(columns): columns for columns in (LEADERBOARD_COLUMNS, WITHOUT_KEY)}

CONFLICT = ("<<<<<<<", "|||||||", "=======", ">>>>>>>")
"""Beginnings of the lines by which git marks a merge conflict."""


@dataclass(frozen=True)
class LeaderboardEntry:
    """One row of the ledger."""

    submission_md5: str
    key: str = ""
    """Content key of the result that it belongs to; empty if unknown."""
    public: float | None = None
    private: float | None = None
    date: str = ""
    """YYYY-MM-DD."""
    note: str = ""

    @property
    def scores(self) -> dict[str, float]:
        """`lb.public` and `lb.private`, without those that the row leaves empty."""
        found = {"lb.public": self.public, "lb.private": self.private}
        return {name: score for name, score in found.items() if score is not None}


def read_ledger(path: Path) -> dict[str, dict[str, float]]:
    """Read `lb.public` and `lb.private` by the submission's md5; the last of each counts.

    Raises:
        UserError: the file does not exist, or a row cannot be read, see `entries_of`.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found; restore it with `git checkout {path.name}`")
    return last_words(_in_file(path))


def ledger_of(workspace: Path) -> dict[str, dict[str, float]]:
    """Return `lb.public` and `lb.private` by md5 from all rows known to a workspace, see `entries_of`."""
    return last_words(entries_of(workspace))


def entries_of(workspace: Path) -> list[LeaderboardEntry]:
    """Return rows of the main workspace's store, of HEAD and of the work trees, the latest of each last.

    The store keeps the rows that any of them had when they were last read: `dvc exp apply` and checkouts
    restore an older leaderboard.csv, and a commit after that drops newer rows, but not from the store. It
    starts with all rows that the commits below HEAD ever had.

    Raises:
        UserError: a file is not UTF-8 or has a merge conflict, or one of its rows is broken (see `csv_rows`),
            lacks the md5, or has a score that is not a number from 0 to 1 or an invalid date.
    """
    store = _store(main_workspace())
    found = _known(workspace, store)
    if store and found != _in_file(store):
        with suppress(UserError), one_keeper():  # if git's folder is read-only, no checkout can drop rows
            write_entries(store, _known(workspace, store))
    return found


def _known(workspace: Path, store: Path | None) -> list[LeaderboardEntry]:
    main = main_workspace()
    found = _in_file(store) if store and store.exists() else _in_history(main)
    found = merged(found, _readable(text_at("HEAD", LEDGER, main)))
    for folder in [main] if workspace.resolve() == main else [main, workspace]:
        found = merged(found, _in_file(folder / LEDGER))
    return found


@contextmanager
def one_keeper() -> Iterator[None]:
    """Hold a lock from reading the ledger to committing it, so that no other process's rows are lost.

    Raises:
        UserError: the main workspace cannot be written.
    """
    main = main_workspace()
    with locked((_store(main) or main / ".cache/ledger").with_suffix(".lock"), UserError):
        yield


def keep_entries(entries: Sequence[LeaderboardEntry]) -> None:
    """Write all rows of the ledger to the store, then to the main workspace's leaderboard.csv.

    Raises:
        UserError: one of the files cannot be written.
    """
    main = main_workspace()
    if store := _store(main):
        write_entries(store, entries)
    write_entries(main / LEDGER, entries)


def merged(older: Sequence[LeaderboardEntry], newer: Sequence[LeaderboardEntry]) -> list[LeaderboardEntry]:
    """Merge the rows of both, keeping the order of each; those after the common start are sorted by date."""
    n_common = 0
    while n_common < min(len(older), len(newer)) and older[n_common] == newer[n_common]:
        n_common += 1
    tail, extra = older[n_common:], _beyond(older[n_common:], newer[n_common:])
    return [*older[:n_common], *heapq.merge(tail, extra, key=lambda entry: entry.date)]


def last_words(entries: Iterable[LeaderboardEntry]) -> dict[str, dict[str, float]]:
    """Return `lb.public` and `lb.private` by md5; the last of each counts."""
    scores: dict[str, dict[str, float]] = {}
    for entry in entries:
        scores.setdefault(entry.submission_md5, {}).update(entry.scores)
    return scores


def with_reported(result: Result, ledger: dict[str, dict[str, float]]) -> Result:
    """Return the result with the ledger's scores of its submission, which override the result's own."""
    return replace(result, reported=ledger.get(result.submission_md5, {}))


def current(entries: Iterable[LeaderboardEntry]) -> list[LeaderboardEntry]:
    """Return one row per submission, with the last value of each column, in the order of the last rows."""
    last: dict[str, LeaderboardEntry] = {}
    for entry in entries:
        before = last.pop(entry.submission_md5, entry)
        last[entry.submission_md5] = LeaderboardEntry(
            entry.submission_md5,
            entry.key or before.key,
            before.public if entry.public is None else entry.public,
            before.private if entry.private is None else entry.private,
            entry.date or before.date,
            entry.note or before.note,
        )
    return list(last.values())


def write_entries(path: Path, entries: Iterable[LeaderboardEntry]) -> None:
    """Write the file, completely or not at all.

    Raises:
        UserError: a row would not be read again as it is, see `entries_of`, or the file cannot be written.
    """
    rows = list(entries)
    with (
        written_whole(path, str(os.getpid())) as unfinished,
        unfinished.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(LEADERBOARD_COLUMNS)
        for entry in rows:
            cells = [getattr(entry, column) for column in LEADERBOARD_COLUMNS]
            writer.writerow(["" if cell is None else cell for cell in cells])
        file.flush()
        if _in_text(utf8_text(unfinished), path.name) != rows:
            raise UserError(f"{path}: its rows would not be read again as written; nothing was written")


def checked_score(text: str, where: str) -> float:
    """Parse a score that a person or Kaggle wrote.

    Raises:
        UserError: it is not a number from 0 to 1.
    """
    try:
        score = round(float(text), METRIC_DIGITS) + 0.0  # no -0.0
    except ValueError:
        raise UserError(f"{where} {text!r} is not a number") from None
    if not 0 <= score <= 1:
        hint = f"; {score:g} % is {score / 100:g}" if 1 < score <= 100 else ""
        raise UserError(f"{where} {text} must be between 0 and 1{hint}")
    return score


def _in_file(path: Path) -> list[LeaderboardEntry]:
    return _in_text(utf8_text(path), path.name) if path.is_file() else []


def _in_text(text: str, name: str) -> list[LeaderboardEntry]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.startswith(CONFLICT):
            raise UserError(
                f"merge conflict in {name}, line {number}; keep the rows of both sides, without markers"
            )
    return [_entry(row, name) for row in _rows(text)]


def _store(folder: Path) -> Path | None:
    """Return the path of the store in git's common directory, which no checkout touches; None outside git."""
    found = git_if_any("rev-parse", "--git-common-dir", "--show-prefix", folder=folder).splitlines()
    return (folder / found[0] / "callboard" / "".join(found[1:]) / LEDGER).resolve() if found else None


def _in_history(folder: Path) -> list[LeaderboardEntry]:
    """Return rows in the order in which commits below HEAD added them, including those dropped later."""
    history = ("log", "--reverse", "--date-order", "--format=%H", "--", LEDGER)
    found: list[LeaderboardEntry] = []
    if commits := git_if_any(*history, folder=folder).split():
        with committed_files(folder) as files:
            for commit in commits:
                found += _beyond(found, _readable(files.of(commit)(LEDGER)))
    return found


def _beyond(known: Iterable[LeaderboardEntry], rows: Iterable[LeaderboardEntry]) -> list[LeaderboardEntry]:
    """Return the rows that `known` lacks, or has fewer times."""
    left, beyond = Counter(known), []
    for entry in rows:
        if left[entry]:
            left[entry] -= 1
        else:
            beyond.append(entry)
    return beyond


def _readable(text: str) -> list[LeaderboardEntry]:
    """Return the rows of a committed file, skipping unreadable ones: a commit cannot be corrected."""
    entries = []
    for row in _rows(text):
        try:
            entries.append(_entry(row, LEDGER))
        except UserError:
            continue
    return entries


def _rows(text: str) -> Iterator[CsvRow]:
    for row in csv_rows(text, width=min(FORMS)):
        if tuple(row.cells) not in FORMS.values():
            yield row


def _entry(found: CsvRow, name: str) -> LeaderboardEntry:
    where, cells = row_name(name, found.line), found.cells
    if found.problem:
        raise UserError(f"{where}: {found.problem}")
    if len(cells) not in FORMS:
        raise UserError(
            f"{where}: {len(cells)} cells, must be {len(LEADERBOARD_COLUMNS)}: "
            f"{', '.join(LEADERBOARD_COLUMNS)}"
        )
    row = dict(zip(FORMS[len(cells)], cells, strict=True))
    if not (md5 := row["submission_md5"]):
        raise UserError(f"{where}: submission_md5 is empty")
    public, private = (
        checked_score(row[name], f"{where}: {name}") if row[name] else None for name in ("public", "private")
    )
    _refuse_no_date(row["date"], where)
    return LeaderboardEntry(md5, row.get("key", ""), public, private, row["date"], row["note"])


def _refuse_no_date(text: str, where: str) -> None:
    try:
        is_date = not text or date.fromisoformat(text).isoformat() == text
    except ValueError:
        is_date = False
    if not is_date:
        raise UserError(f"{where}: date {text!r} is invalid, must be YYYY-MM-DD")
