"""One result is one MLflow run, on whatever way the real DVC reaches it and whatever it is called."""

import json
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Workspace, ran

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def with_experiment(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The finished workspace with one experiment, named mean; not to be changed, see `measured`."""
    workspace = copied(finished, tmp_path_factory.mktemp("one-run") / "workspace")
    workspace.dvc("exp", "run", "--temp", "--name", "mean", "-S", "infer.window_agg=mean")
    return workspace


@pytest.fixture
def measured(with_experiment: Workspace, tmp_path: Path) -> Workspace:
    """The same, of the test's own."""
    return copied(with_experiment, tmp_path / "workspace")


def copied(workspace: Workspace, root: Path) -> Workspace:
    return Workspace(shutil.copytree(workspace.root, root, symlinks=True))


CALLBOARD = ("env", "PYTHONPATH=src", sys.executable, "-c", "from callboard.cli import main; main()")
"""The command of the workspace's own code."""


def callboard(workspace: Workspace, *arguments: str) -> str:
    """What a command that must succeed prints."""
    done = workspace.command(*CALLBOARD, *arguments)
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


def test_a_result_stays_one_run_through_every_name_and_way(measured: Workspace) -> None:
    workspace = measured
    before = told(workspace)
    assert len(before) == 2
    workspace.dvc("exp", "rename", "mean", "renamed")
    callboard(workspace, "sync")
    assert set(told(workspace)) == set(before) - {"mean"} | {"renamed"}
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
    assert after["renamed"]["metrics"] == before["mean"]["metrics"]


def test_a_deleted_database_is_rebuilt_from_git_and_dvc_twice_the_same(measured: Workspace) -> None:
    workspace = measured
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


def test_a_score_known_later_reaches_the_finished_run_and_survives_apply(measured: Workspace) -> None:
    workspace = measured
    callboard(workspace, "lb", "add", "mean", "--public", "0.4321")
    assert ["lb.public", 0.4321, 0] in [list(metric) for metric in told(workspace)["mean"]["metrics"]]
    workspace.dvc("exp", "apply", "mean")
    restore(workspace)
    assert "0.4321" in callboard(workspace, "lb", "list")
    assert ran(workspace.dvc("repro")) <= {"track"}


def test_a_server_that_is_down_costs_nothing_that_sync_does_not_mend(workspace: Workspace) -> None:
    run = ("-m", "dvc", "exp", "run", "--temp", "--name", "other", "-S", "evaluate.n_bootstrap=120")
    done = workspace.command("env", "MLFLOW_TRACKING_URI=http://127.0.0.1:9", sys.executable, *run)
    assert done.returncode == 0
    assert "`callboard sync` records the result once it answers" in done.stdout
    assert "other" not in told(workspace)
    callboard(workspace, "sync")
    assert "other" in told(workspace)
