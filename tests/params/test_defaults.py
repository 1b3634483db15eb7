"""Parameters completed by defaults: nested, as text, and under the names of today."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from callboard.core.code_fingerprint import import_closure
from callboard.core.errors import UserError
from callboard.experiments.launch import Plan
from callboard.experiments.overrides import with_signs
from callboard.experiments.table import read_experiments
from callboard.params.base import Params, read_tree, section_of
from callboard.params.defaults import (
    flatten,
    known_keys,
    read_full_tree,
    result_params,
    texts_with_defaults,
    with_defaults,
)
from callboard.params.experiment import Experiment, load_experiment
from callboard.params.renamed import renamed, renamed_texts

ROOT = Path(__file__).parents[2]
TREE = read_tree(ROOT / "tests/params.yaml")


def without(tree: dict[str, Any], key: str) -> dict[str, Any]:
    first, _, rest = key.partition(".")
    return {
        name: without(value, rest) if rest and name == first else value
        for name, value in tree.items()
        if rest or name != first
    }


def fields(cls: type[Params]) -> list[tuple[str, Any]]:
    found = []
    for name, field in cls.model_fields.items():
        section = section_of(field)
        found += [(f"{name}.{key}", one) for key, one in fields(section)] if section else [(name, field)]
    return found


@pytest.mark.parametrize(
    ("key", "field"), fields(Experiment), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_key_may_be_left_out(key: str, field: Any) -> None:
    assert not field.is_required()
    left_out = with_defaults(without(TREE, key))
    default = field.get_default(call_default_factory=True)
    assert flatten(left_out) | flatten({key: default}) == flatten(left_out)


def test_completing_is_what_checking_makes_of_a_file() -> None:
    assert with_defaults(TREE) == load_experiment(ROOT / "tests/params.yaml").model_dump()
    short = {"loss": {"max": {"weight": 1}}, "sched": {"t_max": 7}}
    assert with_defaults(short) == Experiment.model_validate(short).model_dump()


@pytest.mark.parametrize(
    "key", ["loss.labeled", "loss.max.weight", "model.backbone_args", "train", "sched.t_max"]
)
def test_texts_are_completed_as_trees_are(key: str) -> None:
    tree = without(TREE, key)
    assert texts_with_defaults(flatten(tree)) == result_params(with_defaults(tree))


def test_a_whole_number_is_the_same_number_as_a_float() -> None:
    assert texts_with_defaults({"sched.t_max": "7"}) == texts_with_defaults({"sched.t_max": "7.0"})
    assert texts_with_defaults({"train.epochs": "7"})["train.epochs"] == "7"
    assert flatten(with_defaults({"sched": {"t_max": 7}}))["sched.t_max"] == "7.0"
    assert flatten(with_defaults({"sched": {"t_max": True}}))["sched.t_max"] == "true"  # not a number
    assert texts_with_defaults({"sched.t_max": "-7"}) == texts_with_defaults({"sched.t_max": "-7.0"})


def test_results_compare_without_what_no_stage_reads() -> None:
    """Results have equal parameters whatever `scale` said, and if they are from before it existed."""
    rescaled = TREE | {"scale": {"window": 2.0}}
    for tree in (rescaled, without(TREE, "scale")):
        assert texts_with_defaults(flatten(tree)) == texts_with_defaults(flatten(TREE))
        assert result_params(with_defaults(tree)) == result_params(with_defaults(TREE))
    assert with_defaults(rescaled)["scale"]["window"] == 2.0
    assert with_signs(["scale.window=0.25"], without(TREE, "scale")) == ["+scale.window=0.25"]


def test_an_empty_section_is_one_that_is_left_out() -> None:
    assert texts_with_defaults({"seed": "1", "sched": "{}"}) == texts_with_defaults({"seed": "1"})


def test_unknown_parameters_stay_unknown() -> None:
    assert texts_with_defaults({}) == {}
    assert texts_with_defaults({"of.before": "1"})["of.before"] == "1"


def test_values_are_found_under_the_names_of_today() -> None:
    table = {"loss.position": "loss.place", "pseudo.final": "pseudo.rounds", "old": "new.key"}
    tree = {
        "loss": {"position": {"weight": 1}, "positions": 2},
        "pseudo": {"final": 1, "rounds": [0]},
        "old": 3,
        "older": 4,
    }
    given = deepcopy(tree)
    expected = {
        "loss": {"place": {"weight": 1}, "positions": 2},
        "pseudo": {"rounds": 1},
        "new": {"key": 3},
        "older": 4,
    }
    assert renamed(tree, table) == expected
    assert renamed_texts(flatten(tree), table) == flatten(expected)
    assert renamed(expected, table) == expected
    assert tree == given


def test_a_file_of_before_a_key_was_renamed_says_what_it_said(tmp_path: Path) -> None:
    old = without(TREE, "pseudo.rounds")
    old["pseudo"]["final"] = 2
    now = without(TREE, "pseudo.rounds")
    now["pseudo"]["rounds"] = 2
    path = tmp_path / "params.yaml"
    YAML().dump(old, path)
    assert load_experiment(path).pseudo.rounds == 2
    assert read_full_tree(path) == with_defaults(old) == with_defaults(now)
    assert texts_with_defaults(flatten(old)) == texts_with_defaults(flatten(now))


def test_a_key_that_older_results_leave_out_still_means_what_it_meant() -> None:
    """Another default would change silently what every result says that does not list the key."""
    meant = flatten(read_tree(ROOT / "tests/params/defaults.yaml"))
    defaults = known_keys().defaults
    assert {key: defaults.get(key) for key in meant} == meant


def test_a_key_that_is_not_listed_gets_a_plus(tmp_path: Path) -> None:
    tree = without(without(TREE, "loss.labeled"), "model.backbone_args")
    path = tmp_path / "params.yaml"
    path.write_text("seed: 1\nloss:\n  max:\n    weight: 0.5\n", encoding="utf-8")
    wanted = [
        "seed=2",
        "loss.labeled.weight=0.5",
        "loss.labeled.weight=0.6",
        "~loss.smoothing",
        "+train.epochs=3",
    ]
    signed = with_signs(wanted, read_tree(path))
    assert signed == ["seed=2", "+loss.labeled.weight=0.5", "loss.labeled.weight=0.6", "+train.epochs=3"]
    apply_overrides(path, signed)
    assert read_tree(path) == {
        "seed": 2,
        "loss": {"max": {"weight": 0.5}, "labeled": {"weight": 0.6}},
        "train": {"epochs": 3},
    }
    assert with_signs(["model.backbone_args.depth=3"], tree) == ["+model.backbone_args.depth=3"]
    assert with_signs(["split.folds.0=1"], TREE) == ["split.folds.0=1"]


def test_a_key_of_another_file_is_refused() -> None:
    with pytest.raises(UserError, match=r"-S other.yaml:a=1: expected KEY=VALUE"):
        with_signs(["other.yaml:a=1"], TREE)


@pytest.mark.parametrize("override", ["loss.negmask=seq", "+loss.negmask=seq", "~loss.negmask"])
def test_a_key_that_is_no_parameter_is_refused_with_the_nearest(override: str) -> None:
    with pytest.raises(UserError, match=r"-S loss.negmask: not a parameter; the nearest are loss.neg_mask"):
        with_signs([override], TREE)


def test_what_only_compares_parameters_does_not_rerun_with_the_class_of_another_section() -> None:
    assert "src/callboard/params/defaults.py" in import_closure(ROOT, "stages.train")
    assert "src/callboard/params/experiment.py" not in import_closure(ROOT, "stages.train")


def test_a_row_and_what_the_user_adds_get_their_plus() -> None:
    tree = without(without(TREE, "pseudo.labels"), "loss.neg_mask")
    plan = Plan(read_experiments(ROOT / "experiments.yaml"), tree, ["pseudo.labels=soft"])
    assert plan.overrides("exp0058") == ["+loss.neg_mask=seq", "+pseudo.labels=soft"]
