"""A reported score on its way: into the ledger, into git, into MLflow."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from callboard.errors import UserError
from callboard.exclusive import exclusive
from callboard.history import git
from callboard.ledger.entries import LEDGER, Entry, last_words, write_entries
from callboard.runs.stored_runs import NoResultsError, StoredRun, stored_runs
from callboard.tracker.connection import TrackingError
from callboard.tracker.tags import SUBMISSION_MD5
from callboard.tracker.tracking import push_scores
from callboard.words import counted, warn
from callboard.workspace import main_workspace


@contextmanager
def one_keeper() -> Iterator[None]:
    """One process at a time from reading the ledger to committing it: rows of others would be lost.

    Raises:
        UserError: the main workspace cannot be written.
    """
    with exclusive(main_workspace() / ".cache/ledger.lock", UserError):
        yield


def keep(known: Sequence[Entry], entries: Sequence[Entry], md5s: Sequence[str], message: str) -> str:
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
        write_entries(main_workspace() / LEDGER, [*known, *entries])
    return ", ".join(done for done in (_commit(message), _push([*known, *entries], md5s)) if done)


def _commit(message: str) -> str:
    """Commit this one file; what else is changed or staged stays as it is."""
    folder = main_workspace()
    command = f'git commit -m "{message}" -- {LEDGER}'
    if not git("rev-parse", "--git-dir", folder=folder):
        warn("not committed, there is no git repository here; without one `dvc exp apply` may lose the row")
        return ""
    if not git("status", "--porcelain", "--", LEDGER, folder=folder):
        return ""
    git("add", "--intent-to-add", "--", LEDGER, folder=folder)  # git commits no path that it has never seen
    arguments = ["git", "commit", "--quiet", f"--message={message}", "--", LEDGER]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = _reason(done.stderr or done.stdout)
        warn(f"{LEDGER} is written, not committed: {reason}; once mended: {command}")
        return ""
    if not git("symbolic-ref", "--quiet", "HEAD", folder=folder):
        commit = git("rev-parse", "--short", "HEAD", folder=folder).strip()
        warn(f"HEAD is on no branch, which loses the score; once on one again: git cherry-pick {commit}")
    return f"committed {LEDGER}"


def _reason(printed: str) -> str:
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    return next((line for line in lines if line.startswith(("fatal:", "error:"))), "".join(lines[-1:]))


def _push(entries: Sequence[Entry], md5s: Sequence[str]) -> str:
    words = last_words(entries)
    try:
        behind = {run.tags[SUBMISSION_MD5] for run in stored_runs() if _is_behind(run, words, md5s)}
        n_runs = push_scores({md5: words[md5] for md5 in behind}) if behind else 0
    except NoResultsError:
        return ""  # the first result makes the database, and reads the ledger
    except (TrackingError, UserError) as error:
        warn(f"not in MLflow yet: {error}; once it answers: callboard sync")
        return ""
    return f"set in {counted(n_runs, 'MLflow run')}" if n_runs else ""


def _is_behind(run: StoredRun, words: dict[str, dict[str, float]], md5s: Sequence[str]) -> bool:
    md5 = run.tags.get(SUBMISSION_MD5, "")
    return md5 in md5s and run.metrics | words[md5] != run.metrics
