"""Scores of some recordings and their windows, and the tables that show them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.scoring.window_scores import Probabilities

RECORDING_TABLE, WINDOW_TABLE, SKIPPED_TABLE = PREDICTION_TABLES = ("recordings", "windows", "skipped")
"""Tables of predictions by name; the last lists recordings that cannot be used."""


class SetScores(NamedTuple):
    """Probabilities for R recordings, and for their N windows in the order of the recordings."""

    of_recordings: Probabilities
    """(R, species)."""
    of_windows: Probabilities
    """(N, species)."""
    recording: NDArray[np.int32]
    """(N,) index of the recording, ascending."""
    start_s: NDArray[np.float64]
    """(N,) seconds from the start of the recording."""
    end_s: NDArray[np.float64]
    """(N,) likewise; of the last window of a short recording, beyond its end."""


def table_of_recordings(
    names: Sequence[str], length_s: NDArray[np.float64], scores: SetScores, species: Sequence[str]
) -> pd.DataFrame:
    """Return recording, length_s, species, score: a row for each species of each recording.

    Args:
        names: (R,) names of the recordings.
        length_s: (R,) their lengths.
        scores: Their scores.
        species: The class axis.
    """
    n_species = len(species)
    return pd.DataFrame(
        {
            "recording": np.repeat(np.array(names, dtype=object), n_species),
            "length_s": np.repeat(length_s, n_species),
            "species": np.tile(np.array(species, dtype=object), len(names)),
            "score": scores.of_recordings.ravel(),
        }
    )


def table_of_windows(
    names: Sequence[str],
    length_s: NDArray[np.float64],
    scores: SetScores,
    species: Sequence[str],
    floor: float,
) -> pd.DataFrame:
    """Return recording, start_s, end_s, species, score of windows; see `table_of_recordings`.

    A window ends with its recording at the latest. Scores below `floor` are left out.
    """
    window, column = np.nonzero(scores.of_windows >= floor)
    recording = scores.recording[window]
    return pd.DataFrame(
        {
            "recording": np.array(names, dtype=object)[recording],
            "start_s": scores.start_s[window],
            "end_s": np.minimum(scores.end_s[window], length_s[recording]),
            "species": np.array(species, dtype=object)[column],
            "score": scores.of_windows[window, column],
        }
    )
