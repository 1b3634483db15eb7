from math import inf
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import t as scipy_t

from callboard.analysis.student import t_cdf, t_quantile

DOFS = [*range(1, 12), 30, 31, 200, 999]


@pytest.mark.parametrize("dof", DOFS)
def test_the_distribution_equals_scipy(dof: int) -> None:
    values = np.linspace(-12, 12, 25)
    np.testing.assert_allclose([t_cdf(x, dof) for x in values], scipy_t.cdf(values, dof), atol=1e-12)
    assert t_quantile(0.975, dof) == pytest.approx(scipy_t.ppf(0.975, dof), rel=1e-8)


def test_a_fraction_of_a_degree_is_rounded_down_and_many_are_normal() -> None:
    assert t_cdf(1.5, 4.9) == t_cdf(1.5, 4)
    assert t_cdf(1.5, inf) == NormalDist().cdf(1.5)
    assert t_quantile(0.975, 999) / t_quantile(0.975, 1000) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("dof", [1, 2, 7, inf])
def test_an_infinite_value_is_certain(dof: float) -> None:
    assert (t_cdf(-inf, dof), t_cdf(inf, dof)) == (0, 1)
