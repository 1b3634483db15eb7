"""`python -m callboard.experiments.jobs.dvc_commands`: DVC commands in one process, which imports DVC once.

The argument is a list of lists in JSON, the arguments of `dvc` for each command.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby


def in_one_process(commands: Iterable[Sequence[str]]) -> list[list[str]]:
    """Replace commands of DVC that follow each other by one command that runs them until the first failure.

    Args:
        commands: Arguments of `python -m`.
    """
    joined: list[list[str]] = []
    for is_dvc, group in groupby(commands, lambda command: command[0] == "dvc"):
        if is_dvc:
            joined.append([__name__, json.dumps([command[1:] for command in group])])
        else:
            joined += map(list, group)
    return joined


if __name__ == "__main__":
    from dvc.cli import main

    for arguments in json.loads(sys.argv[1]):
        if status := main(arguments):
            sys.exit(status)
