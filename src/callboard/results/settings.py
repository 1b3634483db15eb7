"""What results that differ in nothing but the seed have in common."""

import re
from collections.abc import Iterable

from callboard.params.references import REFERENCE_KEYS
from callboard.results.rows import BoardRow

CV = "cv.lwlrap"
"""The metric that results of several seeds are compared by."""

RESULT_OF_A_SEED = re.compile(r"(-seed\d+)?@[0-9a-f]{16}")
"""What tells the results of one row apart, by its seed and content: another seed of a chain takes those of
that seed."""


Setting = tuple[tuple[str, str], frozenset[tuple[str, str]]]


def setting_of(row: BoardRow) -> Setting:
    """Data, annotations and parameters: what results that differ in nothing but the seed have in common."""
    return row.measured_on, all_but_seed(row.params)


def newest_by_seed(rows: Iterable[BoardRow]) -> dict[str, BoardRow]:
    """By seed the last of its results, in the order in which seeds come first."""
    return {row.params.get("seed", ""): row for row in rows}


def all_but_seed(params: dict[str, str]) -> frozenset[tuple[str, str]]:
    """What a group of runs has in common; how pseudo-labels would be made counts only where there are any."""
    unused = ("pseudo.",) if params.get("pseudo.rounds") == "0" else ()
    return frozenset(
        (key, RESULT_OF_A_SEED.sub("", text) if key in REFERENCE_KEYS else text)
        for key, text in params.items()
        if key != "seed" and not key.startswith(unused)
    )
