import math
import sqlite3
from pathlib import Path

import pytest

from callboard.results import stored_runs as reading
from callboard.results.mlflow.record import Origin
from callboard.results.mlflow.track import record
from callboard.results.stored_runs import NoResultsError, StoredRun, stored_runs
from tests.toy_results import result_in, workspace, write_workspace

__all__ = ["workspace"]


@pytest.fixture
def database(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two results, one of them with a NaN; a deleted, an unfinished and a foreign run."""
    from mlflow import MlflowClient

    main = workspace.parent
    record(result_in(workspace), Origin("exp0001", "c0ffee0"))
    record(result_in(write_workspace(main / "other", "seq")), Origin("exp0058", "c0ffee0"))
    client = MlflowClient(f"sqlite:///{main / 'mlflow.db'}")
    ours = client.get_experiment_by_name("callboard").experiment_id
    run_ids = [client.create_run(ours, tags={"callboard.kind": "cv"}).info.run_id for _ in range(2)]
    client.set_terminated(run_ids[0], "FINISHED")
    client.delete_run(run_ids[0])
    elsewhere = client.create_run(client.create_experiment("other"), tags={"callboard.kind": "cv"})
    client.set_terminated(elsewhere.info.run_id, "FINISHED")
    (first, *_) = client.search_runs(
        [ours], "tags.`callboard.kind` = 'cv'", order_by=["attributes.start_time"]
    )
    client.log_metric(first.info.run_id, "cv.macro_ap", math.nan)
    return main / "mlflow.db"


def at(database: Path, monkeypatch: pytest.MonkeyPatch, options: str = "") -> None:
    """As a person names a database; with options it is read by mlflow."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}{options}")


def test_sql_and_the_client_read_the_same(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at(database, monkeypatch)
    by_sql = stored_runs()
    assert [run.name for run in by_sql] == ["exp0001", "exp0058"]
    at(database, monkeypatch, "?timeout=5")
    by_client = stored_runs()
    assert repr(by_sql[0].metrics["cv.macro_ap"]) == repr(by_client[0].metrics["cv.macro_ap"]) == "nan"
    for run in (*by_sql, *by_client):
        run.metrics.pop("cv.macro_ap", None)
        run.params, run.metrics, run.tags = (
            dict(sorted(d.items())) for d in (run.params, run.metrics, run.tags)
        )
    assert by_sql == by_client


def test_all_pages_of_a_server_are_read(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at(database, monkeypatch, "?timeout=5")
    monkeypatch.setattr(reading, "RUNS_PER_CALL", 1)
    assert len(stored_runs()) == 2


def test_runs_of_one_moment_stand_in_the_order_of_their_names(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(database, monkeypatch)
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE runs SET start_time = 5")
        connection.execute("UPDATE runs SET name = 'zz' WHERE name = 'exp0001'")
    assert [run.name for run in stored_runs()] == ["exp0058", "zz"]


def test_a_run_lacks_scores_that_are_others_or_absent_and_no_nan_that_it_has() -> None:
    run = StoredRun("run", 0, metrics={"same": 0.5, "other": 0.5, "none": math.nan})
    assert run.lacking({"same": 0.5, "none": math.nan}) == {}
    assert run.lacking({"other": 0.6, "new": 0.7, "none": 0.8}) == {"other": 0.6, "new": 0.7, "none": 0.8}
    assert run.lacking({"same": math.nan}).keys() == {"same"}


def test_a_database_that_is_not_there_is_told_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    at(tmp_path / "mlflow.db", monkeypatch)
    with pytest.raises(NoResultsError, match=r"no results yet: .*mlflow\.db does not exist; `dvc repro`"):
        stored_runs()
    assert not (tmp_path / "mlflow.db").exists()
