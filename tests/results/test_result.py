from pathlib import Path

import pytest
from ruamel.yaml import YAML

from callboard.core.compute import Compute, as_cells
from callboard.core.errors import UserError
from callboard.params.base import read_tree
from callboard.params.defaults import flatten
from callboard.results.dvc_lock import Lock, content_key
from callboard.results.result import changes
from tests.toy_results import entry, lock_stages, record_compute, result_in, workspace

__all__ = ["workspace"]

HERE = Compute("cpu", "AMD EPYC (AVX2)", 1, "float32", "2.14.1")
THERE = Compute("cuda", "NVIDIA H200", 1, "bfloat16", "2.14.1")
ELSEWHERE = Compute("mps", "Apple M2", 1, "float32", "2.14.1")


# the key


def test_the_key_is_the_same_for_other_code_that_changes_no_output() -> None:
    other = lock_stages()
    other["train@0"]["deps"][1]["md5"] = "code2"
    assert content_key(other) == content_key(lock_stages())


def test_the_key_does_not_ask_for_the_fingerprints_of_code() -> None:
    def with_code(md5: str) -> Lock:
        stages = lock_stages()
        stages["code"] = entry({"src/callboard": md5}, {".check/code": md5})
        stages["train@0"]["deps"].append({"path": ".check/code/train.txt", "md5": md5})
        return stages

    assert content_key(with_code("old")) == content_key(with_code("new")) == content_key(lock_stages())


@pytest.mark.parametrize("stage", ["prepare", "split", "train@1", "predict", "evaluate", "score"])
def test_another_output_anywhere_is_another_key(stage: str) -> None:
    other = lock_stages()
    other[stage]["outs"][0]["md5"] += "x"
    if stage == "split":  # what read it has been made anew
        for name in ("train@0", "train@1"):
            other[name]["deps"][0]["md5"] += "x"
    assert content_key(other) != content_key(lock_stages())


def test_another_parameter_is_another_key_even_where_no_output_differs() -> None:
    other = lock_stages()
    other["train@0"]["params"]["params.yaml"]["seed"] = 2
    assert content_key(other) != content_key(lock_stages())


def test_folds_that_the_matrix_no_longer_has_do_not_change_the_key() -> None:
    with_orphan = lock_stages()
    with_orphan["train@2"] = entry({"data/folds.csv": "of three folds"}, {"models/r0/fold2.pt": "old"})
    with_orphan["predict"]["deps"][0]["md5"] = "folder with the old file.dir"
    assert content_key(with_orphan) == content_key(lock_stages())


def test_stages_that_lead_nowhere_do_not_change_the_key() -> None:
    with_round = lock_stages()
    with_round["retrain_1@1-0---"] = entry({"data/folds.csv": "f1"}, {"models/r1/fold0.pt": "student"})
    assert content_key(with_round) == content_key(lock_stages())


def test_a_file_whose_path_begins_like_a_dependency_does_not_change_the_key() -> None:
    with_neighbour = lock_stages()
    with_neighbour["other"] = entry({}, {"data/sou": "x", "data/clips": "y"})
    assert content_key(with_neighbour) == content_key(lock_stages())


# what is read


def test_what_computed_a_result_is_what_computed_each_of_its_folds(workspace: Path) -> None:
    before = result_in(workspace)
    assert before.computed_by == frozenset()
    record_compute(workspace, 0, HERE)
    record_compute(workspace, 1, THERE)
    found = result_in(workspace)
    assert found.computed_by == {HERE, THERE}
    assert found.curves == before.curves


def test_nested_networks_count_where_they_are_recorded_and_belong_to_the_result(workspace: Path) -> None:
    tree = read_tree(workspace / "params.yaml")
    tree["pseudo"] = {
        "rounds": 1,
        "isolation": "nested",
        "held_out": {"pairs": ["0-1"], "triples": ["0-1-2"]},
    }
    for fold in tree["split"]["folds"]:
        record_compute(workspace, fold, HERE)
        curve = (workspace / f"plots/train/r0-fold{fold}.csv").read_text()
        (workspace / f"plots/train/r1-fold{fold}.csv").write_text(curve)
    YAML().dump(tree, workspace / "params.yaml")
    assert result_in(workspace).computed_by == {HERE}  # an older one, without their curves

    def record_network(name: str, compute: Compute) -> None:
        cells = as_cells(compute)
        path = workspace / "plots/networks/r0" / name
        path.parent.mkdir(parents=True)
        path.write_text(f"epoch,{','.join(cells)}\n1,{','.join(cells.values())}\n")

    record_network("3/0-1-2.csv", ELSEWHERE)  # left by a result of two rounds
    assert result_in(workspace).computed_by == {HERE}
    record_network("2/0-1.csv", THERE)
    assert result_in(workspace).computed_by == {HERE, THERE}


def test_the_networks_of_all_rounds_count_and_for_a_blend_none_of_the_workspace_s(workspace: Path) -> None:
    path = workspace / "params.yaml"
    tree = read_tree(path)
    tree["pseudo"] = {"rounds": 1}
    for fold in tree["split"]["folds"]:
        curve = (workspace / f"plots/train/r0-fold{fold}.csv").read_text()
        (workspace / f"plots/train/r1-fold{fold}.csv").write_text(curve)
        record_compute(workspace, fold, HERE)  # of the teachers
    YAML().dump(tree, path)
    assert result_in(workspace).computed_by == {HERE}
    tree["infer"] = {"blend": ["a@0123456789abcdef", "b@0123456789abcdef"]}
    YAML().dump(tree, path)
    assert result_in(workspace).computed_by == frozenset()


def test_flatten_by_hand() -> None:
    tree = {"a": 1, "b": {"c": 1e-4, "d": {"e": True, "f": None}}, "g": [1, 2], "h": {}, "i": "text"}
    flat = {
        "a": "1",
        "b.c": "0.0001",
        "b.d.e": "true",
        "b.d.f": "null",
        "g": "[1, 2]",
        "h": "{}",
        "i": "text",
    }
    assert flatten(tree) == flat


def test_changes_name_what_differs_appears_and_goes() -> None:
    assert changes({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "4", "d": "5"}) == [
        "b: 2 → 4",
        "d: absent → 5",
        "c: 3 → absent",
    ]


def test_a_result_whose_rounds_were_a_list_is_read_as_one_of_a_number_of_rounds(workspace: Path) -> None:
    path = workspace / "params.yaml"
    tree = read_tree(path)
    tree["pseudo"] = {"rounds": [{"teacher": 0, "student": 1}], "final": 1}
    YAML().dump(tree, path)
    for fold in tree["split"]["folds"]:
        curve = (workspace / f"plots/train/r0-fold{fold}.csv").read_text()
        (workspace / f"plots/train/r1-fold{fold}.csv").write_text(curve)
    before = result_in(workspace)
    tree["pseudo"] = {"rounds": 1}
    YAML().dump(tree, path)
    after = result_in(workspace)
    assert (before.params, before.curves, before.outs) == (after.params, after.curves, after.outs)
    assert before.params["pseudo.rounds"] == "1"


def test_a_reported_score_overrides_that_on_known_labels(workspace: Path) -> None:
    with (workspace / "leaderboard.csv").open("a") as ledger:
        ledger.write("sub-none,0.6,,,\nanother,0.1,0.1,,\n")
    assert result_in(workspace).lb == {"lb.public": 0.6, "lb.private": 0.64}


def test_a_result_without_known_truth_has_no_leaderboard_score(workspace: Path) -> None:
    (workspace / "metrics/lb.json").write_text('{"lb": {}}')
    assert result_in(workspace).lb == {}


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("leaderboard.csv", "git checkout leaderboard.csv"),
        ("metrics/cv.json", "dvc repro"),
        ("plots/train/r0-fold1.csv", "dvc repro"),
    ],
)
def test_a_missing_file_is_named_with_a_way_to_get_it(workspace: Path, name: str, way_out: str) -> None:
    (workspace / name).unlink()
    with pytest.raises(UserError, match=f"{name}: not found; .*{way_out}"):
        result_in(workspace)


def test_without_a_lock_one_is_told_to_run_the_pipeline(workspace: Path) -> None:
    (workspace / "dvc.lock").unlink()
    with pytest.raises(UserError, match=r"dvc\.lock: not found; `dvc repro` writes it"):
        result_in(workspace)


def test_window_scores_are_found_where_older_results_have_them(workspace: Path) -> None:
    assert result_in(workspace).window_scores == "scores/r0"  # as the toy's pipeline wrote them
    text = (workspace / "dvc.lock").read_text().replace("path: scores/r0\n", "path: scores/windows\n")
    (workspace / "dvc.lock").write_text(text)
    assert result_in(workspace).window_scores == "scores/windows"
