"""`callboard doctor`: what is missing, inconsistent or about to be lost, each with what to do about it."""

from collections.abc import Callable, Iterator

from callboard.doctor import results, surroundings
from callboard.doctor.findings import Finding, State
from callboard.runs.commits import committed_files
from callboard.workspace import main_workspace

Check = Callable[[State], Iterator[Finding]]

CHECKS: dict[str, Check] = {
    "MLflow's database": results.database,
    "commits": results.unreadable_commits,
    "results without run": results.results_without_run,
    "runs without result": results.runs_without_result,
    "poisoned results": results.poisoned_results,
    "names": results.doubled_names,
    "tables": results.missing_tables,
    "leaderboard": results.ledger_rows,
    "untracked code": surroundings.untracked_code,
    "environment": surroundings.variables,
    "MLflow's address": surroundings.tracking_address,
    "stray databases": surroundings.stray_databases,
    "running commands": surroundings.running_dvc,
    "DVC's set-up": surroundings.dvc_set_up,
}
"""In the order in which they are told."""


def examine() -> list[Finding]:
    """Every finding in the main workspace."""
    with committed_files(main_workspace()) as files:
        state = State(main_workspace(), files)
        return [finding for check in CHECKS.values() for finding in check(state)]


def facts() -> list[str]:
    """What is no finding and worth knowing."""
    with committed_files(main_workspace()) as files:
        state = State(main_workspace(), files)
        counts = f"{len(state.results)} results in git, {len(state.known())} runs in MLflow"
    return [counts, f"device: {surroundings.device_in_use()}"]
