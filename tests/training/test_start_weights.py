"""The recipe of a finished experiment, for networks that hold out more folds than its own."""

import pytest

from callboard.core.errors import UserError
from callboard.results.result import Result, ResultRef
from callboard.training import start_weights as init_from
from callboard.training.start_weights import find_recipe

REFERENCE = "before@0123456789abcdef"
SECTIONS = {"seed": 1, "train": {"epochs": 3}}


def finish(monkeypatch, *models):
    """Let the reference mean a result that predicts by these networks."""
    predict = {"deps": [{"path": path} for path in ("data/mel", *models)]}
    lock = {"train@0": {"params": {"params.yaml": SECTIONS}}, "predict": predict}
    found = Result(ResultRef(*REFERENCE.split("@")), lock, text={}.get)
    monkeypatch.setattr(init_from, "find_exactly", lambda reference, setting: {REFERENCE: found}[reference])


def test_a_recipe_is_what_the_folds_were_trained_by(monkeypatch):
    finish(monkeypatch, "models/r0")
    assert find_recipe(REFERENCE) == SECTIONS


@pytest.mark.parametrize(
    ("models", "told"), [(["models/r1"], "models/r1"), (["models/r2"], "models/r2"), ([], "no networks")]
)
def test_the_recipe_of_a_result_with_students_is_refused(monkeypatch, models, told):
    finish(monkeypatch, *models)
    words = rf"train\.init_from: {REFERENCE} predicts with {told}; pseudo\.isolation nested retrains it"
    with pytest.raises(UserError, match=words):
        find_recipe(REFERENCE)
