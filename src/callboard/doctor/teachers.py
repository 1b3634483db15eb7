"""Whether teachers had seen what they labelled: a check of `callboard doctor`."""

from collections.abc import Iterator
from pathlib import Path

from callboard.doctor.findings import Finding, State
from callboard.errors import UserError
from callboard.finished import cached_file
from callboard.lineage import first_of, read_lineage
from callboard.memory import Memory
from callboard.results import all_outs
from callboard.runs.committed import params_of
from callboard.tracker.sync import InGit

LINEAGE_VERSION = "2"
"""Of how a lineage is told by its files."""


def leaking_teachers(state: State) -> Iterator[Finding]:
    """Results whose pseudo-labels break what `pseudo.isolation` promises.

    Those with files that DVC's cache lacks cannot be asked.
    """
    memory = Memory("lineage", LINEAGE_VERSION)
    for result in state.results.values():
        outs = all_outs(state.lock_of(result))
        if not any(path.startswith("pseudo/") for path in outs):
            continue
        if result.key not in memory:
            try:
                memory[result.key] = _violations(result, outs)
            except UserError:
                continue
        if violations := memory[result.key]:
            named = result.holders[0]
            yield Finding(
                f"{named}: its CV leaks, {first_of(violations)}",
                f"`callboard audit {named.name}` tells all; then `dvc exp run --force` with its parameters",
            )
    memory.save()


def _violations(result: InGit, outs: dict[str, str]) -> list[str]:
    params = params_of(result.holders[0].commit)

    def open_output(path: str) -> Path:
        if path not in outs:
            raise UserError(f"{path}: no such output")
        return cached_file(outs[path], path)

    return [violation for one in read_lineage(open_output, params) for violation in one.violations]
