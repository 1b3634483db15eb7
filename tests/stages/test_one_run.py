"""One result is one MLflow run, on whatever way the real DVC reaches it and whatever it is called."""

import json
import sqlite3
import sys
from contextlib import closing
from typing import Any

import pytest

from tests.conftest import Workspace, ran

pytestmark = pytest.mark.slow

MEAN = ("--set-param", "infer.window_agg=mean")


def callboard(workspace: Workspace, *arguments: str) -> str:
    """What a command that must succeed prints."""
    code = "from callboard.cli import main; main()"
    done = workspace.command("env", "PYTHONPATH=src", sys.executable, "-c", code, *arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


def told(workspace: Workspace) -> dict[str, Any]:
    """All that MLflow says of each result, by its name; times and ids left out."""
    queries = {
        "params": "SELECT key, value FROM params WHERE run_uuid = ? ORDER BY key",
        "metrics": "SELECT key, value, step FROM metrics WHERE run_uuid = ? ORDER BY key, step",
        "tags": "SELECT key, value FROM tags WHERE run_uuid = ? AND key LIKE 'callboard.%' ORDER BY key",
    }
    runs = """
        SELECT run_uuid, name FROM runs JOIN tags USING (run_uuid) WHERE status = 'FINISHED'
        AND lifecycle_stage = 'active' AND tags.key = 'callboard.kind' AND tags.value = 'cv'"""
    children = """
        SELECT run_uuid FROM runs JOIN tags USING (run_uuid)
        WHERE tags.key = 'mlflow.parentRunId' AND tags.value = ? ORDER BY name"""
    with closing(sqlite3.connect(workspace.root / "mlflow.db")) as connection:

        def of(run_id: str) -> dict[str, Any]:
            return {what: connection.execute(query, (run_id,)).fetchall() for what, query in queries.items()}

        found = connection.execute(runs).fetchall()
        assert len({name for _, name in found}) == len(found)
        return {
            name: of(run_id) | {"folds": [of(child) for (child,) in connection.execute(children, (run_id,))]}
            for run_id, name in found
        }


def restore(workspace: Workspace) -> None:
    workspace.git("checkout", "--quiet", ".")
    workspace.dvc("checkout")


def test_a_result_stays_one_run_through_every_name_and_way(workspace: Workspace) -> None:
    workspace.dvc("exp", "run", "--temp", "--name", "first", *MEAN)
    before = told(workspace)
    assert len(before) == 2
    workspace.dvc("exp", "rename", "first", "renamed")
    callboard(workspace, "sync")
    assert set(told(workspace)) == set(before) - {"first"} | {"renamed"}
    workspace.dvc("exp", "branch", "renamed", "as-branch")
    workspace.git("tag", "as-tag", "as-branch")
    callboard(workspace, "sync")
    assert len(told(workspace)) == 2
    workspace.dvc("exp", "apply", "renamed")
    workspace.commit()
    assert "Running stage 'predict'" not in workspace.dvc("repro")
    callboard(workspace, "sync")
    after = told(workspace)
    assert len(after) == 2
    assert after["renamed"]["metrics"] == before["first"]["metrics"]


def test_several_workers_on_a_missing_database_make_one_run_each(workspace: Workspace) -> None:
    (workspace.root / "mlflow.db").unlink()
    for n_bootstrap in (121, 122, 123, 124):
        override = f"evaluate.n_bootstrap={n_bootstrap}"
        workspace.dvc("exp", "run", "--queue", "--name", f"boot{n_bootstrap}", "-S", override)
    workspace.dvc("exp", "run", "--run-all", "--jobs", "4")
    assert set(told(workspace)) == {f"boot{n}" for n in (121, 122, 123, 124)}


def test_a_deleted_database_is_rebuilt_from_git_and_dvc_twice_the_same(workspace: Workspace) -> None:
    workspace.dvc("exp", "run", "--temp", "--name", "mean", *MEAN)
    original = told(workspace)
    for _ in range(2):
        (workspace.root / "mlflow.db").unlink()
        callboard(workspace, "sync")
        callboard(workspace, "sync")
        rebuilt = told(workspace)
        assert rebuilt["mean"] == original["mean"]
        assert sorted(json.dumps(run) for run in rebuilt.values()) == sorted(
            json.dumps(run) for run in original.values()
        )


def test_a_score_known_later_reaches_the_finished_run_and_survives_apply(workspace: Workspace) -> None:
    workspace.dvc("exp", "run", "--temp", "--name", "mean", *MEAN)
    callboard(workspace, "lb", "add", "mean", "--public", "0.4321")
    assert ["lb.public", 0.4321, 0] in [list(metric) for metric in told(workspace)["mean"]["metrics"]]
    workspace.dvc("exp", "apply", "mean")
    restore(workspace)
    assert "0.4321" in callboard(workspace, "lb", "list")
    assert ran(workspace.dvc("repro")) <= {"track"}


def test_a_server_that_is_down_costs_nothing_that_sync_does_not_mend(workspace: Workspace) -> None:
    run = ("-m", "dvc", "exp", "run", "--temp", "--name", "mean", *MEAN)
    done = workspace.command("env", "MLFLOW_TRACKING_URI=http://127.0.0.1:9", sys.executable, *run)
    assert done.returncode == 0
    assert "`callboard sync` records the result once it answers" in done.stdout
    assert "mean" not in told(workspace)
    callboard(workspace, "sync")
    assert "mean" in told(workspace)
