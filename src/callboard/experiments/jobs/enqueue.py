"""`python -m callboard.experiments.jobs.enqueue NAME HEAD`: put a copy of the workspace into DVC's queue.

It runs in the copy. `dvc exp run --queue` makes the same entry in the workspace itself, from which it takes
all changes meanwhile, and where a kill leaves it so.
"""

from pathlib import Path

from callboard.core.console import run_guarded
from callboard.core.workspace import main_workspace
from callboard.experiments.jobs.copies import repository
from callboard.experiments.jobs.keep import QUIETLY, experiment_arguments
from callboard.results.git import git
from callboard.results.refs import experiment_ref


def enqueue(name: str, head: str, *, is_forced: bool) -> None:
    """Put the workspace of the current folder into the queue of the main one."""
    from dvc.repo import Repo
    from dvc.repo.experiments.executor.base import BaseExecutor
    from dvc.repo.experiments.queue.base import QueueEntry
    from dvc.repo.experiments.queue.tasks import run_exp
    from dvc.repo.experiments.stash import ExpStash

    workspace = main_workspace()
    variables = {"DVC_EXP_BASELINE_REV": head, "DVC_EXP_NAME": name, "DVC_ROOT": str(workspace)}
    packed = Path(".dvc/tmp", BaseExecutor.PACKED_ARGS_FILE)
    BaseExecutor.pack_repro_args(str(packed), run_env=variables, force=is_forced)
    git("add", "--force", str(packed))
    git("reset", "--quiet", "--soft", head)
    stash, ref = git("stash", "create").strip(), experiment_ref(head, name)
    git("update-ref", ref, stash)
    git("fetch", *QUIETLY, str(repository(Path.cwd())[0]), ref, folder=workspace)
    with Repo(str(workspace)) as repo:
        queue = repo.experiments.celery_queue
        message = f"commit: {ExpStash.format_message(head, head, name)}"
        git("update-ref", "--create-reflog", "-m", message, queue.ref, stash, folder=workspace)
        entry = QueueEntry(repo.root_dir, repo.scm.root_dir, queue.ref, stash, head, None, name, head)
        queue.celery.signature(run_exp.s(entry.asdict())).delay()
    print(f"{name}: in DVC's queue; `dvc queue start` runs it", flush=True)


if __name__ == "__main__":
    run_guarded(lambda: enqueue(**vars(experiment_arguments())))
