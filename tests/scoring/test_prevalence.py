import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from callboard.core.errors import UserError
from callboard.scoring.metrics import lwlrap
from callboard.scoring.prevalence import (
    PREVALENCE_COLUMNS,
    Prevalence,
    estimate_prevalence,
    with_odds_times,
    write_prevalence,
)

N_SPECIES = 16


def simulated(seed, *, shrink=1.0, louder=0.0, share_spread=1.0):
    """Presence in a test set, out-of-fold scores and test scores, and the true ratios of prevalences.

    Logits are those that Bayes gives for two normal classes at the training prevalence; `shrink` times the
    probability is what missing labels leave of it, `louder` is added to the calls of the test set.
    """
    rng = np.random.default_rng(seed)
    skill = rng.uniform(1.5, 3.5, N_SPECIES)
    training = np.full(N_SPECIES, 2.5 / N_SPECIES)
    shares = np.exp(share_spread * rng.normal(size=N_SPECIES))
    test = np.clip(4 * shares / shares.sum(), 0.01, 0.9)

    def scores(is_present, offset):
        signal = rng.normal(size=is_present.shape) + (skill + offset) * is_present
        return shrink * expit(skill * signal - skill**2 / 2 + logit(training))

    in_training = rng.random((1000, N_SPECIES)) < training
    in_test = rng.random((1500, N_SPECIES)) < test
    ratio = in_test.mean(axis=0) / in_training.mean(axis=0)
    return in_test, scores(in_training, 0.0), scores(in_test, louder), ratio


def relative_error(factors, ratio):
    """Root mean square of the log factors' error, beyond a factor common to all species."""
    error = np.log(factors / ratio)
    return error.std()


def naive_em(oof_scores, scores, n_steps):
    estimate = []
    for species in range(scores.shape[1]):
        prior = now = oof_scores[:, species].mean()
        for _ in range(n_steps):
            posterior = [
                p * now / prior / (p * now / prior + (1 - p) * (1 - now) / (1 - prior))
                for p in scores[:, species]
            ]
            now = np.mean(posterior)
        estimate.append(now)
    return estimate


def test_scores_of_0_and_1_alone_leave_factors_that_are_above_0_and_finite():
    found = estimate_prevalence(np.ones((4, 2)), np.array([[0.0, 1.0]] * 3))
    factors = found.factors(2.0)
    assert np.isfinite(factors).all()
    assert (factors > 0).all()


@pytest.mark.parametrize(("training", "scored"), [(0.2, 0.6), (0.6, 0.2)])
def test_an_exponent_that_no_number_can_hold_is_refused(training, scored):
    prevalence = Prevalence(np.array([0.5, training]), np.array([0.5, scored]))
    with pytest.raises(UserError, match=r"infer\.prevalence 1e\+06: factors of odds are 0 or infinite"):
        prevalence.factors(1e6)


@pytest.mark.parametrize("n_steps", [1, 2, 7])
def test_the_estimate_equals_the_naive_twin(n_steps):
    rng = np.random.default_rng(0)
    oof_scores, scores = rng.random((9, 3)), rng.random((7, 3))
    found = estimate_prevalence(oof_scores, scores, n_steps)
    np.testing.assert_allclose(found.scored, naive_em(oof_scores, scores, n_steps), rtol=1e-12)


def test_the_first_step_is_the_ratio_of_mean_scores():
    _, oof_scores, scores, _ = simulated(0)
    factors = estimate_prevalence(oof_scores, scores).factors(1.0)
    np.testing.assert_allclose(factors, scores.mean(axis=0) / oof_scores.mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("n_steps", [1, 10, 100])
def test_the_training_set_scored_itself_keeps_every_factor_at_one(n_steps):
    _, oof_scores, _, _ = simulated(0)
    np.testing.assert_allclose(
        estimate_prevalence(oof_scores, oof_scores, n_steps).factors(1.0), 1, rtol=1e-6
    )


def test_where_scores_are_calibrated_em_comes_to_the_true_shift_and_each_step_nearer():
    _, oof_scores, scores, ratio = simulated(1)
    errors = [
        relative_error(estimate_prevalence(oof_scores, scores, n_steps).factors(1.0), ratio)
        for n_steps in (0, 1, 2, 50)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.3 < 0.8 < errors[0]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("shrink", "louder"), [(1.0, 0.0), (0.4, 0.0), (1.0, -1.0), (0.4, -0.5)])
def test_rescaling_to_a_shifted_set_gains_lwlrap_also_where_labels_are_missing_or_calls_are_faint(
    seed, shrink, louder
):
    is_present, oof_scores, scores, _ = simulated(seed, shrink=shrink, louder=louder)
    factors = estimate_prevalence(oof_scores, scores).factors(1.0)
    assert lwlrap(is_present, with_odds_times(scores, factors)) > lwlrap(is_present, scores) + 0.005


def test_many_steps_lose_where_labels_are_missing():
    """Why EM_STEPS is 1."""
    is_present, oof_scores, scores, _ = simulated(0, shrink=0.4, louder=-0.5)
    one, many = (
        lwlrap(is_present, with_odds_times(scores, estimate_prevalence(oof_scores, scores, n).factors(1.0)))
        for n in (1, 100)
    )
    assert many < lwlrap(is_present, scores) < one


def test_without_a_shift_rescaling_changes_little():
    _, oof_scores, _, _ = simulated(0)
    rng = np.random.default_rng(0)
    half = rng.permutation(len(oof_scores)) < 500
    factors = estimate_prevalence(oof_scores[half], oof_scores[~half]).factors(1.0)
    assert np.abs(np.log(factors)).max() < 0.35


def test_odds_are_multiplied_by_hand():
    prevalence = Prevalence(np.array([0.1, 0.2, 0.2]), np.array([0.4, 0.05, 0.2]))
    np.testing.assert_allclose(prevalence.factors(0.5), [2, 0.5, 1])
    rescaled = with_odds_times(np.array([[0.5, 0.5, 0.3], [0.0, 1.0, 0.9]]), prevalence.factors(0.5))
    np.testing.assert_allclose(rescaled, [[2 / 3, 1 / 3, 0.3], [0, 1, 0.9]])


def test_exponent_zero_leaves_the_order_of_scores():
    _, oof_scores, scores, _ = simulated(0)
    factors = estimate_prevalence(oof_scores, scores).factors(0.0)
    np.testing.assert_allclose(with_odds_times(scores, factors), scores, rtol=1e-12)


def test_scores_that_are_no_probabilities_are_refused():
    fine = np.full((3, 2), 0.5)
    with pytest.raises(
        UserError, match=r"infer\.prevalence: the test scores are not probabilities between 0 and 1"
    ):
        estimate_prevalence(fine, fine * 3)
    with pytest.raises(
        UserError, match=r"infer\.prevalence: the out-of-fold scores are not probabilities between 0 and 1"
    ):
        estimate_prevalence(-fine, fine)
    with pytest.raises(UserError, match="all out-of-fold scores of species 1 are 0"):
        estimate_prevalence(fine * [1, 0], fine)


def test_the_table_is_written_with_every_digit_and_without_an_estimate_as_a_header(tmp_path):
    prevalence = Prevalence(np.array([0.1, 0.3]), np.array([1 / 3, 0.3]))
    write_prevalence(prevalence.table(["3", "07"], 2.0), tmp_path / "a.csv")
    table = pd.read_csv(tmp_path / "a.csv", dtype=str)
    assert table.columns.tolist() == PREVALENCE_COLUMNS
    assert table["species"].tolist() == ["3", "07"]
    assert [float(cell) for cell in table["scored"]] == [1 / 3, 0.3]
    assert [float(cell) for cell in table["factor"]] == prevalence.factors(2.0).tolist()
    write_prevalence(None, tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_text() == "species,training,scored,factor\n"
