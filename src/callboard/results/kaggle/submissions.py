"""Kaggle's list of submissions, as `kaggle competitions submissions --csv` prints it, into the ledger."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from callboard.core.errors import UserError
from callboard.results.leaderboard import LeaderboardEntry, checked_score
from callboard.results.submissions import Submission, md5_of

KAGGLE_COLUMNS = ("fileName", "date", "description", "status", "publicScore", "privateScore")

KEY_PATTERN = re.compile(r"(?<![0-9a-f])[0-9a-f]{16}(?![0-9a-f])")
MD5 = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")

NONE_YET = "No submissions found"
"""What the client prints instead of a list."""

DONE = "complete"
"""Status of a submission that was scored; others are pending and error."""


@dataclass(frozen=True)
class Sent:
    """One row of the list."""

    file_name: str
    date: str
    description: str
    status: str
    """complete, pending or error."""
    public: str
    private: str

    @property
    def is_scored(self) -> bool:
        """Whether there is anything to note down."""
        return self.status == DONE and bool(self.public or self.private)

    def __str__(self) -> str:
        words = f", {self.description!r}" if self.description else ""
        return f"{self.file_name} of {self.date[:10]}{words}"


@dataclass(frozen=True)
class Matched:
    """What a list says that concerns us."""

    entries: tuple[LeaderboardEntry, ...]
    """Of scored submissions, oldest first."""
    unknown: tuple[Sent, ...]
    """Of no result of ours, but scored."""
    unscored: tuple[Sent, ...]


def message_of(submitted: Submission, own: str | None = None) -> str:
    """The message to send a submission with, by which `match` finds it again.

    Args:
        submitted: What is sent.
        own: The person's words, after the key.
    """
    return f"callboard {submitted.key} {own or submitted.name}".strip()


def parse_sent(text: str, where: str) -> list[Sent]:
    """The rows of a list, oldest first; what the client prints above the header is passed over.

    Raises:
        UserError: no header with the columns of Kaggle.
    """
    lines = text.lstrip("\ufeff").splitlines(keepends=True)
    if NONE_YET in lines[-1:]:
        return []
    while lines and not set(KAGGLE_COLUMNS) <= set(next(csv.reader(lines[:1]), [])):
        lines = lines[1:]
    if not lines:
        raise UserError(
            f"{where}: no columns {', '.join(KAGGLE_COLUMNS)}; "
            f"`kaggle competitions submissions --csv` prints them"
        )
    rows = [
        Sent(
            row["fileName"],
            row["date"],
            row["description"] or "",
            (row["status"] or "").rpartition(".")[2].lower(),  # newer clients write SubmissionStatus.COMPLETE
            _score_text(row["publicScore"]),
            _score_text(row["privateScore"]),
        )
        for row in csv.DictReader(io.StringIO("".join(lines)))
    ]
    return sorted(rows, key=lambda row: row.date)


def match(
    rows: Sequence[Sent], known: Sequence[Submission], where: str, folder: Path | None = None
) -> Matched:
    """Ledger rows of the submissions that are ours.

    One is ours by the content key of a result, or by an md5, in its description, or because a file of its
    name lies in `folder` and its md5 is known.

    Raises:
        UserError: a score is no number from 0 to 1.
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
    return LeaderboardEntry(
        submitted.md5, submitted.key, public, private, row.date[:10], f"Kaggle: {row.file_name}"
    )


def _score_text(text: str | None) -> str:
    return "" if text in (None, "None", "null") else str(text).strip()
