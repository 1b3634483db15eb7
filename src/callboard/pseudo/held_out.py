"""Nested networks by the folds that they hold out: their names, their files, and which a label needs."""

from collections.abc import Sequence
from itertools import combinations

NETWORKS = "networks"
"""Their folder in a workspace."""

Folds = frozenset[int]
"""Numbers of the folds that a network holds out."""


def fold_names(folds: Folds) -> str:
    """As `2` or `0-2`."""
    return "-".join(map(str, sorted(folds)))


def folds_named(name: str) -> Folds:
    """The folds of a name such as `0-2`."""
    return frozenset(map(int, name.split("-")))


def network_name(number: int, folds: Folds) -> str:
    """A network of a round, as `r0/folds0-2`."""
    return f"r{number}/folds{fold_names(folds)}"


def voters_name(number: int, student: Folds) -> str:
    """The networks of a round that teach a student, all together, as `r0/folds0-*`."""
    return f"r{number}/folds{fold_names(student)}-*"


def weights_file(number: int, folds: Folds) -> str:
    """The weights of a network, as `r0/2/0-1.pt` below NETWORKS."""
    return f"r{number}/{len(folds)}/{fold_names(folds)}.pt"


def labels_file(number: int, folds: Folds) -> str:
    """The pseudo-labels that a network of a round above 0 learns from, beside its weights."""
    return f"r{number}/{len(folds)}/{fold_names(folds)}.csv"


def networks_behind(all_folds: Sequence[int], student_round: int, size: int = 1) -> list[tuple[int, Folds]]:
    """The networks that the students of a round learn from, directly or not: round and folds, teachers first.

    A teacher holds out one fold more than its student. Five folds and one round take ten networks of three
    fifths of the recordings; two rounds take ten of two fifths and ten of three fifths that learn from these.

    Args:
        all_folds: There are.
        student_round: Of the students, at least 1.
        size: Folds that each of the students holds out.
    """
    return [
        (number, frozenset(folds))
        for number in range(student_round)
        for folds in combinations(sorted(all_folds), size + student_round - number)
    ]
