"""Mean changes over seeds: by hand, and how often they are wrong where the truth is known."""

from dataclasses import replace
from math import inf, sqrt

import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from callboard.analysis.bootstrap import mean_of
from callboard.analysis.difference import Difference, MismatchError
from callboard.analysis.verdict import CompareMeans, Pairs, Verdict, judge_cv_mean, judge_lb_mean
from callboard.results.rows import CV
from tests.analysis.test_verdict import seeds
from tests.toy_seeds import worlds


def by_hand(sd_mean: float, sd_single: float) -> CompareMeans:
    """Differences are those of the metrics; the bootstrap is given."""

    def compare(pairs: Pairs) -> Difference:
        value = float(np.mean([a.metrics[CV] - b.metrics[CV] for a, b in pairs]))
        return Difference(value, value - 1, value + 1, 0.5, sd_single if len(pairs) == 1 else sd_mean)

    return compare


def test_the_interval_by_hand() -> None:
    """Changes 0.01, 0.03, 0.05: mean 0.03, variance 0.0004 over seeds. By chance of recordings:
    (0.02² - 0.016²) · 3 / 2 = 0.000216, so 0.000184 / 3 beyond."""
    pairs = list(zip(seeds(0.71, 0.73, 0.75), seeds(0.7, 0.7, 0.7), strict=True))
    found = judge_cv_mean(pairs, by_hand(0.016, 0.02))
    assert found
    error = 0.016**2 + 0.000184 / 3
    dof = 2 * (error / (0.0004 / 3)) ** 2  # 11.3
    half = student.ppf(0.975, int(dof)) * sqrt(error)
    assert (found.low, found.high) == pytest.approx((0.03 - half, 0.03 + half))
    assert found.verdict is Verdict.WITHIN_NOISE


def test_few_groups_of_recordings_leave_few_degrees_of_freedom() -> None:
    """As above, with 0.016² measured over six groups: 5 degrees of freedom for this part."""
    pairs = list(zip(seeds(0.71, 0.73, 0.75), seeds(0.7, 0.7, 0.7), strict=True))
    found = judge_cv_mean(pairs, lambda pairs: replace(by_hand(0.016, 0.02)(pairs), n_groups=6))
    assert found
    error = 0.016**2 + 0.000184 / 3
    dof = error**2 / (0.016**4 / 5 + (0.0004 / 3) ** 2 / 2)  # 4.6
    half = student.ppf(0.975, int(dof)) * sqrt(error)
    assert (found.low, found.high) == pytest.approx((0.03 - half, 0.03 + half))


def test_seeds_that_agree_leave_the_recordings() -> None:
    pairs = list(zip(seeds(0.75, 0.75), seeds(0.7, 0.7), strict=True))
    found = judge_cv_mean(pairs, by_hand(0.02, 0.02))
    assert found
    assert found.high - found.low == pytest.approx(2 * student.ppf(0.975, inf) * 0.02)
    assert (found.verdict, found.is_tentative) == (Verdict.BETTER, True)


def test_three_seeds_are_sure_and_two_are_not() -> None:
    for n_seeds, is_tentative in ((2, True), (3, False)):
        pairs = list(zip(seeds(*[0.75] * n_seeds), seeds(*[0.7] * n_seeds), strict=True))
        found = judge_cv_mean(pairs, by_hand(0.02, 0.02))
        assert found
        assert (found.verdict, found.is_tentative) == (Verdict.BETTER, is_tentative)


def test_without_tables_there_is_no_verdict_and_without_cv_nothing() -> None:
    pairs = list(zip(seeds(0.75, 0.75), seeds(0.7, 0.7), strict=True))
    gone = judge_cv_mean(pairs, lambda pairs: Difference(0.05))
    assert gone
    assert gone.verdict is Verdict.UNSURE
    assert judge_cv_mean(pairs, lambda pairs: None) is None


def test_changes_of_lb_are_judged_as_by_a_t_test() -> None:
    changes = [0.02, 0.01, 0.05, 0.03]
    expected = ttest_1samp(changes, 0).confidence_interval()
    found = judge_lb_mean(changes)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.p_better == pytest.approx(1 - ttest_1samp(changes, 0, alternative="greater").pvalue)
    assert judge_lb_mean([0.01, -0.01]).verdict is Verdict.WITHIN_NOISE


def test_equal_changes_of_few_digits_are_no_proof() -> None:
    assert judge_lb_mean([0.01, 0.01]).verdict is Verdict.UNSURE
    nothing = judge_lb_mean([0.0, 0.0])
    assert (nothing.verdict, nothing.low, nothing.high) == (Verdict.WITHIN_NOISE, 0, 0)


def test_a_bootstrap_that_is_wider_for_the_mean_holds_nothing_of_the_seeds() -> None:
    """By chance: the variance over seeds is then added whole."""
    pairs = list(zip(seeds(0.71, 0.75), seeds(0.7, 0.7), strict=True))
    found = judge_cv_mean(pairs, by_hand(0.03, 0.02))
    assert found
    both = 0.03**2 + 0.0008 / 2
    dof = (both / 0.0004) ** 2
    half = student.ppf(0.975, int(dof)) * sqrt(both)
    assert found.high == pytest.approx(0.03 + half)


def test_the_mean_of_precisions_is_the_mean_of_scores_and_of_others_there_is_none() -> None:
    world, other = worlds(2, common=0.1)
    a, b = world.run(), world.run()
    mean = mean_of([world.known[a.name], world.known[b.name]])
    assert mean.values.mean() == pytest.approx((a.metrics[CV] + b.metrics[CV]) / 2)
    with pytest.raises(MismatchError, match="the tables have different recordings"):
        mean_of([world.known[a.name], other.known[other.run().name]])
    first = world.known[a.name]
    with pytest.raises(MismatchError, match="the tables have different recordings or species"):
        mean_of([first, replace(first, species_of=first.species_of[::-1])])


def share_called_different(common: float, gain: float, n_seeds: int, n_worlds: int) -> float:
    is_alarm = []
    for world in worlds(n_worlds, common):
        pairs = [(world.run(gain), world.run()) for _ in range(n_seeds)]
        found = judge_cv_mean(pairs, world.compare_means)
        assert found
        is_alarm.append(found.verdict is not Verdict.WITHIN_NOISE)
    return float(np.mean(is_alarm))


def test_few_equals_over_three_seeds_are_called_different() -> None:
    """40 pairs; a rate of 5 % has a standard error of 3.4 %."""
    assert share_called_different(0.1, 0.0, n_seeds=3, n_worlds=40) < 0.15


@pytest.mark.slow
@pytest.mark.parametrize("common", [0.0, 0.1, 0.2])
def test_of_equals_over_three_seeds_about_one_in_twenty_is_called_different(common: float) -> None:
    """200 pairs; a rate of 5 % has a standard error of 1.5 %."""
    assert share_called_different(common, 0.0, n_seeds=3, n_worlds=200) < 0.10


@pytest.mark.slow
def test_more_seeds_find_what_one_cannot() -> None:
    assert share_called_different(0.1, 0.3, n_seeds=5, n_worlds=40) > 0.8
