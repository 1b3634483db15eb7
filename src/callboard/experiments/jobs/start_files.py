"""Files that the trainings of an experiment start from, for machines without the workspace's folder."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from callboard.core.pinned_weights import WEIGHTS_REFERENCE, find_weights
from callboard.params.references import INIT_FROM
from callboard.results.dvc_cache import add_to_cache
from callboard.results.lookup import find_exactly

Sections = Mapping[str, Any]
"""Nested sections of params.yaml, with the defaults of omitted keys."""


def files_to_start_from(sections: Sections, workspace: Path) -> dict[str, str]:
    """Return the files, which are then in the main workspace's cache, as in `CopyJob.needed`.

    They are the networks of `train.init_from`, which nested networks train again from that result's own
    start, and the file of `model.weights`. Weights outside the workspace are left out: their path can be the
    same on all machines.

    Raises:
        UserError: the result does not exist, or the weights are not those that `model.weights` names.
    """
    found: dict[str, str] = {}
    start = sections
    while reference := start["train"]["init_from"]:
        finished = find_exactly(reference, INIT_FROM)
        networks = [md5 for path, md5 in finished.outs.items() if path in finished.weights.values()]
        found |= dict.fromkeys(networks, "") if start is sections else {}
        if sections["pseudo"]["isolation"] != "nested":
            return found
        start = finished.sections("train", "model")
    return found | _weights_file(start["model"]["weights"], workspace)


def _weights_file(weights: str | None, workspace: Path) -> dict[str, str]:
    if not WEIGHTS_REFERENCE.fullmatch(weights or ""):  # none, or those of a package
        return {}
    path = find_weights(str(weights))
    if not path.is_relative_to(workspace):
        return {}
    content = path.read_bytes()
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    add_to_cache(md5, content)
    return {md5: path.relative_to(workspace).as_posix()}
