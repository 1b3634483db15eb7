import pytest

from callboard.params.scoring import InferParams
from callboard.scoring.postprocessing import OFF, gains, without_each
from tests.toy_scoring import INFER, infer_params

PARTS = [f"a@{'1' * 16}", f"b@{'2' * 16}"]


def test_nothing_is_active_by_default():
    assert list(without_each(infer_params())) == []
    assert gains(infer_params(), lambda params: pytest.fail("scored")) == {}


def test_every_step_is_a_key_of_infer_with_the_value_that_turns_it_off():
    assert OFF.keys() <= InferParams.model_fields.keys()
    assert {step: INFER[step] for step in OFF} == OFF


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


@pytest.mark.parametrize("smoothing", [[1, 1], [1, -1, 1], [1, 0, 1], [0]])
def test_smoothing_without_a_middle_is_refused(smoothing):
    with pytest.raises(
        ValueError, match="must be an odd number of weights, none negative, the middle one above 0"
    ):
        infer_params(smoothing=smoothing)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blend_weights": [1.0]}, "blend_weights are 1, but blend has 0 parts"),
        ({"blend": PARTS, "blend_weights": [1.0, -1.0]}, "must not be negative, and not all 0"),
        ({"blend": PARTS, "blend_weights": [0, 0]}, "must not be negative, and not all 0"),
        ({"smoothing": [1e308] * 3}, "has no finite sum"),
        ({"stack": True}, "stack combines the parts of blend and finds their weights itself"),
        ({"blend": PARTS, "blend_weights": [1, 1], "stack": True}, "finds their weights itself"),
        ({"blend": PARTS + PARTS[:1]}, "names an experiment twice"),
        ({"temperature": 0}, "greater than 0"),
        ({"prevalence": -1}, "greater than or equal to 0"),
    ],
)
def test_steps_that_contradict_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        infer_params(**changes)
