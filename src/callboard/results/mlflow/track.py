"""Results to MLflow: one run per content key, however often and on whatever way it is reached.

No other stage writes to MLflow. Training may be restored from DVC's run-cache without running, or run twice
after a crash, so a run logged from inside it would be missing or doubled.
"""

import os
from collections.abc import Mapping

from callboard.results.git import git_if_any
from callboard.results.mlflow.access import Runs, known_result, open_runs
from callboard.results.mlflow.record import (
    NAMELESS,
    NAMES,
    SUBMISSION_MD5,
    KnownRun,
    Origin,
    joined_names,
    record_of,
)
from callboard.results.result import Result


def origin_of_this_process() -> Origin:
    """As DVC tells its stages; git is asked where DVC does not say."""
    commit = os.environ.get("DVC_EXP_BASELINE_REV") or git_if_any("rev-parse", "HEAD").strip()
    return Origin(os.environ.get("DVC_EXP_NAME"), commit)


def is_told(run: KnownRun, names: tuple[str, ...], scores: dict[str, float]) -> bool:
    """Whether a run says these names and leaderboard scores already."""
    return set(names) <= set(run.names) and not new_scores(run, scores)


def new_scores(run: KnownRun, scores: dict[str, float]) -> dict[str, float]:
    """The scores that a run does not show."""
    return {key: value for key, value in scores.items() if run.metrics.get(key) != value}


def record(result: Result, origin: Origin, memo: str = "") -> str:
    """Make sure that MLflow holds the result, its leaderboard scores and its experiment's name.

    Args:
        result: With its curves.
        origin: Where it was reached.
        memo: What its note in MLflow begins with.

    Returns:
        What was done, for the summary line.

    Raises:
        TrackingError: the server is down, or the database cannot be written.
    """
    known = known_result(result.key)
    if known and is_told(known, origin.names, result.lb):
        return "already in MLflow"
    with open_runs() as runs:
        return upsert(runs, runs.known(result.key).get(result.key), result, origin, memo)


def upsert(runs: Runs, known: KnownRun | None, result: Result, origin: Origin, memo: str = "") -> str:
    """Write a result that MLflow lacks, complete a half-written one, or add what a finished one lacks.

    Returns:
        What was done, for the summary line.
    """
    if not (known and known.is_finished):
        written = record_of(result, origin, memo, known.start_ms if known else None)
        runs.write(written, known)
        return f"new run {known.name if known else written.name} in MLflow"
    done = []
    if added := tuple(name for name in origin.names if name not in known.names):
        set_names(runs, known, known.names + added)
        done.append(f"also named {', '.join(added)}")
    if scores := new_scores(known, result.lb):
        runs.set_scores(known, scores)
        done += [f"{key} {value}" for key, value in scores.items()]
    return f"known run {known.name}" + (f": {', '.join(done)}" if done else "")


def set_names(runs: Runs, run: KnownRun, names: tuple[str, ...]) -> None:
    """Say which experiments reached a result; a run's title that a person has given stays."""
    is_ours = run.name in run.names or run.name.startswith(NAMELESS)
    title = names[0] if is_ours and run.name not in names else run.name
    runs.rename(run, title, {NAMES: joined_names(names)})


def push_scores(words: Mapping[str, dict[str, float]]) -> int:
    """Set leaderboard scores of every finished run with one of these submissions; the last word counts.

    Args:
        words: By the submission's md5, as dvc.lock tells it, `lb.public`, `lb.private` or both.

    Returns:
        How many runs have them; 0 where none is known yet, which `callboard sync` mends.

    Raises:
        TrackingError: the server is down, or the database cannot be written.
    """
    with open_runs() as runs:
        found = [
            run for run in runs.known().values() if run.is_finished and run.tags.get(SUBMISSION_MD5) in words
        ]
        for run in found:
            runs.set_scores(run, new_scores(run, words[run.tags[SUBMISSION_MD5]]))
    return len(found)
