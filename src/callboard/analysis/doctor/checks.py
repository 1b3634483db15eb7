"""`callboard doctor`: find what is missing, inconsistent or about to be lost, each with its remedy."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from callboard.analysis.doctor import files, leftovers, results, surroundings
from callboard.analysis.doctor.findings import Finding, State
from callboard.core.console import counted
from callboard.core.workspace import main_workspace
from callboard.results.git import committed_files
from callboard.results.git_errors import DamagedObjectsError, GitError

Check = Callable[[State], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    files.git_objects,
    leftovers.git_locks,
    leftovers.dvc_locks,
    files.broken_lock,
    files.broken_metrics,
    surroundings.database,
    results.unreadable_commits,
    results.results_without_run,
    results.runs_without_result,
    results.poisoned_results,
    results.doubled_names,
    results.missing_tables,
    files.damaged_files,
    results.folders_of_elsewhere,
    results.leaking_teachers,
    results.ledger_rows,
    surroundings.untracked_code,
    surroundings.variables,
    surroundings.machine,
    surroundings.tracking_address,
    surroundings.stray_databases,
    leftovers.running_dvc,
    leftovers.stashes,
    leftovers.experiments_cut_short,
    leftovers.copies,
    leftovers.idle_queue,
    leftovers.unfinished_files,
    surroundings.dvc_set_up,
)
"""All checks, in the order of the output."""


@dataclass(frozen=True)
class Diagnosis:
    """Findings of one examination of the main workspace."""

    findings: list[Finding]
    facts: list[str]
    """Information that is not a finding."""


def examine() -> Diagnosis:
    """Run all checks on the main workspace; git and MLflow are read once.

    What git refuses is one finding, and the checks that do not need git still run.
    """
    folder = main_workspace()
    findings: list[Finding] = []
    refusals: dict[str, GitError] = {}
    with committed_files(folder) as committed:
        state = State(folder, committed)
        for check in CHECKS:
            try:
                findings += check(state)
            except GitError as error:
                refusals[error.reason] = error
        n_results = 0 if refusals else len(state.results)
        counts = f"{counted(n_results, 'result')} in git, {counted(len(state.known()), 'run')} in MLflow"
    facts = [*([] if refusals else [counts]), f"device: {surroundings.device_in_use()}"]
    return Diagnosis([*_told(state, refusals.values()), *findings], facts)


def _told(state: State, refusals: Iterable[GitError]) -> Iterator[Finding]:
    """Yield what git refused, unless it is about objects that `files.git_objects` lists."""
    for error in refusals:
        if not (isinstance(error, DamagedObjectsError) and state.damaged_objects):
            yield Finding(f"git: {error.reason}", error.remedy, loses_results=True)
