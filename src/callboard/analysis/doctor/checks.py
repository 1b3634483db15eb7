"""`callboard doctor`: find what is missing, inconsistent or about to be lost, each with its remedy."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from callboard.analysis.doctor import results, surroundings
from callboard.analysis.doctor.findings import Finding, State
from callboard.core.console import counted
from callboard.core.workspace import main_workspace
from callboard.results.git import committed_files

Check = Callable[[State], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    surroundings.database,
    results.unreadable_commits,
    results.results_without_run,
    results.runs_without_result,
    results.poisoned_results,
    results.doubled_names,
    results.missing_tables,
    results.folders_of_elsewhere,
    results.leaking_teachers,
    results.ledger_rows,
    surroundings.untracked_code,
    surroundings.variables,
    surroundings.machine,
    surroundings.tracking_address,
    surroundings.stray_databases,
    surroundings.running_dvc,
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
    """Run all checks on the main workspace; git and MLflow are read once."""
    folder = main_workspace()
    with committed_files(folder) as files:
        state = State(folder, files)
        findings = [finding for check in CHECKS for finding in check(state)]
        counts = (
            f"{counted(len(state.results), 'result')} in git, {counted(len(state.known()), 'run')} in MLflow"
        )
    return Diagnosis(findings, [counts, f"device: {surroundings.device_in_use()}"])
