"""Recording of reported scores in the ledger, in git and in MLflow; known ones are not added again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from callboard.core.console import counted, warn
from callboard.core.errors import UserError
from callboard.core.workspace import main_workspace
from callboard.results.git import git, git_if_any
from callboard.results.git_errors import GitError
from callboard.results.kaggle.submissions import Sent, match, parse_sent
from callboard.results.leaderboard import (
    LEDGER,
    LeaderboardEntry,
    current,
    entries_of,
    keep_entries,
    last_words,
    one_keeper,
)
from callboard.results.mlflow.connection import TrackingError
from callboard.results.mlflow.track import push_scores
from callboard.results.submissions import Submission, known_submissions


@dataclass(frozen=True)
class Kept:
    """Outcome of keeping rows, beyond their lines in the ledger."""

    done: str
    """For the summary line."""
    failure: UserError | None
    """Why they are not committed, to be raised after the summary; None if they are."""


def keep(
    known: Sequence[LeaderboardEntry], entries: Sequence[LeaderboardEntry], md5s: Sequence[str], message: str
) -> Kept:
    """Add rows to the ledger and commit it; then set the last scores of each submission in MLflow.

    To be called within `one_keeper`, together with the code that finds out which rows are new.
    Failures after writing lose nothing: the rows stay, and the next call completes the rest.

    Args:
        known: Rows of the ledger.
        entries: New rows; empty if the ledger has them already.
        md5s: md5s of the submissions concerned.
        message: Message of the commit.

    Raises:
        UserError: a new row has no md5, because its result has no submission.
    """
    if strange := [entry for entry in entries if not entry.submission_md5]:
        raise UserError(f"{LEDGER}: result {strange[0].key} has no submission; nothing was written")
    if entries:
        keep_entries([*known, *entries])
    failure, committed = None, ""
    try:
        committed = _commit(message)
    except GitError as error:
        command = f'git commit -m "{message}" -- {LEDGER}'
        failure = UserError(
            f"{LEDGER} is written but not committed: {error}; once that is fixed, run {command}, or leave it "
            "to the next command that records a score"
        )
    pushed = _push([*known, *entries], md5s)
    return Kept(", ".join(done for done in (committed, pushed) if done), failure)


def _commit(message: str) -> str:
    """Commit this one file; other changed or staged files stay as they are.

    Raises:
        GitError: git cannot.
    """
    folder = main_workspace()
    if not git_if_any("rev-parse", "--git-dir", folder=folder):
        warn(f"{LEDGER} is not committed: {folder} is not in a git repository")
        return ""
    if not git("status", "--porcelain", "--", LEDGER, folder=folder):
        return ""
    git("add", "--intent-to-add", "--", LEDGER, folder=folder)  # git commits only known paths
    git("commit", "--quiet", f"--message={message}", "--", LEDGER, folder=folder)
    if not git_if_any("symbolic-ref", "--quiet", "HEAD", folder=folder):
        commit = git("rev-parse", "--short", "HEAD", folder=folder).strip()
        warn(
            f"HEAD is detached, so a checkout would lose the commit; once on a branch again, run "
            f"git cherry-pick {commit}"
        )
    return f"committed {LEDGER}"


def _push(entries: Sequence[LeaderboardEntry], md5s: Sequence[str]) -> str:
    words = last_words(entries)
    try:
        n_runs = push_scores({md5: words[md5] for md5 in md5s})
    except TrackingError as error:
        warn(f"not in MLflow yet: {error}; once it answers, run callboard sync")
        return ""
    return f"set in {counted(n_runs, 'MLflow run')}" if n_runs else ""


@dataclass(frozen=True)
class Taken:
    """Outcome of recording a list of submissions."""

    n_new: int
    n_known: int
    """Rows that the ledger already had."""
    n_older: int
    """Rows whose scores are all superseded by later rows of the ledger."""
    kept: Kept
    unknown: tuple[Sent, ...]
    """Scored submissions that match no known result."""
    unscored: tuple[Sent, ...]


def note_down(entry: LeaderboardEntry, message: str) -> tuple[bool, Kept]:
    """Add one row, unless the last values of its submission already include it.

    Args:
        entry: The row.
        message: Message of the commit.

    Returns:
        Whether it is new, and what was done besides writing.
    """
    with one_keeper():
        known = entries_of(Path.cwd())
        before = [row for row in known if row.submission_md5 == entry.submission_md5]
        is_new = not (before and _says_nothing_new(entry, current(before)[0]))
        return is_new, keep(known, [entry] if is_new else [], [entry.submission_md5], message)


def take(text: str, where: str, folder: Path | None) -> Taken:
    """Add the rows of Kaggle's list of submissions that the ledger does not have.

    A score older than the ledger's score of the same submission is left out, so that a correction stays last.

    Args:
        text: The list, as CSV.
        where: Name of the list in messages.
        folder: Folder to search for the files that it names.

    Raises:
        UserError: the text is not Kaggle's list, or a score is not a number from 0 to 1.
    """
    sent, ours = parse_sent(text, where), known_submissions()
    with one_keeper():
        known = entries_of(Path.cwd())
        submissions = [Submission(entry.submission_md5, entry.key) for entry in known] + ours
        matched = match(sent, submissions, where, folder)
        absent = [entry for entry in matched.entries if not _is_recorded(entry, known)]
        left = [_without_older(entry, known) for entry in absent]
        new = [entry for entry in left if entry.scores and not _is_recorded(entry, known)]
        md5s = list(dict.fromkeys(entry.submission_md5 for entry in matched.entries))
        kept = keep(known, new, md5s, f"LB of {len(new)} submissions from {where}")
    n_known, n_older = len(matched.entries) - len(absent), len(absent) - len(new)
    return Taken(len(new), n_known, n_older, kept, matched.unknown, matched.unscored)


def _says_nothing_new(entry: LeaderboardEntry, last: LeaderboardEntry) -> bool:
    has_scores = last.scores | entry.scores == last.scores
    return has_scores and entry.note in ("", last.note) and entry.key in ("", last.key)


def _without_older(entry: LeaderboardEntry, known: Sequence[LeaderboardEntry]) -> LeaderboardEntry:
    """Return the row without the scores that a row of a later date has."""
    later = [row for row in known if row.submission_md5 == entry.submission_md5 and row.date > entry.date]
    is_public, is_private = (any(name in row.scores for row in later) for name in ("lb.public", "lb.private"))
    return replace(
        entry,
        public=None if is_public else entry.public,
        private=None if is_private else entry.private,
    )


def _is_recorded(entry: LeaderboardEntry, known: Sequence[LeaderboardEntry]) -> bool:
    """Return whether the ledger has a row with these scores, submission and date."""
    same = [row for row in known if (row.submission_md5, row.date) == (entry.submission_md5, entry.date)]
    return any(row.scores | entry.scores == row.scores for row in same)
