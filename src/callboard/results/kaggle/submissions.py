"""Kaggle's list of submissions, from `kaggle competitions submissions --csv` to rows of the ledger."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from callboard.core.csv_rows import refuse_missing, refuse_rows, row_name, table_rows
from callboard.core.errors import UserError
from callboard.results.kaggle.dates import read_dates
from callboard.results.leaderboard import LeaderboardEntry, checked_score
from callboard.results.submissions import Submission, md5_of

KAGGLE_COLUMNS = ("fileName", "date", "description", "status", "publicScore", "privateScore")

KEY_PATTERN = re.compile(r"(?<![0-9a-f])[0-9a-f]{16}(?![0-9a-f])")
MD5 = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")

NONE_YET = "No submissions found"
"""Text that the client prints instead of an empty list."""

DONE = "complete"
"""Status of a scored submission; others are pending and error."""


@dataclass(frozen=True)
class Sent:
    """One row of the list."""

    file_name: str
    date: str
    """YYYY-MM-DD HH:MM:SS."""
    description: str
    status: str
    """complete, pending or error."""
    public: str
    private: str

    @property
    def is_scored(self) -> bool:
        """Whether it has a score to record."""
        return self.status == DONE and bool(self.public or self.private)

    def __str__(self) -> str:
        words = f", {self.description!r}" if self.description else ""
        return f"{self.file_name} of {self.date[:10]}{words}"


@dataclass(frozen=True)
class Matched:
    """The submissions of a list, by whether their result is known."""

    entries: tuple[LeaderboardEntry, ...]
    """Ledger rows of scored submissions, oldest first."""
    unknown: tuple[Sent, ...]
    """Scored submissions that match no known result."""
    unscored: tuple[Sent, ...]


def message_of(submitted: Submission, own: str | None = None) -> str:
    """Return the message to send a submission with, by which `match` finds it again.

    Args:
        submitted: The submission.
        own: The user's words after the key, instead of the submission's name.
    """
    return f"callboard {submitted.key} {own or submitted.name}".strip()


def parse_sent(text: str, where: str) -> list[Sent]:
    """Return the rows of a list, oldest first; text that the client prints above the header is skipped.

    Raises:
        UserError: the list has no header with Kaggle's columns, a row is broken (see `csv_rows`), or its date
            has no single meaning.
    """
    lines = text.lstrip("\ufeff").split("\n")
    if NONE_YET in text.strip().rpartition("\n")[2]:
        return []
    n_above = next(
        (n for n, line in enumerate(lines) if set(KAGGLE_COLUMNS) <= set(line.replace('"', "").split(","))),
        None,
    )
    if n_above is None:
        raise UserError(
            f"{where}: no header with the columns {', '.join(KAGGLE_COLUMNS)}; "
            f"`kaggle competitions submissions --csv` prints one"
        )
    header, rows_by_line = table_rows("\n".join(lines[n_above:]), where, n_above=n_above)
    refuse_missing(where, header, KAGGLE_COLUMNS)
    rows = [dict(zip(header, cells, strict=True)) for cells in rows_by_line.values()]
    dates = read_dates([row["date"] for row in rows])
    refuse_rows(
        (
            row_name(where, line),
            f"date {row['date']!r} has no single meaning; write it as YYYY-MM-DD",
        )
        for line, row, date in zip(rows_by_line, rows, dates, strict=True)
        if row["date"].strip() and date is None
    )
    sent = [
        Sent(
            row["fileName"],
            str(date or ""),
            row["description"],
            row["status"].rpartition(".")[2].lower(),  # newer clients write SubmissionStatus.COMPLETE
            _score_text(row["publicScore"]),
            _score_text(row["privateScore"]),
        )
        for row, date in zip(rows, dates, strict=True)
    ]
    return sorted(sent, key=lambda one: one.date)


def match(
    rows: Sequence[Sent], known: Sequence[Submission], where: str, folder: Path | None = None
) -> Matched:
    """Sort the submissions of a list by whether they are scored and can be identified.

    They are identified by the content key of a result, or by an md5, in the description, or by the known md5
    of a file of the same name in `folder`.

    Raises:
        UserError: a score is not a number from 0 to 1.
    """
    by_md5 = {one.md5: one for one in known}
    by_key = {one.key: one for one in known if one.names}
    entries: list[LeaderboardEntry] = []
    unknown = []
    for row in rows:
        submitted = _described(row.description, by_key, by_md5) or _beside(row, folder, by_md5)
        if row.is_scored and submitted is None:
            unknown.append(row)
        elif row.is_scored and submitted:
            entries.append(_entry(row, submitted, where))
    return Matched(tuple(entries), tuple(unknown), tuple(row for row in rows if not row.is_scored))


def _described(text: str, by_key: dict[str, Submission], by_md5: dict[str, Submission]) -> Submission | None:
    key, md5 = KEY_PATTERN.search(text), MD5.search(text)
    if md5:
        return by_md5.get(md5[0]) or Submission(md5[0], key[0] if key else "")
    return by_key.get(key[0]) if key else None


def _beside(row: Sent, folder: Path | None, by_md5: dict[str, Submission]) -> Submission | None:
    path = folder / Path(row.file_name).name if folder and row.file_name else None
    return by_md5.get(md5_of(path)) if path and path.is_file() else None


def _entry(row: Sent, submitted: Submission, where: str) -> LeaderboardEntry:
    public, private = (
        checked_score(text, f"{where}: {row}: {name}") if text else None
        for name, text in (("publicScore", row.public), ("privateScore", row.private))
    )
    note = " ".join(f"Kaggle: {row.file_name}".split())
    return LeaderboardEntry(submitted.md5, submitted.key, public, private, row.date[:10], note)


def _score_text(text: str) -> str:
    return "" if text in ("None", "null") else text.strip()
