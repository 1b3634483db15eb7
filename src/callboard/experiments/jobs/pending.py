"""`python -m callboard.experiments.jobs.pending STAGE`: print the command that DVC would run for a stage.

Nothing is printed if DVC's cache has the stage's output. What the stage reads must be there.
"""

import re
import shlex
import sys

COMMAND = re.compile(r"^pending: python -m (.*)$", re.MULTILINE)


def pending_command(printed: str) -> list[str]:
    """Return the arguments of `python -m` in the output of this module; empty if nothing is pending."""
    found = COMMAND.search(printed)
    return shlex.split(found[1]) if found else []


def print_pending() -> None:
    """Restore the stage of this workspace from DVC's cache, or print its command."""
    from dvc.repo import Repo
    from dvc.stage.cache import RunCacheNotFoundError

    with Repo() as repo, repo.lock:
        (stage,) = repo.stage.collect(sys.argv[1])
        try:
            repo.stage_cache.restore(stage)
        except RunCacheNotFoundError:
            print(f"pending: {stage.cmd}")


if __name__ == "__main__":
    print_pending()
