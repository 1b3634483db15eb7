"""Parameters by which an experiment takes results: as `name@key`, or in the table by names of rows."""

import json
import re
from collections.abc import Mapping
from typing import Any

INIT_FROM = "train.init_from"
BLEND = "infer.blend"

OF_A_SEED = re.compile(r"-seed\d+$")
"""What `callboard run --seed` and `callboard noise` add to the name of a row."""

REFERENCE_KEYS: dict[str, Any] = {INIT_FROM: str | None, BLEND: list[str]}
"""Dotted keys that name other results, and what they hold."""

RESULT_OF_A_SEED = re.compile(r"(-seed\d+)?@[0-9a-f]{16}")
"""What tells the results of one row apart, by its seed and content: another seed of a chain takes those of
that seed."""


def referenced_results(values: Mapping[str, Any]) -> list[str]:
    """What values of TAKEN name, each once, what training starts from first; other keys are left out."""
    named = (values.get(key) or [] for key in REFERENCE_KEYS)
    return list(dict.fromkeys(name for one in named for name in ([one] if isinstance(one, str) else one)))


def init_from(params: Mapping[str, str]) -> str:
    """The result that training started from, by flat parameters; empty where there is none."""
    reference = params.get(INIT_FROM, "null")
    return "" if reference == "null" else reference


def blend_parts(params: Mapping[str, str]) -> list[str]:
    """The results that one is a blend of, by flat parameters; empty for one with networks of its own."""
    return list(json.loads(params.get(BLEND, "[]")))


def all_but_seed(params: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """Flat parameters without the seed, and without those of pseudo-labels where there are none."""
    unused = ("pseudo.",) if params.get("pseudo.rounds") == "0" else ()
    return frozenset(
        (key, RESULT_OF_A_SEED.sub("", text) if key in REFERENCE_KEYS else text)
        for key, text in params.items()
        if key != "seed" and not key.startswith(unused)
    )
