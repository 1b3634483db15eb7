"""Metrics of how well scores rank the species of a recording.

Throughout, `is_present` and `scores` are (recordings, species); NaN and infinite scores are refused. In the
ranking metrics only the order of scores within a recording matters, so logits and probabilities give the
same result, and ties share their worst rank.
"""

import numpy as np
from numpy.typing import NDArray

COVERAGE = 0.95
"""Coverage of every interval."""

Scores = NDArray[np.floating]
Presence = NDArray[np.bool_]


def lwlrap(is_present: Presence, scores: Scores) -> float:
    """Return the mean, over all true (recording, species) pairs, of the precision at that species' rank.

    It is scikit-learn's `label_ranking_average_precision_score` with each recording weighted by its number of
    species, which averages over pairs instead of recordings, and drops recordings without species. Ties share
    their worst rank.

    Args:
        is_present: (recordings, species) ground truth.
        scores: (recordings, species) logits or probabilities; only the order within a row matters.

    Raises:
        ValueError: No species is present in any recording, so LWLRAP is undefined.

    Example:
        The first recording's species is ranked first, the second's second: (1 + 1/2) / 2.

        >>> lwlrap(np.array([[True, False], [True, False]]), np.array([[0.9, 0.1], [0.2, 0.7]]))
        0.75
    """
    precision, n_present = precision_sums(is_present, scores)
    return float(precision.sum() / n_present.sum())


def lrap(is_present: Presence, scores: Scores) -> float:
    """Return the mean, over recordings with any species, of the mean precision at the ranks of their species.

    Raises:
        ValueError: No species is present in any recording.
    """
    precision, n_present = precision_sums(is_present, scores)
    return float((precision / n_present).mean())


def lrap_over_folds(is_present: Presence, scores: Scores, fold: NDArray[np.integer]) -> float:
    """Return CV as the original author's table defines it: the plain mean over folds of LRAP.

    In trtd56/RFCX `docs/my_solution.md` a fold's LRAP was averaged per batch of 64, then over batches, which
    overweights the recordings of the smaller last batch; here it is the mean over the fold's recordings.

    Args:
        is_present: (recordings, species).
        scores: (recordings, species).
        fold: (recordings,) fold of each recording.
    """
    return float(np.mean([lrap(is_present[fold == k], scores[fold == k]) for k in np.unique(fold)]))


def lwlrap_known(is_present: Presence, is_labeled: Presence, scores: Scores) -> float:
    """Return LWLRAP that ranks in each recording only the species confirmed or rejected in it.

    In plain LWLRAP an unlabeled species that calls counts as an error if it is ranked high; here it is left
    out of the ranking. Recordings whose labeled species are all present or all absent are dropped, as they
    leave nothing to rank.

    Assumes that a species with a rejected and no confirmed box is absent from the whole recording.

    Args:
        is_present: (recordings, species) whether the recording has a confirmed annotation.
        is_labeled: (recordings, species) whether it has a confirmed or rejected one; implied by `is_present`.
        scores: (recordings, species).

    Returns:
        A number in (0, 1], or NaN if no recording has both a present and an absent labeled species.
    """
    is_absent = is_labeled & ~is_present
    is_contrast = is_present.any(axis=1) & is_absent.any(axis=1)
    if not is_contrast.any():
        return float("nan")
    _check(is_present, scores)
    # Unlabeled species get the lowest score, so they do not change the rank of a labeled species.
    ranked = np.where(is_present | is_absent, scores.astype(np.float64), -np.inf)[is_contrast]
    is_present = is_present[is_contrast]
    return float(_precision_at_present(is_present, ranked).sum() / is_present.sum())


def average_precisions(is_present: Presence, scores: Scores) -> NDArray[np.float64]:
    """Return (species,) average precision of each species over recordings; NaN for a species present in none.

    Unlike the ranking metrics, it compares the scores of different recordings, so they must be comparable.
    """
    from sklearn.metrics import average_precision_score  # takes a second, which trainings do without

    _check(is_present, scores)
    return np.array(
        [
            average_precision_score(column, species_scores) if column.any() else np.nan
            for column, species_scores in zip(is_present.T, scores.T, strict=True)
        ]
    )


def lwlrap_interval(is_present: Presence, scores: Scores, n_resamples: int, seed: int) -> tuple[float, float]:
    """Return the percentile bootstrap interval of LWLRAP, with recordings drawn with replacement.

    A resample's LWLRAP is a ratio of sums over its recordings, so it only needs how often each was drawn.
    Recordings without any species contribute no pair and are not drawn.
    """
    precision, n_present = precision_sums(is_present, scores)
    drawn = times_drawn(len(precision), n_resamples, seed)
    return percentile_interval((drawn @ precision) / (drawn @ n_present))


def percentile_interval(resampled: NDArray[np.floating]) -> tuple[float, float]:
    """Return the ends of the interval that contains the middle COVERAGE share of (resamples,) estimates.

    NaN resamples, for which the estimate is undefined, are left out.
    """
    low, high = np.nanquantile(resampled, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def times_drawn(n_items: int, n_resamples: int, seed: int) -> NDArray[np.int64]:
    """Return (resamples, items) how often each item is drawn in a resample of `n_items`, with replacement."""
    shares = np.full(n_items, 1 / n_items)
    return np.random.default_rng(seed).multinomial(n_items, shares, size=n_resamples)


def precision_sums(is_present: Presence, scores: Scores) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the sum of precisions at the present species, and their number, for each recording that has any.

    LWLRAP of any set of recordings is the sum of the first divided by the sum of the second.

    Raises:
        ValueError: No species is present in any recording.
    """
    _check(is_present, scores)
    n_present = is_present.sum(axis=1)
    has_any = n_present > 0
    return _precision_at_present(is_present, scores).sum(axis=1)[has_any], n_present[has_any]


def _precision_at_present(is_present: Presence, scores: Scores) -> NDArray[np.float64]:
    """Return (recordings, species) the share present among species scored at least as high; 0 if absent."""
    # (recordings, species, species scored at least as high)
    is_above = scores[:, None, :] >= scores[:, :, None]
    n_hits = (is_above & is_present[:, None, :]).sum(axis=2)
    return np.where(is_present, n_hits / is_above.sum(axis=2), 0.0)


def _check(is_present: Presence, scores: Scores) -> None:
    if is_present.ndim != 2 or is_present.shape != scores.shape:
        raise ValueError(
            "is_present and scores must both be (recordings, species), "
            f"found {is_present.shape} and {scores.shape}"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(scores))} scores are NaN or infinite")
    if not is_present.any():
        raise ValueError("no species is present in any recording: undefined")
