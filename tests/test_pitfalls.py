"""The known traps of DVC and MLflow side by side, each with the tests that keep us out of it."""

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from callboard.analysis.bases import differs_by
from callboard.experiments.steps import TableStep
from callboard.params.defaults import texts_with_defaults
from callboard.results.result import changes
from tests.reports.test_board_columns import E1

ROOT = Path(__file__).parent.parent
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]

KEPT_OUT_BY = {
    "an uncached out switches the run-cache off": [
        "test_dvc_yaml.py::test_only_track_has_an_uncached_out",
        "stages/test_one_run.py::test_a_result_stays_one_run_through_every_name_and_way",
    ],
    "a temporary workspace imports the main one's code": [
        "stages/test_pipeline.py::test_queued_experiments_run_their_own_code_and_make_one_run_each_in_a_missing_database",
    ],
    "exp save and commit poison the run-cache": ["analysis/test_doctor.py::test_a_planted_trouble_is_found"],
    "processes that create MLflow's tables together leave them broken": [
        "results/test_tracking.py::test_four_processes_at_once_on_a_missing_database_leave_it_whole",
        "results/test_sync.py::test_sync_and_track_at_once_on_a_missing_database_leave_it_whole",
        "stages/test_pipeline.py::test_queued_experiments_run_their_own_code_and_make_one_run_each_in_a_missing_database",
    ],
    "exp apply overwrites leaderboard scores": [
        "results/test_leaderboard.py::test_nothing_is_lost_under_dvc_itself",
        "stages/test_one_run.py::test_a_score_known_later_reaches_the_finished_run_and_survives_apply",
    ],
    "dvc takes new keys, wrong types and wrong values": [
        "stages/test_pipeline.py::test_a_key_that_no_stage_reads_is_refused",
        "stages/test_pipeline.py::test_a_typo_in_a_value_stops_before_anything_runs",
        "params/test_params.py::test_wrong_parameters_are_refused_in_words",
    ],
    "YAML 1.1 reads 1e-3 as text": ["params/test_params.py::test_numbers_are_read_as_dvc_reads_them"],
    "a nested .gitignore is hashed with its folder": [
        "test_dvc_yaml.py::test_cached_outs_are_ignored_by_the_gitignore_at_the_root",
        "stages/test_pipeline.py::test_git_sees_metrics_and_plots_and_nothing_else_that_was_made",
    ],
    "compiled files make folders stale": ["test_pitfalls.py::test_dvc_does_not_see_compiled_files"],
    "persist keeps what other parameters made": [
        "test_pitfalls.py::test_no_output_outlives_its_parameters",
    ],
    "MLFLOW_RUN_ID turns folds into their parent": [
        "results/test_tracking.py::test_a_run_id_in_the_environment_does_not_swallow_the_folds",
        "analysis/test_doctor.py::test_a_trap_in_the_environment_is_found",
    ],
    "MLflow's places hang on the current folder": [
        "results/test_tracking.py::test_artifacts_belong_to_the_main_workspace",
        "results/test_tracking.py::test_a_relative_database_lies_in_the_main_workspace",
    ],
    "two experiments in one workspace break both": [
        "experiments/test_launch.py::test_a_row_becomes_an_experiment_of_its_name_in_a_copy_of_the_workspace",
        "analysis/test_doctor.py::test_a_planted_trouble_is_found",
    ],
    "exp show is empty after a commit": [
        "test_pitfalls.py::test_the_board_does_not_ask_on_which_commit_one_stands",
    ],
    "one version of mlflow cannot be installed": [
        "test_pitfalls.py::test_the_lock_holds_the_three_parts_of_mlflow_at_one_version",
    ],
    "mlflow ui takes 2 GB": [
        "commands/test_ui.py::test_the_server_is_lean_and_not_misled_by_the_environment",
    ],
    "a corrected score needs a later time": [
        "results/test_tracking.py::test_a_leaderboard_score_reaches_a_finished_run_and_a_lower_correction_wins",
    ],
    "names of experiments move": ["results/test_sync.py::test_however_a_result_is_reached_it_stays_one_run"],
    "files that git does not know do not reach other workspaces": [
        "analysis/test_doctor.py::test_a_planted_trouble_is_found",
    ],
    "a dvc.lock of folders that the cache lacks breaks experiments off": [
        "analysis/test_doctor.py::test_a_planted_trouble_is_found",
        "stages/test_chain.py::test_a_lost_folder_hinders_no_row_and_is_named_with_what_heals_it",
    ],
    "parallel repro loses stages": [
        "test_pitfalls.py::test_only_callboard_repro_reproduces_in_the_workspace"
    ],
    "a new parameter makes old results stale": [
        "test_pitfalls.py::test_an_older_result_without_a_parameter_of_today_is_still_compared",
        "params/test_evolution.py::test_the_board_holds_results_of_before_and_after_as_of_one_setting",
    ],
    "hydra rewrites params.yaml": ["test_pitfalls.py::test_hydra_does_not_compose_our_parameters"],
}


@pytest.mark.parametrize("tests", KEPT_OUT_BY.values(), ids=KEPT_OUT_BY)
def test_every_trap_has_tests_that_are_there(tests: list[str]) -> None:
    for test in tests:
        file, _, name = test.partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test


def test_dvc_does_not_see_compiled_files() -> None:
    ignored = (ROOT / ".dvcignore").read_text(encoding="utf-8").splitlines()
    assert {"__pycache__/", "*.pyc"} <= set(ignored)


def test_no_output_outlives_its_parameters() -> None:
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    assert not re.search(r"^\s*(persist|frozen):", text, re.MULTILINE)
    assert {name for name, stage in STAGES.items() if stage.get("always_changed")} == {"recordings"}
    assert not any(".cache" in str(stage) for stage in STAGES.values())  # checkpoints of killed runs


def test_the_board_does_not_ask_on_which_commit_one_stands() -> None:
    files = [
        file for room in ("analysis", "reports") for file in (ROOT / "src/callboard" / room).rglob("*.py")
    ]
    assert files
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"exp_show|\"exp\", \"(show|list)\"", text), file.name


def test_the_lock_holds_the_three_parts_of_mlflow_at_one_version() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    versions = dict(re.findall(r"^(mlflow(?:-skinny|-tracing)?)==(\S+)", lock, re.MULTILINE))
    assert len(versions) == 3
    assert len(set(versions.values())) == 1


def test_only_callboard_repro_reproduces_in_the_workspace() -> None:
    callers = set()
    for file in (ROOT / "src/callboard").rglob("*.py"):
        for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef):
                callers |= {function.name for node in ast.walk(function) if _runs_repro(node)}
    assert callers == {"reproduce", "_is_up_to_date"}


def _runs_repro(node: ast.AST) -> bool:
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dvc"
    return is_call and any(isinstance(word, ast.Constant) and word.value == "repro" for word in node.args)


def test_an_older_result_without_a_parameter_of_today_is_still_compared() -> None:
    full = texts_with_defaults(E1.params)
    older = {key: text for key, text in full.items() if not key.startswith("loss.labeled.")}
    before, today = (replace(E1, params=texts_with_defaults(params)) for params in (older, full))
    assert changes(before.params, today.params) == []
    assert before.setting == today.setting
    assert differs_by(before, today, TableStep("e1", {"optim.lr"}))
    switched_on = replace(today, params=full | {"loss.labeled.weight": "0.5"})
    assert changes(before.params, switched_on.params) == ["loss.labeled.weight: 0.0 → 0.5"]
    assert not differs_by(before, switched_on, TableStep("e1", {"optim.lr"}))


def test_hydra_does_not_compose_our_parameters() -> None:
    assert "hydra" not in (ROOT / ".dvc/config").read_text(encoding="utf-8")
    assert not (ROOT / "conf").exists()
