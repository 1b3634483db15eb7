"""A reported score on its way: into the ledger, into git, into MLflow; known ones are not added again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from callboard.core.console import counted, warn
from callboard.core.errors import UserError
from callboard.core.workspace import main_workspace
from callboard.results.git import GitError, git, git_if_any
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


def keep(
    known: Sequence[LeaderboardEntry], entries: Sequence[LeaderboardEntry], md5s: Sequence[str], message: str
) -> str:
    """Add rows to the ledger and commit it; then tell MLflow the last word on each submission.

    To be called, as what finds out which rows are new, within `one_keeper`.
    What fails on the way costs a warning: the rows stay, and the same command again mends the rest.

    Args:
        known: Rows of the ledger.
        entries: New rows; none where the ledger has them already.
        md5s: Of the submissions concerned.
        message: Of the commit.

    Returns:
        What was done beyond writing, for the summary line.

    Raises:
        UserError: a new row has no md5, as of a result without a submission.
    """
    if strange := [entry for entry in entries if not entry.submission_md5]:
        raise UserError(f"{LEDGER}: result {strange[0].key} has no submission; nothing was written")
    if entries:
        keep_entries([*known, *entries])
    return ", ".join(done for done in (_commit(message), _push([*known, *entries], md5s)) if done)


def _commit(message: str) -> str:
    """Commit this one file; what else is changed or staged stays as it is."""
    folder = main_workspace()
    if not git_if_any("rev-parse", "--git-dir", folder=folder):
        warn("not committed, there is no git repository here")
        return ""
    try:
        if not git("status", "--porcelain", "--", LEDGER, folder=folder):
            return ""
        git("add", "--intent-to-add", "--", LEDGER, folder=folder)  # git commits no path it has never seen
        git("commit", "--quiet", f"--message={message}", "--", LEDGER, folder=folder)
    except GitError as error:
        command = f'git commit -m "{message}" -- {LEDGER}'
        warn(f"{LEDGER} is written, not committed: {error}; once mended: {command}")
        return ""
    if not git_if_any("symbolic-ref", "--quiet", "HEAD", folder=folder):
        commit = git("rev-parse", "--short", "HEAD", folder=folder).strip()
        warn(
            f"HEAD is on no branch, and a checkout leaves its commit behind; once on a branch again: "
            f"git cherry-pick {commit}"
        )
    return f"committed {LEDGER}"


def _push(entries: Sequence[LeaderboardEntry], md5s: Sequence[str]) -> str:
    words = last_words(entries)
    try:
        n_runs = push_scores({md5: words[md5] for md5 in md5s})
    except TrackingError as error:
        warn(f"not in MLflow yet: {error}; once it answers: callboard sync")
        return ""
    return f"set in {counted(n_runs, 'MLflow run')}" if n_runs else ""


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


def note_down(entry: LeaderboardEntry, message: str) -> tuple[bool, str]:
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
        submissions = [Submission(entry.submission_md5, entry.key) for entry in known] + ours
        matched = match(sent, submissions, where, folder)
        untold = [entry for entry in matched.entries if not _is_told(entry, known)]
        left = [_without_older(entry, known) for entry in untold]
        new = [entry for entry in left if entry.scores and not _is_told(entry, known)]
        md5s = list(dict.fromkeys(entry.submission_md5 for entry in matched.entries))
        done = keep(known, new, md5s, f"LB of {len(new)} submissions from {where}")
    n_known, n_older = len(matched.entries) - len(untold), len(untold) - len(new)
    return Taken(len(new), n_known, n_older, done, matched.unknown, matched.unscored)


def _says_nothing_new(entry: LeaderboardEntry, last: LeaderboardEntry) -> bool:
    has_scores = last.scores | entry.scores == last.scores
    return has_scores and entry.note in ("", last.note) and entry.key in ("", last.key)


def _without_older(entry: LeaderboardEntry, known: Sequence[LeaderboardEntry]) -> LeaderboardEntry:
    """The row without the scores that a row of a later date tells."""
    later = [row for row in known if row.submission_md5 == entry.submission_md5 and row.date > entry.date]
    is_public, is_private = (any(name in row.scores for row in later) for name in ("lb.public", "lb.private"))
    return replace(
        entry,
        public=None if is_public else entry.public,
        private=None if is_private else entry.private,
    )


def _is_told(entry: LeaderboardEntry, known: Sequence[LeaderboardEntry]) -> bool:
    """Whether the ledger has a row of the list, perhaps corrected since."""
    same = [row for row in known if (row.submission_md5, row.date) == (entry.submission_md5, entry.date)]
    return any(row.scores | entry.scores == row.scores for row in same)
