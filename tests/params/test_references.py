from pathlib import Path

from callboard.experiments.table import parameter
from callboard.params.base import read_tree
from callboard.params.defaults import flatten
from callboard.params.references import (
    BLEND,
    INIT_FROM,
    REFERENCE_KEYS,
    blend_parts,
    init_from,
    referenced_results,
)

ROOT = Path(__file__).parents[2]
A, B = "a@0123456789abcdef", "b-seed1@0123456789abcdef"


def test_every_parameter_that_holds_references_is_in_the_list() -> None:
    keys = flatten(read_tree(ROOT / "tests/params.yaml"))
    fields = {key: field for key in keys if (field := parameter(key))}
    assert {key for key, field in fields.items() if "@[0-9a-f]{16}" in repr(field)} == set(REFERENCE_KEYS)


def test_each_name_is_told_once_the_start_first() -> None:
    values = {BLEND: ["b", "a", "c"], INIT_FROM: "a", "optim.lr": "d"}
    assert referenced_results(values) == ["a", "b", "c"]


def test_nothing_is_taken_where_nothing_is_named() -> None:
    assert referenced_results({BLEND: [], INIT_FROM: None}) == referenced_results({}) == []


def test_flat_parameters_tell_the_same() -> None:
    tree = {"train": {"init_from": A}, "infer": {"blend": [A, B]}}
    assert (init_from(flatten(tree)), blend_parts(flatten(tree))) == (A, [A, B])
    assert referenced_results({INIT_FROM: A, BLEND: [A, B]}) == [A, B]


def test_results_older_than_the_keys_take_nothing() -> None:
    tree = {"train": {"init_from": None}, "infer": {"blend": []}}
    for params in ({}, flatten(tree)):
        assert (init_from(params), blend_parts(params)) == ("", [])
