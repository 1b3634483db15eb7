import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from callboard.data.score_tables import score_table
from callboard.results.lookup import find
from callboard.results.result import OUT_OF_FOLD
from callboard.scoring.metrics import lwlrap
from callboard.scoring.scored_sets import TrainingScores
from callboard.scoring.stacking import MIN_STACK_RECORDINGS, C, cross_fitted, fit_stack, in_words
from tests.toy_git import ToyRepository
from tests.toy_scoring import infer_params


def simulated(seed=0, n_recordings=200, n_species=6):
    """Parts of unequal skill and offset, and one species of each recording."""
    rng = np.random.default_rng(seed)
    is_present = np.eye(n_species, dtype=bool)[rng.integers(0, n_species, n_recordings)]
    skill, offset = rng.uniform(0.5, 4, (2, n_species)), rng.normal(-3, 1.5, (2, n_species))
    logits = [
        rng.normal(size=is_present.shape) + skill[part] * is_present + offset[part] for part in range(2)
    ]
    return expit(np.array(logits)), is_present


def test_a_stack_equals_scikit_learn_on_each_species():
    parts, is_present = simulated()
    scores = fit_stack(parts, is_present).scores(parts)
    for species in range(6):
        features = logit(parts[:, :, species].T)
        features = (features - features.mean(axis=0)) / features.std(axis=0)
        expected = LogisticRegression(C=C).fit(features, is_present[:, species]).predict_proba(features)[:, 1]
        np.testing.assert_allclose(scores[:, species], expected, rtol=1e-10)


def test_a_stack_ranks_better_than_the_mean_where_parts_differ_in_skill():
    parts, is_present = simulated()
    scores, _ = cross_fitted(parts, is_present, np.arange(200) % 5)
    assert lwlrap(is_present, scores) > lwlrap(is_present, parts.mean(axis=0)) + 0.03


@pytest.mark.parametrize("held_out", range(4))
def test_labels_of_a_fold_do_not_change_its_stacked_scores(held_out):
    parts, is_present = simulated()
    fold = np.random.default_rng(1).integers(0, 4, 200)
    is_held_out = fold == held_out
    before, _ = cross_fitted(parts, is_present, fold)
    after, _ = cross_fitted(parts, np.where(is_held_out[:, None], ~is_present, is_present), fold)
    np.testing.assert_array_equal(after[is_held_out], before[is_held_out])
    assert (after[~is_held_out] != before[~is_held_out]).all()


def test_cross_fitting_is_a_stack_of_the_other_folds():
    parts, is_present = simulated()
    fold = np.arange(200) % 3
    scores, is_fitted = cross_fitted(parts, is_present, fold)
    others = fit_stack(parts[:, fold != 1], is_present[fold != 1])
    np.testing.assert_array_equal(scores[fold == 1], others.scores(parts[:, fold == 1]))
    assert is_fitted.all()


def test_species_with_too_few_recordings_have_the_mean_of_the_parts_and_are_named():
    parts, is_present = simulated()
    is_present[:, 2] = False
    is_present[: MIN_STACK_RECORDINGS - 1, 2] = True
    is_present[:, 4] = True
    stack = fit_stack(parts, is_present)
    assert stack.is_fitted.tolist() == [True, True, False, True, False, True]
    scores = stack.scores(parts)
    np.testing.assert_array_equal(scores[:, [2, 4]], parts.mean(axis=0)[:, [2, 4]])
    words = in_words(stack.is_fitted, list("abcdef"))
    assert words == "regressions for 4 species; 2 in fewer than 5 recordings use the mean: c, e"
    assert in_words(np.array([True]), ["a"]) == "regressions for 1 species"


def test_a_species_too_rare_without_one_fold_counts_as_not_fitted():
    parts, is_present = simulated(n_recordings=60)
    is_present[:, 0] = np.arange(60) < MIN_STACK_RECORDINGS + 1
    fold = np.where(np.arange(60) < 3, 0, 1)  # fold 1 is scored by a stack that saw 3 of them
    scores, is_fitted = cross_fitted(parts, is_present, fold)
    assert not is_fitted[0]
    np.testing.assert_array_equal(scores[fold == 1, 0], parts.mean(axis=0)[fold == 1, 0])


def test_a_species_that_only_the_first_fold_s_stack_lacks_counts_as_not_fitted():
    parts, is_present = simulated(n_recordings=60)
    is_present[:, 0] = np.arange(60) < 12
    is_first = (np.arange(60) < 9) | (np.arange(60) >= 50)  # 3 of the species are outside, 9 inside
    assert not cross_fitted(parts, is_present, np.where(is_first, 0, 1))[1][0]


def test_a_part_that_says_the_same_of_all_recordings_adds_nothing():
    parts, is_present = simulated()
    constant = np.concatenate([parts, np.full_like(parts[:1], 0.3)])
    alone = fit_stack(parts, is_present).scores(parts)
    np.testing.assert_allclose(fit_stack(constant, is_present).scores(constant), alone, rtol=1e-4)


def test_probabilities_of_0_and_1_can_be_stacked():
    parts, is_present = simulated()
    parts[0] = np.round(parts[0])
    assert np.isfinite(fit_stack(parts, is_present).scores(parts)).all()


def test_each_choice_of_parts_has_a_stack_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "main"))
    repository = ToyRepository(tmp_path / "main")
    parts, is_present = simulated(n_recordings=60, n_species=2)
    recordings, species = [f"r{i:02d}" for i in range(60)], ["3", "07"]
    for name, scores in zip("ab", parts, strict=True):
        table = score_table(recordings, species, scores)
        repository.experiment(name, {OUT_OF_FOLD: repository.cache_table(table)})
    folds = pd.DataFrame({"recording_id": recordings, "fold": np.arange(60) % 3})
    calls = {"recording_id": recordings, "species_id": np.take(species, is_present.argmax(axis=1))}
    training = TrainingScores(tmp_path, folds, pd.DataFrame(calls).assign(label_type="tp"), species)
    for names, chosen in (("a", [0]), ("b", [1]), ("ab", [0, 1])):
        params = infer_params(blend=[find(name).reference for name in names], stack=True)
        expected, _ = cross_fitted(parts[chosen], is_present, folds["fold"].to_numpy())
        np.testing.assert_allclose(training.out_of_fold(params).scores, expected)
        whole = fit_stack(parts[chosen], is_present)
        np.testing.assert_allclose(training.stack(params).weights, whole.weights)
