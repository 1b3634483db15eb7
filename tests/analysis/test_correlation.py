import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from callboard.analysis.correlation import (
    CORRELATIONS,
    Correlation,
    advantage,
    change,
    correlation,
    pearson,
    spearman,
)


def pairs(n, rho, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return x, rho * x + np.sqrt(1 - rho**2) * rng.normal(size=n)


@pytest.mark.parametrize("seed", range(3))
def test_values_are_those_of_scipy(seed):
    x, y = pairs(20, 0.5, seed)
    y = y.round(1)  # ties
    assert correlation(pearson, x, y).value == pytest.approx(pearsonr(x, y).statistic)
    assert correlation(spearman, x, y).value == pytest.approx(spearmanr(x, y).statistic)


def test_spearman_s_interval_is_that_of_a_naive_loop():
    x, y = pairs(25, 0.5)
    x = x.round(1)  # ties
    found = correlation(spearman, x, y)
    rng = np.random.default_rng(1)
    picks = [rng.integers(25, size=25) for _ in range(2000)]
    naive = np.quantile([spearmanr(x[pick], y[pick]).statistic for pick in picks], [0.025, 0.975])
    np.testing.assert_allclose([found.low, found.high], naive, atol=0.06)
    assert found.n == 25


@pytest.mark.slow
@pytest.mark.parametrize("kind", CORRELATIONS.values())
def test_an_interval_covers_the_truth_about_as_often_as_it_says(kind):
    truth = {pearson: 0.6, spearman: 6 / np.pi * np.arcsin(0.6 / 2)}[kind]
    found = [correlation(kind, *pairs(60, 0.6, seed)) for seed in range(100)]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.88 <= covered <= 0.99


@pytest.mark.parametrize(
    ("x", "y"), [([], []), ([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [2, 2, 2])]
)
@pytest.mark.parametrize("kind", CORRELATIONS.values())
def test_too_few_pairs_or_a_constant_list_have_none(kind, x, y):
    found = correlation(kind, np.array(x, dtype=float), np.array(y, dtype=float))
    assert np.isnan([found.value, found.low, found.high]).all()
    assert found.n == len(x)


def test_resamples_that_are_constant_are_left_out():
    found = correlation(pearson, np.array([0.0, 0, 0, 1]), np.array([0.0, 0, 0, 1]))
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))


def test_a_change_is_that_between_the_two_values():
    earlier, later = pairs(40, 0.9, 1), pairs(30, -0.5, 2)
    found = change(pearson, earlier, later)
    expected = pearsonr(*later).statistic - pearsonr(*earlier).statistic
    assert found.value == pytest.approx(expected)
    assert found.low < expected < found.high < 0
    assert found.n == 30
    assert np.isnan(change(pearson, (earlier[0][:2], earlier[1][:2]), later).value)


def test_two_lists_are_drawn_apart_even_if_they_are_equal():
    """The change is 0, but two sets of such pairs would differ by chance."""
    same = pairs(40, 0.5)
    alone, found = correlation(pearson, *same), change(pearson, same, same)
    assert found.value == 0
    assert (found.high - found.low) / (alone.high - alone.low) == pytest.approx(2**0.5, rel=0.1)


def test_an_estimate_has_no_advantage_over_itself_or_over_a_monotone_map_of_itself():
    x, y = pairs(30, 0.5)
    assert advantage(spearman, x, np.exp(x), y) == Correlation(0.0, 0.0, 0.0, 30)


def test_pairing_tells_apart_what_separate_intervals_cannot():
    a, y = pairs(60, 0.8)
    b = a + np.random.default_rng(9).normal(size=60)
    found = advantage(pearson, a, b, y)
    assert found.low > 0
    assert correlation(pearson, b, y).high > correlation(pearson, a, y).low
    wider = advantage(pearson, a, b, y, coverage=0.999)
    assert wider.low < found.low < found.high < wider.high
