"""Intervals over groups: by hand, by other formulas for the same number, and by law."""

from math import isnan, sqrt

import numpy as np
import pytest
from scipy.stats import t as student

from callboard.scoring.grouped import jackknife_error, lwlrap_interval_over_groups, sums_by_group, t_interval
from callboard.scoring.metrics import lwlrap


def test_the_error_of_groups_of_one_size_is_that_of_their_mean() -> None:
    means = np.array([0.5, 0.7, 0.9, 0.3])
    assert jackknife_error(means * 5, np.full(4, 5)) == pytest.approx(means.std(ddof=1) / sqrt(4))


def test_the_error_of_two_groups_by_hand() -> None:
    # the ratio is 3 / 4; without the first group it is 2 / 2, without the second 1 / 2: both 1/4 away
    assert jackknife_error(np.array([1.0, 2.0]), np.array([2, 2])) == pytest.approx(sqrt(1 / 2 * 2 / 16))


def test_the_error_is_that_of_scoring_again_without_each_group() -> None:
    rng = np.random.default_rng(1)
    is_present, scores = rng.random((40, 5)) < 0.3, rng.random((40, 5))
    group = rng.choice(["a", "b", "c", "d", "e"], 40)
    whole = lwlrap(is_present, scores)
    without = np.array(
        [lwlrap(is_present[group != name], scores[group != name]) for name in np.unique(group)]
    )
    half = student.ppf(0.975, 4) * sqrt(4 / 5 * ((without - whole) ** 2).sum())
    assert lwlrap_interval_over_groups(is_present, scores, group) == pytest.approx(
        (whole - half, whole + half)
    )


def test_recordings_without_species_and_groups_of_such_do_not_count() -> None:
    rng = np.random.default_rng(2)
    is_present, scores = rng.random((30, 4)) < 0.4, rng.random((30, 4))
    group = np.repeat(["a", "b", "c"], 10)
    more = np.vstack([is_present, np.zeros((5, 4), bool)]), np.vstack([scores, rng.random((5, 4))])
    named = np.concatenate([group, ["a", "d", "d", "e", "e"]])
    expected = lwlrap_interval_over_groups(is_present, scores, group)
    assert lwlrap_interval_over_groups(*more, named) == pytest.approx(expected)


def test_the_interval_of_lwlrap_stays_within_its_range() -> None:
    is_present, scores = np.eye(4, dtype=bool), np.eye(4)
    scores[0] = [0.1, 0.9, 0.8, 0.0]
    low, high = lwlrap_interval_over_groups(is_present, scores, np.array(["a", "b", "c", "d"]))
    assert 0.0 <= low < high == 1.0


def test_one_group_has_no_interval() -> None:
    assert isnan(jackknife_error(np.array([1.0]), np.array([2])))
    assert all(map(isnan, t_interval(0.5, 0.1, 0)))


def test_sums_are_by_group_in_the_order_of_names() -> None:
    sums, counts = sums_by_group(np.array(["b", "a", "b"]), np.array([1.0, 2.0, 4.0]), np.array([1, 1, 3]))
    assert (sums.tolist(), counts.tolist()) == ([2.0, 5.0], [1.0, 4.0])


def test_the_interval_at_new_groups_covers_where_that_over_recordings_cannot() -> None:
    """Means of twelve groups spread, with twenty values each: 95 % of intervals hold the mean of all."""
    rng = np.random.default_rng(3)
    values = 0.7 + rng.normal(0, 0.1, (400, 12, 1)) + rng.normal(0, 0.1, (400, 12, 20))
    held = []
    for world in values:
        low, high = t_interval(world.mean(), jackknife_error(world.sum(axis=1), np.full(12, 20)), 11)
        half = 1.96 * world.std(ddof=1) / sqrt(world.size)
        held.append((low <= 0.7 <= high, abs(world.mean() - 0.7) <= half))
    over_groups, over_recordings = np.mean(held, axis=0)
    assert 0.92 <= over_groups <= 0.98
    assert over_recordings < 0.7
