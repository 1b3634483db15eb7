"""Synchronisation of MLflow with git: one finished run for every result in git.

The database is disposable: it can be written again from git and leaderboard.csv, and only what people typed
into MLflow's pages is lost with it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from callboard.core.console import Stopwatch, counted, progress, warn
from callboard.core.errors import UserError
from callboard.core.workspace import main_workspace
from callboard.results.git import CommittedFiles, committed_files, git
from callboard.results.git_errors import GitError
from callboard.results.leaderboard import ledger_of, with_reported
from callboard.results.mlflow.connection import DELETED, DeletedExperimentError, TrackingError
from callboard.results.mlflow.record import SUBMISSION_MD5, Origin
from callboard.results.mlflow.runs import Runs, open_runs
from callboard.results.mlflow.track import set_names, upsert
from callboard.results.refs import experiments_among, reached_from, results_in_git
from callboard.results.result import Result, ResultRef, read_result
from callboard.results.stored_runs import StoredRun, known_runs

Captioned = Callable[[Result, Origin], tuple[Origin, str]]
"""Function that may name an origin without names, and gives the first paragraph of the run's note."""


@dataclass
class Summary:
    """Numbers of results by what a synchronisation did to their runs."""

    n_results: int = 0
    new: int = 0
    completed: int = 0
    renamed: int = 0
    scored: int = 0
    unchanged: int = 0
    broken: int = 0
    seconds: float = 0.0

    def facts(self) -> list[str]:
        """Return the parts of the summary line."""
        counts = {
            "new": self.new,
            "completed": self.completed,
            "renamed": self.renamed,
            "with other scores": self.scored,
            "unchanged": self.unchanged,
            "broken": self.broken,
        }
        return [
            f"{counted(self.n_results, 'result')} in git",
            *(f"{count} {what}" for what, count in counts.items() if count),
            f"{self.seconds:.1f} s",
        ]


def without_caption(result: Result, origin: Origin) -> tuple[Origin, str]:
    """Return the origin as it is, and no memo."""
    return origin, ""


def sync(caption: Captioned = without_caption) -> Summary:
    """Make MLflow hold exactly one finished run for every result in git, with its current names and scores.

    A run whose result is no longer in git stays; only its scores are updated. An MLflow experiment that was
    deleted is restored.

    Args:
        caption: Source of a run's name where git has none, and of the first paragraph of a new run's note.

    Raises:
        UserError: there is no git repository, the server is down, the database cannot be written, or
            leaderboard.csv is broken.
    """
    watch, summary, folder = Stopwatch(), Summary(), main_workspace()
    git("rev-parse", "--git-dir", folder=folder)  # refuses a folder outside any repository
    ledger = ledger_of(folder)
    try:
        with committed_files(folder) as files, open_runs() as runs:
            results = results_in_git(files, folder, warn)
            known = _restored(runs)
            for key, refs in progress(results.items(), total=len(results), label="sync", unit="results"):
                summary.n_results += 1
                _sync_one(runs, known.get(key), refs, files, ledger, caption, summary)
            for key in known.keys() - results.keys():  # no longer in git, but in the ledger
                _score(runs, known[key], ledger, summary)
    except TrackingError as error:
        raise UserError(f"MLflow cannot be brought up to date: {error}") from error
    summary.seconds = watch.elapsed_s
    return summary


def _restored(runs: Runs) -> dict[str, StoredRun]:
    """Return the runs of results by content key, after restoring our MLflow experiment if it was deleted."""
    try:
        return known_runs()
    except DeletedExperimentError:
        runs.restore()
        warn(f"{DELETED}; it is restored with its runs")
        return known_runs()


def _sync_one(
    runs: Runs,
    known: StoredRun | None,
    refs: list[ResultRef],
    files: CommittedFiles,
    ledger: dict[str, dict[str, float]],
    caption: Captioned,
    summary: Summary,
) -> None:
    if known and known.is_finished:
        names = experiments_among(refs) or _late_names(known, refs, files, caption)
        is_renamed = bool(names) and names != known.names
        if is_renamed:
            set_names(runs, known, names)
            summary.renamed += 1
        is_scored = _score(runs, known, ledger, summary)
        summary.unchanged += not (is_renamed or is_scored)
        return
    try:
        read, origin = read_committed(refs, files)
    except GitError:
        raise
    except UserError as error:
        warn(str(error))
        summary.broken += 1
        return
    upsert(runs, known, with_reported(read, ledger), *caption(read, origin))
    summary.completed += known is not None
    summary.new += known is None


def _late_names(
    known: StoredRun, refs: list[ResultRef], files: CommittedFiles, caption: Captioned
) -> tuple[str, ...]:
    """Return the names that a rebuilt database would give a run without any: its row or tag may be newer.

    Empty if the run has names, or its result cannot be read.
    """
    if known.names:
        return ()
    try:
        origin, _ = caption(*read_committed(refs, files))
    except GitError:
        raise
    except UserError:
        return ()
    return origin.names


def read_committed(refs: list[ResultRef], files: CommittedFiles) -> tuple[Result, Origin]:
    """Read a result from the first of its commits, and where it was reached.

    Raises:
        UserError: a file of the commit is missing or cannot be read.
    """
    first = refs[0]
    baseline, time_ms = reached_from(first, main_workspace())
    read = read_result(files.of(first.commit), str(first))
    names = experiments_among(refs) or _kept_as(refs)
    return replace(read, ref=first), Origin(",".join(names) or None, baseline, time_ms)


def _kept_as(refs: list[ResultRef]) -> tuple[str, ...]:
    """Return the name by `dvc exp branch` or a tag; empty for the checked-out result of `dvc repro`."""
    is_of_repro = refs[0].kind == "commit" or any(ref.kind == "HEAD" for ref in refs)
    return () if is_of_repro else (refs[0].name,)


def _score(runs: Runs, known: StoredRun, ledger: dict[str, dict[str, float]], summary: Summary) -> bool:
    scores = known.lacking(ledger.get(known.tags.get(SUBMISSION_MD5, ""), {}))
    if not (scores and known.is_finished):
        return False
    runs.set_scores(known, scores)
    summary.scored += 1
    return True
