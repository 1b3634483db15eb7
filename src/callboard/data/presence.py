"""Conversion of annotation tables to presence tables: (recordings, species) booleans."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def species_presence(
    annotations: pd.DataFrame, recording_ids: Sequence[str], species: Sequence[str]
) -> NDArray[np.bool_]:
    """Return whether each recording has at least one of the given annotations of each species.

    Pass the rows of one label type: TP rows give presence, FP rows give rejection.

    Args:
        annotations: recording_id and species_id; rows of recordings not in `recording_ids` are ignored.
        recording_ids: Rows of the result, in order.
        species: Columns of the result, in order.

    Returns:
        (recordings, species).

    Raises:
        ValueError: An annotation's species is not in `species`.
    """
    row = pd.Index(recording_ids).get_indexer(pd.Index(annotations["recording_id"]))
    column = pd.Index(species).get_indexer(pd.Index(annotations["species_id"]))
    if (column < 0).any():
        unknown = sorted(set(annotations["species_id"][column < 0]))
        raise ValueError(f"species {unknown} are annotated but not among the {len(species)} species")
    is_present = np.zeros((len(recording_ids), len(species)), dtype=bool)
    is_asked = row >= 0
    is_present[row[is_asked], column[is_asked]] = True
    return is_present


def relabeled_presence(
    clips: pd.DataFrame, pseudo: pd.DataFrame, recording_ids: Sequence[str], species: Sequence[str]
) -> NDArray[np.bool_]:
    """Return presence with positive pseudo-labels counted as confirmed.

    This measures a network by the labels of its own teachers, so it does not estimate LB: the difference
    from CV on confirmed labels shows how much CV on pseudo-labels is inflated.

    Args:
        clips: TP and FP annotations.
        pseudo: Pseudo-labels; `target` is 0 if the species is absent.
        recording_ids: Rows of the result, in order.
        species: Columns of the result, in order.

    Returns:
        (recordings, species).
    """
    confirmed = clips[clips["label_type"] == "tp"]
    columns = ["recording_id", "species_id"]
    present = pd.concat([confirmed[columns], positives(pseudo)[columns]])
    return species_presence(present, recording_ids, species)


def positives(pseudo: pd.DataFrame) -> pd.DataFrame:
    """Return the pseudo-labels with a target above 0, or all rows if the table has no `target`."""
    return pseudo[pseudo["target"] > 0] if "target" in pseudo else pseudo
