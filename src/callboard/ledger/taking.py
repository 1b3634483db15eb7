"""New scores held against what the ledger says already, and kept where they say more."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from callboard.ledger.entries import Entry, current, entries_of
from callboard.ledger.kaggle_submissions import Sent, match, parse_sent
from callboard.ledger.scorekeeping import keep, one_keeper
from callboard.ledger.submitted import Submitted, known_submissions


@dataclass(frozen=True)
class Taken:
    """What became of a list of submissions."""

    n_new: int
    n_known: int
    """Rows that the ledger had."""
    n_older: int
    """Rows that say nothing but what later ones of the ledger say otherwise."""
    done: str
    """What was done beyond writing."""
    unknown: tuple[Sent, ...]
    """Of no result of ours, but scored."""
    unscored: tuple[Sent, ...]


def note_down(entry: Entry, message: str) -> tuple[bool, str]:
    """Add one row, unless the last word on its submission says all of it.

    Args:
        entry: The row.
        message: Of the commit.

    Returns:
        Whether it is new, and what was done beyond writing.
    """
    with one_keeper():
        known = entries_of(Path.cwd())
        before = [row for row in known if row.submission_md5 == entry.submission_md5]
        is_new = not (before and _says_nothing_new(entry, current(before)[0]))
        return is_new, keep(known, [entry] if is_new else [], [entry.submission_md5], message)


def take(text: str, where: str, folder: Path | None) -> Taken:
    """Add the rows of a list of Kaggle's that the ledger does not have.

    A score that is older than what the ledger says of it is left out: a correction stays the last word.

    Args:
        text: The list, as CSV.
        where: What to call it.
        folder: Where files may lie that it names.

    Raises:
        UserError: it is no such list, or a score is no number from 0 to 1.
    """
    sent, ours = parse_sent(text, where), known_submissions()
    with one_keeper():
        known = entries_of(Path.cwd())
        submissions = [Submitted(entry.submission_md5, entry.key) for entry in known] + ours
        matched = match(sent, submissions, where, folder)
        untold = [entry for entry in matched.entries if not _is_told(entry, known)]
        left = [_without_older(entry, known) for entry in untold]
        new = [entry for entry in left if entry.scores and not _is_told(entry, known)]
        md5s = list(dict.fromkeys(entry.submission_md5 for entry in matched.entries))
        done = keep(known, new, md5s, f"LB of {len(new)} submissions from {where}")
    n_known, n_older = len(matched.entries) - len(untold), len(untold) - len(new)
    return Taken(len(new), n_known, n_older, done, matched.unknown, matched.unscored)


def _says_nothing_new(entry: Entry, last: Entry) -> bool:
    has_scores = last.scores | entry.scores == last.scores
    return has_scores and entry.note in ("", last.note) and entry.key in ("", last.key)


def _without_older(entry: Entry, known: Sequence[Entry]) -> Entry:
    """The row without the scores that a row of a later date tells."""
    later = [row for row in known if row.submission_md5 == entry.submission_md5 and row.date > entry.date]
    is_public, is_private = (any(name in row.scores for row in later) for name in ("lb.public", "lb.private"))
    return replace(
        entry,
        public=None if is_public else entry.public,
        private=None if is_private else entry.private,
    )


def _is_told(entry: Entry, known: Sequence[Entry]) -> bool:
    """Whether the ledger has a row of the list, perhaps corrected since."""
    same = [row for row in known if (row.submission_md5, row.date) == (entry.submission_md5, entry.date)]
    return any(row.scores | entry.scores == row.scores for row in same)
