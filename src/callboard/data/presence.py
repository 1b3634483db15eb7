"""Annotation tables to presence tables: (recordings, species) booleans."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def species_presence(
    annotations: pd.DataFrame, recording_ids: Sequence[str], species: Sequence[str]
) -> NDArray[np.bool_]:
    """Which species each recording has at least one of the given annotations of.

    Pass the rows of one label type: TP rows give presence, FP rows give rejection.

    Args:
        annotations: recording_id and species_id; rows of recordings that are not asked for are ignored.
        recording_ids: the rows of the result, in order.
        species: its columns, in order.

    Returns:
        (recordings, species).

    Raises:
        ValueError: an annotation's species is not among `species`.
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
    """Presence with positive pseudo-labels counted as if experts had confirmed them.

    A network that is measured by it is measured by what its own teachers said, so it is no estimate of LB:
    the distance to the CV of experts' labels shows how far such a CV is inflated.

    Args:
        clips: TP and FP annotations.
        pseudo: Pseudo-labels, `target` 0 where the species is absent.
        recording_ids: the rows of the result, in order.
        species: its columns, in order.

    Returns:
        (recordings, species).
    """
    confirmed = clips[clips["label_type"] == "tp"]
    columns = ["recording_id", "species_id"]
    present = pd.concat([confirmed[columns], positives(pseudo)[columns]])
    return species_presence(present, recording_ids, species)


def positives(pseudo: pd.DataFrame) -> pd.DataFrame:
    """The pseudo-labels that say present: all of a table without targets."""
    return pseudo[pseudo["target"] > 0] if "target" in pseudo else pseudo
