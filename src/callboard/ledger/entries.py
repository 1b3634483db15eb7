"""leaderboard.csv: scores that people or a leaderboard reported, by the md5 of the submission.

Rows are only ever added: a correction is a later row, and the last word on each of public and private counts.
"""

import csv
import heapq
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from callboard.errors import UserError
from callboard.history import git, text_at
from callboard.outputs import written_whole
from callboard.results import N_DIGITS, Result
from callboard.workspace import main_workspace

LEDGER = "leaderboard.csv"

COLUMNS = ("submission_md5", "key", "public", "private", "date", "note")
WITHOUT_KEY = ("submission_md5", "public", "private", "date", "note")
"""As the file was once; a merge of both kinds holds rows of both."""

FORMS = {len(columns): columns for columns in (COLUMNS, WITHOUT_KEY)}

APPLY_STASH = "refs/exps/apply/stash"
"""Where `dvc exp apply` leaves the files that it overwrote, the last time only."""


@dataclass(frozen=True)
class Entry:
    """One row."""

    submission_md5: str
    key: str = ""
    """Content key of the result that it belongs to; empty where that is not known."""
    public: float | None = None
    private: float | None = None
    date: str = ""
    """YYYY-MM-DD."""
    note: str = ""

    @property
    def scores(self) -> dict[str, float]:
        """`lb.public` and `lb.private`, as far as the row tells them."""
        told = {"lb.public": self.public, "lb.private": self.private}
        return {name: score for name, score in told.items() if score is not None}


def read_ledger(path: Path) -> dict[str, dict[str, float]]:
    """`lb.public` and `lb.private` by the submission's md5; the last word on each counts.

    Raises:
        UserError: no such file, a row without md5, or a score that is no number from 0 to 1.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found; restore it with `git checkout {path.name}`")
    return last_words(_in_file(path))


def ledger_of(workspace: Path) -> dict[str, dict[str, float]]:
    """The same of all that a workspace knows, see `entries_of`."""
    return last_words(entries_of(workspace))


def entries_of(workspace: Path) -> list[Entry]:
    """Rows of the work tree, of all that was ever committed below HEAD, and of the main workspace.

    `dvc exp apply` puts the file back to what it was when the experiment started, and a commit after it
    drops the rows since then; here they are still found.

    Raises:
        UserError: a row of a file lacks its md5, or has a score that is no number from 0 to 1.
    """
    main = main_workspace()
    folders = [workspace] if workspace.resolve() == main else [workspace, main]
    found: list[Entry] = []
    for source in (
        *(_committed(folder) for folder in folders),
        _readable(text_at(APPLY_STASH, LEDGER, main)),
        *(_in_file(folder / LEDGER) for folder in reversed(folders)),
    ):
        found = merged(found, source)
    return found


def merged(older: Sequence[Entry], newer: Sequence[Entry]) -> list[Entry]:
    """The rows of both in an order that keeps that of each; where both went on alone, by date."""
    n_common = 0
    while n_common < min(len(older), len(newer)) and older[n_common] == newer[n_common]:
        n_common += 1
    tail, extra = older[n_common:], list(newer[n_common:])
    for entry in tail:
        if entry in extra:
            extra.remove(entry)
    return [*older[:n_common], *heapq.merge(tail, extra, key=lambda entry: entry.date)]


def last_words(entries: Iterable[Entry]) -> dict[str, dict[str, float]]:
    """`lb.public` and `lb.private` by md5."""
    scores: dict[str, dict[str, float]] = {}
    for entry in entries:
        scores.setdefault(entry.submission_md5, {}).update(entry.scores)
    return scores


def with_reported(result: Result, ledger: dict[str, dict[str, float]]) -> Result:
    """The result with what the ledger says of its submission; that counts more than what it said itself."""
    return replace(result, lb=result.lb | ledger.get(result.submission_md5, {}))


def write_entries(path: Path, entries: Iterable[Entry]) -> None:
    """Write the file anew, whole or not at all."""
    with written_whole(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for entry in entries:
            cells = [getattr(entry, column) for column in COLUMNS]
            writer.writerow(["" if cell is None else cell for cell in cells])


def checked_score(text: str, where: str) -> float:
    """A score as people write it.

    Raises:
        UserError: it is no number from 0 to 1.
    """
    try:
        score = round(float(text), N_DIGITS)
    except ValueError:
        raise UserError(f"{where} {text!r} is not a number") from None
    if not 0 <= score <= 1:
        hint = f"; {score:g} % is {score / 100:g}" if 1 < score <= 100 else ""
        raise UserError(f"{where} {text} must lie between 0 and 1{hint}")
    return score


def _in_file(path: Path) -> list[Entry]:
    text = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
    return [_entry(cells, f"{path.name} row {number}") for number, cells in _rows(text)]


def _committed(folder: Path) -> list[Entry]:
    """Rows in the order in which the commits below HEAD added them."""
    form = ("--reverse", "--date-order", "--format=", "--patch", "--unified=0", "--no-color", "--no-ext-diff")
    lines = git("log", *form, "--", LEDGER, folder=folder).splitlines()
    return _readable("\n".join(line[1:] for line in lines if line[:1] == "+" and line[:4] != "+++ "))


def _readable(text: str) -> list[Entry]:
    """Rows without those that cannot be read: what was once committed cannot be mended."""
    entries = []
    for _, cells in _rows(text):
        try:
            entries.append(_entry(cells, LEDGER))
        except UserError:
            continue
    return entries


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, cells in enumerate(csv.reader(io.StringIO(text)), start=1):
        if cells and tuple(cells) not in FORMS.values():
            yield number, cells


def _entry(cells: list[str], where: str) -> Entry:
    if len(cells) not in FORMS:
        raise UserError(f"{where}: {len(cells)} cells, must be {len(COLUMNS)}: {', '.join(COLUMNS)}")
    row = dict(zip(FORMS[len(cells)], cells, strict=True))
    if not (md5 := row["submission_md5"]):
        raise UserError(f"{where}: submission_md5 is empty")
    public, private = (
        checked_score(row[name], f"{where}: {name}") if row[name] else None for name in ("public", "private")
    )
    return Entry(md5, row.get("key", ""), public, private, row["date"], row["note"])
