"""Rows of a table that are left to judge, for the queues of suspects and of lists."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.core.console import first_few
from callboard.core.csv_rows import refuse_rows
from callboard.core.errors import UserError, nearest
from callboard.data.corrections import VERDICTS


def with_verdicts(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return a table with a column of verdicts, which are blank if it has none.

    Raises:
        UserError: The table has no rows.
    """
    if table.empty:
        raise UserError(f"{path}: has no rows to review")
    return table if "verdict" in table else table.assign(verdict="")


def column_or_blank(table: pd.DataFrame, name: str) -> pd.Series:
    """Return a column, blank if the table does not have it."""
    return table[name] if name in table else pd.Series("", table.index)


def refuse_unknown_verdicts(verdicts: pd.Series) -> None:
    """Refuse verdicts that are neither blank nor one of VERDICTS.

    Args:
        verdicts: Verdicts, indexed by the name of their row.

    Raises:
        UserError: There is one.
    """
    refuse_rows(
        (str(place), f"verdict must be one of {', '.join(VERDICTS)}, found {verdict!r}")
        for place, verdict in verdicts.items()
        if verdict not in ("", *VERDICTS)
    )


def choose_rows(
    species_of_row: pd.Series,
    verdicts: pd.Series,
    is_open: NDArray[np.bool_],
    species: Sequence[str],
    count: int | None,
    path: Path,
) -> list[int]:
    """Return the positions of the rows to judge: open ones, of some species, up to `count` without a verdict.

    Raises:
        UserError: A species is in no row, or no row is left without a verdict.
    """
    refuse_unknown_species(species, sorted(species_of_row.unique()), path)
    wanted = is_open & species_of_row.isin(species or species_of_row).to_numpy()
    is_left = wanted & (verdicts == "").to_numpy()
    if not is_left.any():
        raise UserError(f"{path}: no row{' of ' + ', '.join(species) if species else ''} is left to review")
    n_left = np.cumsum(is_left)
    is_within = (n_left <= count) & ((n_left < count) | is_left) if count else True
    return [int(row) for row in np.flatnonzero(wanted & is_within)]


def refuse_unknown_species(species: Sequence[str], known: Sequence[str], path: Path) -> None:
    """Refuse species that a table does not have.

    Raises:
        UserError: It lacks one.
    """
    for name in species:
        if name not in known:
            raise UserError(
                f"--species {name}: not one of {path.name}{nearest(name, known)}; it has "
                f"{first_few(known, 40)}"
            )


def path_from_here(path: Path) -> str:
    """Return a path relative to the current folder if it is inside."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
