"""Nested networks by the folds that they hold out: names, files, and the networks that a label needs."""

from collections.abc import Sequence
from itertools import combinations

NETWORKS = "networks"
"""Folder of the networks in a workspace."""

Folds = frozenset[int]
"""Numbers of the folds that a network holds out."""


def fold_names(folds: Folds) -> str:
    """Return the name of folds, such as `2` or `0-2`."""
    return "-".join(map(str, sorted(folds)))


def folds_named(name: str) -> Folds:
    """Return the folds of a name such as `0-2`."""
    return frozenset(map(int, name.split("-")))


def network_name(number: int, folds: Folds) -> str:
    """Return the name of a network of a round, such as `r0/folds0-2`."""
    return f"r{number}/folds{fold_names(folds)}"


def voters_name(number: int, student: Folds) -> str:
    """Return the name of all networks of a round that teach a student together, such as `r0/folds0-*`."""
    return f"r{number}/folds{fold_names(student)}-*"


def weights_file(number: int, folds: Folds) -> str:
    """Return the path of a network's weights below NETWORKS, such as `r0/2/0-1.pt`."""
    return f"r{number}/{len(folds)}/{fold_names(folds)}.pt"


def labels_file(number: int, folds: Folds) -> str:
    """Return the path, below NETWORKS, of the pseudo-labels that a network of a round above 0 learns from."""
    return f"r{number}/{len(folds)}/{fold_names(folds)}.csv"


def networks_behind(all_folds: Sequence[int], student_round: int, size: int = 1) -> list[tuple[int, Folds]]:
    """List the networks that the students of a round learn from, directly or indirectly, teachers first.

    A teacher holds out one fold more than its student. With five folds, one round needs ten networks trained
    on three fifths of the recordings; two rounds need ten on two fifths, and ten on three fifths that learn
    from these.

    Args:
        all_folds: Numbers of all folds.
        student_round: Round of the students, at least 1.
        size: Number of folds that each student holds out.

    Returns:
        Round and folds of each network.
    """
    return [
        (number, frozenset(folds))
        for number in range(student_round)
        for folds in combinations(sorted(all_folds), size + student_round - number)
    ]
