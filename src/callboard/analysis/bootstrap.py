"""Paired differences of the precisions that LWLRAP averages, with intervals over recordings or groups."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, reduce
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.analysis.difference import Difference, MismatchError, SpeciesDifference
from callboard.data.annotations import read_table
from callboard.data.folds import GROUP
from callboard.data.presence import species_presence
from callboard.data.score_tables import read_score_table, score_columns_in
from callboard.scoring.grouped import jackknife_error, sums_by_group, t_interval
from callboard.scoring.metrics import percentile_interval, times_drawn

N_BOOTSTRAP = 2000
SEED = 0


@dataclass(frozen=True)
class Precisions:
    """Precisions at the ranks of confirmed (recording, species) pairs; LWLRAP is their mean.

    Ties share their worst rank. Pairs are sorted by recording, then in the order of `species`.
    """

    species: tuple[str, ...]
    """All ranked species."""
    recording_of: NDArray[np.str_]
    """(pairs,) recording_id."""
    species_of: NDArray[np.int64]
    """(pairs,) index into `species`."""
    values: NDArray[np.float64]
    """(pairs,) in (0, 1]."""
    group_of: NDArray[np.str_] | None = None
    """(pairs,) group of the recording; None if recordings are independent."""


@cache
def precisions_in(scores: Path, clips: Path) -> Precisions:
    """Compute the precision at each confirmed pair of a table of out-of-fold scores.

    Args:
        scores: `scores/oof.csv` of a result.
        clips: `data/clips.csv` of its data.

    Raises:
        UserError: a file cannot be read.
        MismatchError: a species is confirmed that has no scores.
    """
    return precisions(read_score_table(scores), confirmed_in(clips))


@cache
def confirmed_in(clips: Path) -> pd.DataFrame:
    """Read recording_id and species_id of the confirmed annotations in `data/clips.csv`.

    Raises:
        UserError: the file cannot be read.
    """
    table = read_table(clips, ["recording_id", "species_id", "label_type"])
    return table[table["label_type"] == "tp"]


def precisions(table: pd.DataFrame, truth: pd.DataFrame) -> Precisions:
    """Compute the precision at each confirmed pair of a score table.

    Args:
        table: recording_id, each once, and score columns; group, if recordings are grouped.
        truth: recording_id and species_id of confirmed annotations.

    Raises:
        MismatchError: a species is confirmed that has no scores.
        ValueError: a score is not a finite number.
    """
    in_order = table.sort_values("recording_id")
    recordings = in_order["recording_id"].to_numpy(dtype=str)
    columns = sorted(score_columns_in(table))
    species = [name.removeprefix("s") for name in columns]
    scores = in_order[columns].to_numpy(dtype=np.float64)
    if not np.isfinite(scores).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(scores))} scores are NaN or infinite")
    if unknown := sorted(set(truth["species_id"]) - set(species)):
        raise MismatchError(f"species {unknown} are annotated but not among the {len(species)} species")
    is_present = species_presence(truth, list(recordings), species)
    row, column = np.nonzero(is_present)
    group_of = in_order[GROUP].to_numpy(dtype=str)[row] if GROUP in in_order else None
    return Precisions(tuple(species), recordings[row], column, pair_precisions(is_present, scores), group_of)


def mean_of(several: Sequence[Precisions]) -> Precisions:
    """Average the precisions of several results, pair by pair.

    Args:
        several: Precisions of results on the same confirmed pairs; of different groups, the coarsest count.

    Raises:
        MismatchError: the pairs differ.
    """
    first, *others = several
    for other in others:
        is_same = first.species == other.species and all(
            map(
                np.array_equal, (first.recording_of, first.species_of), (other.recording_of, other.species_of)
            )
        )
        if not is_same:
            raise MismatchError("the tables have different recordings or species: they have no mean")
    group_of = reduce(_coarser, (one.group_of for one in several))
    return replace(first, values=np.mean([one.values for one in several], axis=0), group_of=group_of)


def _coarser(a: NDArray[np.str_] | None, b: NDArray[np.str_] | None) -> NDArray[np.str_] | None:
    """Return those of two groupings of the same pairs with fewer groups; those of `a` if it is a draw."""
    if a is None or b is None:
        return b if a is None else a
    return b if len(np.unique(b)) < len(np.unique(a)) else a


def pair_precisions(is_present: NDArray[np.bool_], scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Compute, at the rank of each present species, the share of present ones among those scored as high.

    Ties share their worst rank. metrics.precision_sums gives the sums by recording.

    Args:
        is_present: (recordings, species).
        scores: (recordings, species), finite.

    Returns:
        (pairs,) in (0, 1], in the order of `is_present.nonzero()`.
    """
    row, column = np.nonzero(is_present)
    is_above = scores[row] >= scores[row, column][:, None]  # (pairs, species ranked at least as high)
    found: NDArray[np.float64] = (is_above & is_present[row]).sum(axis=1) / is_above.sum(axis=1)
    return found


def difference_of(
    a: Precisions, b: Precisions, n_bootstrap: int = N_BOOTSTRAP, seed: int = SEED
) -> Difference:
    """Return LWLRAP of `a` minus that of `b` on shared recordings, with its interval over them.

    Both are scored on the same recordings, so what makes a recording hard for both cancels. If either result
    has groups, these are the independent units, and the interval is that of the jackknife over them; if both
    have, the coarser ones. Otherwise it is a percentile bootstrap over recordings. The networks are taken as
    given: the interval excludes the effect of a seed on all recordings of a result alike, see
    docs/appendix/verdict.md.

    Args:
        a: Precisions of one result. Recordings that only one of the two has are left out.
        b: Precisions of the other, with the same truth.
        n_bootstrap: Number of resamples.
        seed: Seed of the draws.

    Raises:
        MismatchError: the species differ, or no recording with a species is in both.
    """
    a, b = _shared(a, b)
    if (group_of := _coarser(a.group_of, b.group_of)) is not None:
        return _over_groups(group_of, a.values - b.values)
    _, recording = np.unique(a.recording_of, return_inverse=True)
    gain = np.bincount(recording, a.values - b.values)
    n_pairs = np.bincount(recording)
    drawn = _times_drawn(len(gain), n_bootstrap, seed)
    resampled = (drawn @ gain) / (drawn @ n_pairs)
    low, high = percentile_interval(resampled)
    p_better = np.mean(resampled > 0) + np.mean(resampled == 0) / 2
    return Difference(
        float(gain.sum() / n_pairs.sum()), low, high, float(p_better), float(resampled.std(ddof=1))
    )


def _over_groups(group_of: NDArray[np.str_], gain: NDArray[np.float64]) -> Difference:
    """Return the mean of (pairs,) gains with its interval over groups; without an interval of one group."""
    from scipy.special import stdtr  # takes long to import

    sums, counts = sums_by_group(group_of, gain, np.ones(len(gain)))
    value, error, dof = float(gain.mean()), jackknife_error(sums, counts), len(sums) - 1
    low, high = t_interval(value, error, dof)
    scaled = value / error if error else np.copysign(np.inf, value) if value else 0.0
    return Difference(value, low, high, float(stdtr(dof, scaled)) if dof else np.nan, error, len(sums))


def species_differences(a: pd.DataFrame, b: pd.DataFrame, truth: pd.DataFrame) -> list[SpeciesDifference]:
    """Return each species' contribution to the change of LWLRAP, for species that some shared recording has.

    The mean of the changes, weighted by `n`, is the change of LWLRAP. Each interval is as in `difference_of`,
    over the recordings or groups that have the species; about one interval in 24 misses the truth.

    Args:
        a: Score table.
        b: Score table with the same species.
        truth: recording_id and species_id of confirmed annotations.

    Returns:
        Contributions in the order of the species' columns in `a`.

    Raises:
        MismatchError, ValueError: as in `precisions` and `difference_of`.
    """
    ours, theirs = _shared(precisions(a, truth), precisions(b, truth))
    in_order = [name.removeprefix("s") for name in a.columns if name.removeprefix("s") in ours.species]
    indices = [ours.species.index(name) for name in in_order]
    return [_species_difference(ours, theirs, index) for index in indices if (ours.species_of == index).any()]


def _species_difference(a: Precisions, b: Precisions, index: int) -> SpeciesDifference:
    of_species = a.species_of == index
    ours, theirs = a.values[of_species], b.values[of_species]
    gain = ours - theirs
    n = len(gain)
    low = high = float("nan")
    if (group_of := _coarser(a.group_of, b.group_of)) is not None:
        found = _over_groups(group_of[of_species], gain)
        low, high = found.low, found.high
    elif n > 1:
        low, high = percentile_interval(times_drawn(n, N_BOOTSTRAP, SEED) @ gain / n)
    means = float(ours.mean()), float(theirs.mean()), float(gain.mean())
    return SpeciesDifference(a.species[index], n, *means, low, high)


def _shared(a: Precisions, b: Precisions) -> tuple[Precisions, Precisions]:
    """Restrict both to the recordings that they share."""
    if a.species != b.species:
        raise MismatchError(
            f"the tables have different score columns: {', '.join(a.species)} and {', '.join(b.species)}"
        )
    if np.array_equal(a.recording_of, b.recording_of) and len(a.values):
        return a, b
    first, second = _only(a, b.recording_of), _only(b, a.recording_of)
    if not len(first.values):
        raise MismatchError("no recording that both tables have has a confirmed species: undefined")
    return first, second


def _only(whole: Precisions, recording_ids: NDArray[np.str_]) -> Precisions:
    kept = np.isin(whole.recording_of, recording_ids)
    group_of = None if whole.group_of is None else whole.group_of[kept]
    return Precisions(
        whole.species, whole.recording_of[kept], whole.species_of[kept], whole.values[kept], group_of
    )


@lru_cache(maxsize=4)
def _times_drawn(n_items: int, n_resamples: int, seed: int) -> NDArray[np.float64]:
    """Draw once for all pairs of a board; as floats, for BLAS to multiply."""
    return times_drawn(n_items, n_resamples, seed).astype(np.float64)
