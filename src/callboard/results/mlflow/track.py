"""Recording of results in MLflow: one run per content key, however often and in whatever way it is reached.

No other stage writes to MLflow. Training can be restored from DVC's run-cache without running, or run twice
after a crash, so a run logged from inside it would be missing or duplicated.
"""

import os
from collections.abc import Mapping

from callboard.results.git import git_if_any
from callboard.results.mlflow.record import (
    NAMELESS,
    NAMES,
    SUBMISSION_MD5,
    Origin,
    joined_names,
    record_of,
)
from callboard.results.mlflow.runs import Runs, open_runs
from callboard.results.result import Result
from callboard.results.stored_runs import StoredRun, known_result, known_runs


def origin_of_this_process() -> Origin:
    """Return the origin that DVC passes to its stages; the commit comes from git if DVC does not set it."""
    commit = os.environ.get("DVC_EXP_BASELINE_REV") or git_if_any("rev-parse", "HEAD").strip()
    return Origin(os.environ.get("DVC_EXP_NAME"), commit)


def record(result: Result, origin: Origin, memo: str = "") -> str:
    """Make sure that MLflow holds the result, its leaderboard scores and its experiment's name.

    Args:
        result: The result, with its curves.
        origin: Where it was reached.
        memo: First paragraph of its note in MLflow.

    Returns:
        What was done, for the summary line.

    Raises:
        TrackingError: the server is down, or the database cannot be written.
    """
    known = known_result(result.key)
    if known and set(origin.names) <= set(known.names) and not known.lacking(result.lb):
        return "already in MLflow"
    with open_runs() as runs:
        return upsert(runs, known_runs(result.key).get(result.key), result, origin, memo)


def upsert(runs: Runs, known: StoredRun | None, result: Result, origin: Origin, memo: str = "") -> str:
    """Write a result that MLflow lacks, complete a half-written one, or add what a finished one lacks.

    Returns:
        What was done, for the summary line.
    """
    if known is None:
        written = record_of(result, origin, memo)
        runs.write(written)
        return f"new run {written.name} in MLflow"
    done = []
    if not known.is_finished:
        runs.write(record_of(result, origin, memo, known.start_ms), known)
        done.append("completed")
    elif scores := known.lacking(result.lb):
        runs.set_scores(known, scores)
        done += [f"{key} {value}" for key, value in scores.items()]
    if added := tuple(name for name in origin.names if name not in known.names):
        set_names(runs, known, known.names + added)
        done.append(f"also named {', '.join(added)}")
    return f"known run {known.name}" + (f": {', '.join(done)}" if done else "")


def set_names(runs: Runs, run: StoredRun, names: tuple[str, ...]) -> None:
    """Set the experiments that reached a result; a title that a person gave the run stays."""
    is_ours = run.name in run.names or run.name.startswith(NAMELESS)
    title = names[0] if is_ours and run.name not in names else run.name
    runs.rename(run, title, {NAMES: joined_names(names)})


def push_scores(words: Mapping[str, dict[str, float]]) -> int:
    """Set leaderboard scores of every finished run with one of these submissions.

    Args:
        words: md5 of a submission in dvc.lock to the last `lb.public`, `lb.private` or both.

    Returns:
        Number of runs that did not show them before; `callboard sync` adds runs that do not exist yet.

    Raises:
        TrackingError: the server is down, or the database cannot be written.
    """
    if not _behind(words):
        return 0
    with open_runs() as runs:
        behind = _behind(words)
        for run, scores in behind:
            runs.set_scores(run, scores)
    return len(behind)


def _behind(words: Mapping[str, dict[str, float]]) -> list[tuple[StoredRun, dict[str, float]]]:
    """Return the finished runs that lack some of these scores, with those scores."""
    found = [
        (run, run.lacking(words.get(run.tags.get(SUBMISSION_MD5, ""), {})))
        for run in known_runs().values()
        if run.is_finished
    ]
    return [(run, scores) for run, scores in found if scores]
