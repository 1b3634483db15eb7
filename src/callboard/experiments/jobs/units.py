"""The stages of an experiment that can run side by side: those of a matrix."""

import re
from typing import NamedTuple

EDGE = re.compile(r'^"(?P<before>[^"]+)"(?: -> "(?P<after>[^"]+)")?;$', re.MULTILINE)
"""A stage, or a stage and one that reads what it writes, in the output of `dvc dag --dot`."""


class Unit(NamedTuple):
    """A stage of a matrix."""

    stage: str
    """Its name, such as train@0."""
    inputs: tuple[str, ...]
    """Stages whose outputs it reads."""

    @property
    def needs(self) -> list[str]:
        """Stages of a matrix among its inputs."""
        return [stage for stage in self.inputs if "@" in stage]


def inputs_of(graph: str) -> dict[str, list[str]]:
    """Return each stage in the output of `dvc dag --dot`, in its order, with those whose outputs it reads."""
    inputs: dict[str, list[str]] = {}
    for match in EDGE.finditer(graph):
        before, after = match["before"], match["after"]
        for stage in filter(None, (before, after)):
            inputs.setdefault(stage, [])
        if after:
            inputs[after].append(before)
    return inputs


def units_of(graph: str, common: str) -> list[Unit]:
    """Return the stages of matrices in the output of `dvc dag --dot`, in its order.

    Args:
        graph: The output.
        common: Stage that runs before all of them, with all that it needs.
    """
    inputs = inputs_of(graph)
    earlier, waiting = set[str](), [common]
    while waiting:
        earlier.add(stage := waiting.pop())
        waiting += inputs.get(stage, [])
    return [
        Unit(stage, tuple(before))
        for stage, before in inputs.items()
        if "@" in stage and stage not in earlier
    ]
