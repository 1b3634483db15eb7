import time

import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score

from callboard.scoring.metrics import (
    average_precisions,
    lrap,
    lrap_over_folds,
    lwlrap,
    lwlrap_interval,
    lwlrap_known,
    percentile_interval,
)


def naive_lwlrap(is_present, scores):
    """Pair by pair, by the definition: rank = how many species score at least as high."""
    precisions = []
    for present, row in zip(is_present, scores, strict=True):
        for species in np.flatnonzero(present):
            ranked_above = [other for other in range(len(row)) if row[other] >= row[species]]
            hits = [other for other in ranked_above if present[other]]
            precisions.append(len(hits) / len(ranked_above))
    return sum(precisions) / len(precisions)


def random_case(seed, *, with_ties=False, n_recordings=60, n_species=7):
    rng = np.random.default_rng(seed)
    is_present = rng.random((n_recordings, n_species)) < 0.25
    is_present[:3] = [False], [True], [False]  # nothing, everything, nothing
    scores = rng.normal(size=is_present.shape)
    return is_present, np.round(scores) if with_ties else scores


@pytest.mark.parametrize("with_ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_lwlrap_equals_the_naive_twin(seed, with_ties):
    is_present, scores = random_case(seed, with_ties=with_ties)
    assert lwlrap(is_present, scores) == pytest.approx(naive_lwlrap(is_present, scores), abs=1e-12)


@pytest.mark.parametrize("with_ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_lwlrap_equals_scikit_learns_with_recordings_weighted_by_their_species(seed, with_ties):
    is_present, scores = random_case(seed, with_ties=with_ties)
    weights = is_present.sum(axis=1)
    expected = label_ranking_average_precision_score(is_present, scores, sample_weight=weights)
    assert lwlrap(is_present, scores) == pytest.approx(expected, abs=1e-12)


def test_lwlrap_by_hand():
    is_present = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0]], dtype=bool)
    scores = np.array([[0.9, 0.5, 0.1], [0.3, 0.2, 0.1], [0.7, 0.1, 0.2]])
    # ranks 1 and 3 with 1 and 2 hits; rank 2 with 1 hit; the third recording has no pair
    assert lwlrap(is_present, scores) == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)


@pytest.mark.parametrize("column", range(4))
def test_tied_scores_share_their_worst_rank_in_any_column(column):
    is_present = np.eye(4, dtype=bool)[[column]]
    assert lwlrap(is_present, np.zeros((1, 4))) == 0.25


def test_lwlrap_ignores_recordings_without_species():
    is_present, scores = random_case(0)
    has_any = is_present.any(axis=1)
    assert lwlrap(is_present, scores) == pytest.approx(lwlrap(is_present[has_any], scores[has_any]))


def test_lwlrap_is_unchanged_by_a_monotone_map_and_a_permutation_of_species():
    is_present, scores = random_case(1)
    order = np.random.default_rng(0).permutation(scores.shape[1])
    assert lwlrap(is_present, 1 / (1 + np.exp(-scores))) == pytest.approx(lwlrap(is_present, scores))
    assert lwlrap(is_present[:, order], scores[:, order]) == pytest.approx(lwlrap(is_present, scores))


@pytest.mark.parametrize("metric", [lwlrap, lrap, average_precisions])
def test_nothing_present_is_refused(metric):
    with pytest.raises(ValueError, match="no species is present in any recording"):
        metric(np.zeros((3, 2), dtype=bool), np.zeros((3, 2)))


def test_nan_scores_are_refused():
    with pytest.raises(ValueError, match="1 scores are NaN or infinite"):
        lwlrap(np.ones((1, 2), dtype=bool), np.array([[0.5, np.nan]]))


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"found \(1, 2\) and \(2, 1\)"):
        lwlrap(np.ones((1, 2), dtype=bool), np.zeros((2, 1)))


def test_lrap_is_the_mean_over_recordings_with_species():
    is_present = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0]], dtype=bool)
    scores = np.array([[0.9, 0.5, 0.1], [0.3, 0.2, 0.1], [0.7, 0.1, 0.2]])
    assert lrap(is_present, scores) == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)


def test_lrap_with_one_species_per_recording_is_lwlrap_and_mean_reciprocal_rank():
    rng = np.random.default_rng(3)
    true = rng.integers(6, size=40)
    is_present, scores = np.eye(6, dtype=bool)[true], rng.normal(size=(40, 6))
    rank = (scores >= scores[np.arange(40), true, None]).sum(axis=1)
    assert lrap(is_present, scores) == pytest.approx((1 / rank).mean())
    assert lrap(is_present, scores) == pytest.approx(lwlrap(is_present, scores))


def test_lrap_over_folds_is_the_plain_mean_over_folds():
    is_present, scores = random_case(4)
    fold = np.array([0] * 40 + [1] * 20)
    expected = (lrap(is_present[:40], scores[:40]) + lrap(is_present[40:], scores[40:])) / 2
    assert lrap_over_folds(is_present, scores, fold) == pytest.approx(expected)


def test_known_lwlrap_ranks_only_judged_species():
    is_present = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)
    is_labeled = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]], dtype=bool)
    scores = np.array([[0.5, 0.1, 0.9, 0.8], [0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.5]])
    # Behind two unlabeled species, but first of the judged; nothing to compare with; nothing present.
    assert lwlrap_known(is_present, is_labeled, scores) == 1
    assert lwlrap_known(is_present, is_labeled, -scores) == 0.5


@pytest.mark.parametrize("seed", range(3))
def test_known_lwlrap_equals_the_naive_twin_on_the_judged_columns(seed):
    is_present, scores = random_case(seed, with_ties=True)
    is_labeled = is_present | (np.random.default_rng(seed).random(is_present.shape) < 0.3)
    total, n_pairs = 0.0, 0
    for present, labeled, row in zip(is_present, is_labeled, scores, strict=True):
        judged, n_present = present[labeled], present.sum()
        if 0 < n_present < len(judged):
            total += naive_lwlrap(judged[None], row[labeled][None]) * n_present
            n_pairs += n_present
    assert lwlrap_known(is_present, is_labeled, scores) == pytest.approx(total / n_pairs)


def test_known_lwlrap_with_every_cell_judged_is_lwlrap_of_recordings_with_both():
    is_present, scores = random_case(5)
    has_both = is_present.any(axis=1) & ~is_present.all(axis=1)
    known = lwlrap_known(is_present, np.ones_like(is_present), scores)
    assert known == pytest.approx(lwlrap(is_present[has_both], scores[has_both]))


def test_known_lwlrap_is_nan_without_rejected_species():
    is_present, scores = random_case(6)
    assert np.isnan(lwlrap_known(is_present, is_present, scores))


def test_average_precision_by_hand():
    is_present = np.array([[1, 0], [0, 0], [1, 0]], dtype=bool)
    scores = np.array([[0.9, 0.1], [0.5, 0.2], [0.1, 0.3]])
    np.testing.assert_allclose(average_precisions(is_present, scores), [(1 + 2 / 3) / 2, np.nan])


def test_the_interval_equals_a_loop_over_the_same_resamples():
    is_present, scores = random_case(7, with_ties=True)
    has_any = is_present.any(axis=1)
    n_drawn = has_any.sum()
    draws = np.random.default_rng(11).multinomial(n_drawn, np.full(n_drawn, 1 / n_drawn), size=50)
    resampled = [
        naive_lwlrap(np.repeat(is_present[has_any], times, axis=0), np.repeat(scores[has_any], times, axis=0))
        for times in draws
    ]
    expected = np.quantile(resampled, [0.025, 0.975])
    np.testing.assert_allclose(lwlrap_interval(is_present, scores, 50, seed=11), expected)


def test_the_interval_holds_the_estimate_and_its_seed():
    is_present, scores = random_case(8)
    low, high = lwlrap_interval(is_present, scores, 500, seed=0)
    assert low < lwlrap(is_present, scores) < high
    assert (low, high) == lwlrap_interval(is_present, scores, 500, seed=0)
    assert (low, high) != lwlrap_interval(is_present, scores, 500, seed=1)


def test_a_thousand_resamples_take_well_under_a_second():
    is_present, scores = random_case(9, n_recordings=1200, n_species=24)
    start = time.perf_counter()
    lwlrap_interval(is_present, scores, 1000, seed=0)
    assert time.perf_counter() - start < 1


def test_the_percentile_interval_is_the_middle_of_the_resamples_that_are_known():
    resampled = np.append(np.arange(201) / 200, [np.nan, np.nan])
    assert percentile_interval(resampled) == pytest.approx((0.025, 0.975))
