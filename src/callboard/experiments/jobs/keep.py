"""`python -m callboard.experiments.jobs.keep NAME HEAD`: make a copy of the workspace an experiment of DVC.

It runs in the copy. The experiment is a commit with the files that git tracks, dvc.lock, metrics and curves,
under DVC's name for it, so that DVC's own commands list it. Of the main workspace's repository nothing but
this name changes. `--force` replaces an experiment of that name.
"""

import argparse
import time
from pathlib import Path

from callboard.core.console import run_guarded
from callboard.core.errors import UserError
from callboard.core.workspace import main_workspace
from callboard.experiments.jobs.copies import committed, git_path, repository
from callboard.results.git import git, git_if_any
from callboard.results.refs import experiment_ref

MADE = ("dvc.lock", "metrics", "plots")
"""Files and folders of a result that git keeps."""

QUIETLY = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc")
"""Options of `git fetch`, so that it writes nothing but what is fetched."""

STALE_S = 60.0
"""Age at which git's lock of one name, held for milliseconds, was left by a process that was killed."""


def keep_experiment(name: str, head: str, *, is_forced: bool) -> None:
    """Make the workspace of the current folder an experiment of the main one.

    Raises:
        UserError: there is one of that name.
    """
    copy, workspace, ref = Path.cwd(), main_workspace(), experiment_ref(head, name)
    also = [made for made in MADE if Path(made).exists()]
    commit = committed(copy, head, f"callboard: experiment {name}", copy / ".dvc/tmp", also)
    git("update-ref", ref, commit)
    lock = git_path(f"{ref}.lock", workspace)
    if lock.exists() and time.time() - lock.stat().st_mtime > STALE_S:
        lock.unlink()
    if not is_forced and git_if_any("rev-parse", "--verify", "--quiet", ref, folder=workspace):
        raise UserError(f"{name} exists on this commit, made meanwhile; --force replaces it")
    git("fetch", *QUIETLY, str(repository(copy)[0]), f"{'+' * is_forced}{ref}:{ref}", folder=workspace)
    print(f"\nexperiment {name}; `dvc exp apply {name}` brings it into the workspace", flush=True)


def experiment_arguments() -> argparse.Namespace:
    """Read `name`, `head` and `is_forced` from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("head")
    parser.add_argument("--force", action="store_true", dest="is_forced")
    return parser.parse_args()


if __name__ == "__main__":
    run_guarded(lambda: keep_experiment(**vars(experiment_arguments())))
