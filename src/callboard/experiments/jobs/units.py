"""The stages of an experiment that can run side by side: those of a matrix."""

import re
from typing import NamedTuple

EDGE = re.compile(r'^"(?P<before>[^"]+)"(?: -> "(?P<after>[^"]+)")?;$', re.MULTILINE)
"""A stage, or a stage and one that reads what it writes, in the output of `dvc dag --dot`."""


class Unit(NamedTuple):
    """A stage of a matrix."""

    stage: str
    """Its name, such as train@0."""
    needs: frozenset[str]
    """Stages of a matrix whose outputs it reads."""


def units_of(graph: str) -> list[Unit]:
    """Return the stages of matrices in the output of `dvc dag --dot`, in its order."""
    needs: dict[str, set[str]] = {}
    for match in EDGE.finditer(graph):
        before, after = match["before"], match["after"]
        for stage in filter(None, (before, after)):
            if "@" in stage:
                needs.setdefault(stage, set())
        if after in needs and before in needs:
            needs[after].add(before)
    return [Unit(stage, frozenset(before)) for stage, before in needs.items()]
