import numpy as np
import pandas as pd
import pytest

from callboard.params.scoring import InferParams
from callboard.scoring.postprocessing import OFF, gains, without_each
from callboard.scoring.scored_sets import SubmissionScores, TrainingScores
from tests.scoring.test_window_scores import window_scores
from tests.toy_scoring import infer_params

PARTS = [f"a@{'1' * 16}", f"b@{'2' * 16}"]


def test_nothing_is_active_by_default():
    assert list(without_each(infer_params())) == []
    assert gains(infer_params(), lambda params: pytest.fail("scored")) == {}


def test_every_step_is_a_key_of_infer_with_the_value_that_turns_it_off():
    assert OFF.keys() <= InferParams.model_fields.keys()
    assert {step: getattr(infer_params(), step) for step in OFF} == OFF


ON = {
    "fold_weights": [1.0, 9.0],
    "temperature": 2.0,
    "smoothing": [1.0, 2.0, 1.0],
    "blend_weights": [3.0, 1.0],
    "stack": True,
    "prevalence": 0.5,
}
"""Every step with a value at which it does something; of parts of a blend, test_blend and test_stacking."""


@pytest.mark.parametrize("step", OFF)
def test_every_step_that_is_on_can_be_left_out(step):
    parts = {"blend": PARTS} if step in ("blend_weights", "stack") else {}
    params = infer_params(**parts, **{step: ON[step]})
    assert list(without_each(params)) == [(step, infer_params(**parts))]


@pytest.mark.parametrize("step", [step for step in OFF if step not in ("blend_weights", "stack")])
def test_every_step_changes_a_submission_of_probabilities(step, tmp_path):
    oof, scored = tmp_path / "oof.npz", tmp_path / "test.npz"
    window_scores(n_models=1, fold=np.array([0, 1, 0])).save(oof)
    of_test = window_scores(prefix="t", seed=1)
    of_test.save(scored)
    folds = pd.DataFrame({"recording_id": ["r0", "r1", "r2"], "fold": [0, 1, 0]})
    training = TrainingScores(oof, folds, pd.DataFrame(), of_test.species)
    wanted = pd.DataFrame({"recording_id": of_test.recording_ids}).assign(
        **{f"s{species}": 0.5 for species in of_test.species}
    )
    test = SubmissionScores(scored, wanted, training)
    plain, changed = (
        test.submission(params)[0].drop(columns="recording_id").to_numpy()
        for params in (infer_params(), infer_params(**{step: ON[step]}))
    )
    assert changed.shape == plain.shape
    assert ((changed > 0) & (changed < 1)).all()
    assert (changed != plain).any()


def test_each_active_step_is_left_out_alone():
    params = infer_params(temperature=2.0, smoothing=[1, 2, 1], prevalence=0.5)
    without = dict(without_each(params))
    assert list(without) == ["temperature", "smoothing", "prevalence"]
    for step, less in without.items():
        assert less == InferParams.model_validate(params.model_dump() | {step: OFF[step]})


def test_a_blend_has_no_fold_weights_temperature_or_smoothing_of_its_own():
    own = {"fold_weights": [1, 2], "temperature": 2.0, "smoothing": [1, 2, 1]}
    assert [step for step, _ in without_each(infer_params(**own))] == list(own)
    params = infer_params(**own, blend=PARTS, blend_weights=[2, 1])
    assert [step for step, _ in without_each(params)] == ["blend_weights"]
    params = infer_params(temperature=2.0, blend=PARTS, stack=True, prevalence=1.0)
    assert [step for step, _ in without_each(params)] == ["stack", "prevalence"]


def test_a_gain_is_the_score_with_all_steps_minus_that_without_one():
    params = infer_params(temperature=2.0, prevalence=0.25)
    assert gains(params, lambda p: p.temperature + 10 * p.prevalence) == {
        "gain_temperature": 1.0,
        "gain_prevalence": 2.5,
    }


@pytest.mark.parametrize("smoothing", [[1, 1], [1, 0, 1], [0]])
def test_smoothing_without_a_middle_is_refused(smoothing):
    with pytest.raises(ValueError, match="must be an odd number of weights, the middle one above 0"):
        infer_params(smoothing=smoothing)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blend_weights": [1.0]}, "blend_weights has length 1, but blend has 0 parts"),
        ({"blend": PARTS, "blend_weights": [1.0, -1.0]}, "-1.0 must be at least 0"),
        ({"blend": PARTS, "blend_weights": [0, 0]}, "must not be all 0"),
        ({"smoothing": [1, -1, 1]}, "-1.0 must be at least 0"),
        ({"smoothing": [1e308] * 3}, "1e\\+308 must be at least 0 and at most 1000000.0"),
        ({"stack": True}, "stack combines the parts of blend and finds their weights itself"),
        ({"blend": PARTS, "blend_weights": [1, 1], "stack": True}, "finds their weights itself"),
        ({"blend": PARTS + PARTS[:1]}, "names an experiment twice"),
        ({"temperature": 0}, "0.0 must be at least 0.01"),
        ({"prevalence": -1}, "-1.0 must be at least 0"),
    ],
)
def test_steps_that_contradict_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        infer_params(**changes)
