"""Parameters that refer to other results: as `name@key`, or in experiments.yaml by names of rows."""

import json
import re
from collections.abc import Mapping
from typing import Any

PLACES = frozenset({"data.root", "data.external"})
"""Keys of folders of recordings: the same recordings at a different place are the same data."""

INIT_FROM = "train.init_from"
BLEND = "infer.blend"

OF_A_SEED = re.compile(r"-seed\d+$")
"""Suffix that `callboard run --seed` and `callboard noise` add to the name of a row."""

REFERENCE_KEYS: dict[str, Any] = {INIT_FROM: str | None, BLEND: list[str]}
"""Dotted keys that refer to other results, and the types of their values."""

RESULT_OF_A_SEED = re.compile(r"(-seed\d+)?@[0-9a-f]{16}")
"""End of a reference, in which results of one row differ by seed and content: a chain run with a different
seed refers to results of that seed."""


def referenced_results(values: Mapping[str, Any]) -> list[str]:
    """Return the names in values of REFERENCE_KEYS, each once, the start of training first."""
    named = (values.get(key) or [] for key in REFERENCE_KEYS)
    return list(dict.fromkeys(name for one in named for name in ([one] if isinstance(one, str) else one)))


def init_from(params: Mapping[str, str]) -> str:
    """Return the result that training started from, given flat parameters; empty if it started from none."""
    reference = params.get(INIT_FROM, "null")
    return "" if reference == "null" else reference


def blend_parts(params: Mapping[str, str]) -> list[str]:
    """Return the parts of a blend, given flat parameters; empty for a result with networks of its own."""
    return list(json.loads(params.get(BLEND, "[]")))


def all_but_seed(params: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """Return flat parameters without seeds (also of references), PLACES and unused ones of pseudo-labels."""
    left = dict(params)
    for key in REFERENCE_KEYS.keys() & left.keys():
        left[key] = RESULT_OF_A_SEED.sub("", left[key])
    has_rounds = left.get("pseudo.rounds") != "0"
    unused = () if has_rounds else [key for key in left if key.startswith("pseudo.")]
    for key in ("seed", *PLACES, *unused):
        left.pop(key, None)
    return frozenset(left.items())


def differing_keys(a: Mapping[str, str], b: Mapping[str, str]) -> set[str]:
    """Return the keys, other than PLACES, whose values in flat parameters differ."""
    return {key for key in a.keys() | b.keys() if a.get(key) != b.get(key)} - PLACES
