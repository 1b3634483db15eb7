import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from callboard.errors import UserError
from callboard.results import Lock, changes, content_key, flatten
from callboard.tracker.run_record import Origin
from callboard.tracker.tracking import TrackingError, push_scores, record, tracking_uri, without_credentials
from tests.toy_results import empty_database, entry, lock_stages, result_in, runs, workspace, write_workspace

__all__ = ["empty_database", "workspace"]

ROOT = Path(__file__).parent.parent
REPRO = Origin(experiment=None, commit="c0ffee0")


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
    with_round["retrain@round0-0"] = entry({"data/folds.csv": "f1"}, {"models/r1/fold0.pt": "student"})
    assert content_key(with_round) == content_key(lock_stages())


# what is read


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


# what is written


def test_the_parent_holds_params_scores_and_tags(workspace: Path) -> None:
    result = result_in(workspace)
    record(result, Origin("surly-vine", "c0ffee0"))
    (run,) = runs(workspace.parent)
    assert run.info.run_name == "surly-vine"
    assert run.info.status == "FINISHED"
    assert run.data.params == result.params
    assert run.data.metrics == {"cv.lwlrap": 0.71235, "lb.public": 0.65, "lb.private": 0.64}
    md5s = {"submission": "sub-none", "oof": "oof1", "clips": "clips1", "data": "d1.dir"}
    assert {name: run.data.tags[f"callboard.{name}_md5"] for name in md5s} == md5s
    assert run.data.tags["dvc.exp_name"] == "surly-vine"
    assert run.data.tags["git.commit"] == "c0ffee0"
    assert run.inputs.dataset_inputs[0].dataset.name == "demo"


def test_each_fold_is_a_child_with_its_curve(workspace: Path) -> None:
    from mlflow import MlflowClient

    record(result_in(workspace), REPRO)
    (parent,) = runs(workspace.parent)
    children = {run.info.run_name: run for run in runs(workspace.parent, "fold")}
    assert sorted(children) == ["r0-fold0", "r0-fold1"]
    fold = children["r0-fold1"]
    assert fold.data.tags["mlflow.parentRunId"] == parent.info.run_id
    client = MlflowClient(f"sqlite:///{workspace.parent / 'mlflow.db'}")
    assert [(m.step, m.value) for m in client.get_metric_history(fold.info.run_id, "loss")] == [
        (0, 2.1),
        (1, 1.1),
    ]
    assert [m.step for m in client.get_metric_history(fold.info.run_id, "val_lwlrap")] == [1]


def test_a_result_reached_again_stays_one_run_and_collects_its_names(workspace: Path) -> None:
    result = result_in(workspace)
    record(result, REPRO)
    assert record(result, REPRO) == "already in MLflow"
    record(result, Origin("first", "c0ffee0"))
    record(result, Origin("second", "c0ffee0"))
    (run,) = runs(workspace.parent)
    assert run.info.run_name == "first"
    assert run.data.tags["dvc.exp_name"] == "first,second"
    assert len(runs(workspace.parent, "fold")) == 2


def test_another_result_is_another_run(workspace: Path) -> None:
    record(result_in(workspace), REPRO)
    record(result_in(write_workspace(workspace.parent / "other", "seq")), REPRO)
    assert sorted(run.data.params["loss.neg_mask"] for run in runs(workspace.parent)) == ["none", "seq"]


def test_a_leaderboard_score_reaches_a_finished_run_and_a_lower_correction_wins(workspace: Path) -> None:
    (workspace / "metrics/lb.json").write_text('{"lb": {}}')
    record(result_in(workspace), REPRO)
    for score in (0.831, 0.792):
        with (workspace / "leaderboard.csv").open("a") as ledger:
            ledger.write(f"sub-none,{score},,2020-11-20,\n")
        assert f"lb.public {score}" in record(result_in(workspace), REPRO)
    (run,) = runs(workspace.parent)
    assert run.data.metrics["lb.public"] == 0.792


def test_a_note_that_a_person_wrote_is_kept(workspace: Path) -> None:
    from mlflow import MlflowClient

    result = result_in(workspace)
    record(result, REPRO)
    (run,) = runs(workspace.parent)
    client = MlflowClient(f"sqlite:///{workspace.parent / 'mlflow.db'}")
    client.set_tag(run.info.run_id, "mlflow.note.content", "my words")
    client.update_run(run.info.run_id, status="RUNNING")  # as if track had been killed before its end
    record(result, REPRO)
    (run,) = runs(workspace.parent)
    assert run.data.tags["mlflow.note.content"] == "my words"


def by_mlflow_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a server, or with tables that we do not know."""
    monkeypatch.setattr("callboard.tracker.tracking._by_sql", lambda uri: None)


@pytest.mark.parametrize("killed_at", ["log_inputs", "log_batch", "set_terminated"])
def test_a_killed_track_is_completed_the_next_time(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    from mlflow import MlflowClient

    class KilledError(Exception):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise KilledError

    result = result_in(workspace)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, killed_at, die)
        by_mlflow_alone(patch)
        with pytest.raises(KilledError):
            record(result, REPRO)
    assert [run.info.status for run in runs(workspace.parent)] == ["RUNNING"]
    record(result, REPRO)  # by SQL, which completes what mlflow began
    (run,) = runs(workspace.parent)
    assert run.info.status == "FINISHED"
    assert run.data.params == result.params
    assert len(runs(workspace.parent, "fold")) == 2


def test_what_is_killed_while_it_writes_by_sql_leaves_nothing(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from callboard.tracker.sqlite_runs import SqliteRuns

    def die(*_: Any) -> None:
        raise InterruptedError

    record(result_in(write_workspace(workspace.parent / "other", "seq")), REPRO)  # makes the experiment
    with monkeypatch.context() as patch:
        patch.setattr(SqliteRuns, "_child", die)
        with pytest.raises(InterruptedError):
            record(result_in(workspace), REPRO)
    assert len(runs(workspace.parent)) == 1
    assert "new run" in record(result_in(workspace), REPRO)
    assert len(runs(workspace.parent, "fold")) == 4


def test_a_run_by_sql_equals_the_run_by_mlflow(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row of every table, but for random ids and the database's own counters."""
    (workspace / "plots/train/r0-fold0.csv").write_text(
        "epoch,lr,loss,val_lwlrap\n0,0.001,nan,\n1,0.0005,inf,0.5\n2,0.0001,-1.5,0.4\n"
    )
    result, origin = result_in(workspace), Origin("exp0001", "c0ffee0", 1_600_000_000_000)
    database = workspace.parent / "mlflow.db"
    with monkeypatch.context() as patch:
        by_mlflow_alone(patch)
        record(result, origin)
    by_mlflow = everything_in(database)
    with sqlite3.connect(database) as connection:
        for table in ("tags", "params", "metrics", "latest_metrics", "inputs", "datasets", "runs"):
            connection.execute(f"DELETE FROM {table}")
    record(result, origin)
    assert everything_in(database) == by_mlflow
    assert len(by_mlflow["metrics"]) == 3 + 8 + 5


def everything_in(database: Path) -> dict[str, list[tuple[str, ...]]]:
    """Rows of the tables that runs live in; random ids by what they stand for."""
    tables = ("runs", "tags", "params", "metrics", "latest_metrics", "datasets", "inputs")
    with sqlite3.connect(database) as connection:
        names = dict(connection.execute("SELECT run_uuid, name FROM runs"))
        names |= dict(connection.execute("SELECT dataset_uuid, name FROM datasets"))
        names |= dict(connection.execute("SELECT input_uuid, 'an input' FROM inputs"))
        rows = {table: list(connection.execute(f"SELECT * FROM {table}")) for table in tables}

    def named(cell: Any) -> str:
        text = str(cell)
        for identity, name in names.items():
            text = text.replace(identity, name)
        return text

    return {table: sorted(tuple(map(named, row)) for row in rows[table]) for table in tables}


def test_tables_of_another_version_are_left_to_mlflow(workspace: Path) -> None:
    with sqlite3.connect(workspace.parent / "mlflow.db") as connection:
        connection.execute("ALTER TABLE runs ADD COLUMN priority INTEGER")
    record(result_in(workspace), REPRO)
    record(result_in(write_workspace(workspace.parent / "other", "seq")), REPRO)
    assert len(runs(workspace.parent)) == 2
    assert record(result_in(workspace), REPRO).startswith("known run")


def test_scores_are_pushed_to_every_run_with_the_submission_and_the_last_word_counts(workspace: Path) -> None:
    record(result_in(workspace), REPRO)
    record(replace(result_in(workspace), key="of other folds"), REPRO)
    record(result_in(write_workspace(workspace.parent / "other", "seq")), REPRO)
    assert push_scores("sub-none", {"lb.public": 0.9}) == 2
    assert push_scores("sub-none", {"lb.public": 0.8}) == 2
    assert push_scores("of nobody", {"lb.public": 0.7}) == 0
    shown = sorted(
        (r.data.params["loss.neg_mask"], r.data.metrics["lb.public"]) for r in runs(workspace.parent)
    )
    assert shown == [("none", 0.8), ("none", 0.8), ("seq", 0.65)]


def test_the_memo_of_a_row_stands_in_the_note_of_its_run(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    table = "rows:\n- {id: exp0001, memo_en: Baseline}\n- {id: exp0001, variant: max, memo_en: Max pool}\n"
    (workspace / "experiments.yaml").write_text(table)
    record(result_in(workspace), Origin("exp0001-max", ""))
    (run,) = runs(workspace.parent)
    assert run.data.tags["mlflow.note.content"].startswith("Max pool\n\nAgainst")


def test_a_run_id_in_the_environment_does_not_swallow_the_folds(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123456789abcdef0123456789abcdef")
    record(result_in(workspace), REPRO)
    assert len(runs(workspace.parent)) == 1
    assert len(runs(workspace.parent, "fold")) == 2


def test_artifacts_belong_to_the_main_workspace(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    record(result_in(workspace), REPRO)
    with sqlite3.connect(workspace.parent / "mlflow.db") as connection:
        query = "SELECT artifact_location FROM experiments WHERE name = 'callboard'"
        (location,) = connection.execute(query).fetchone()
    assert location == (workspace.parent / "mlartifacts").as_uri()
    assert not list(workspace.glob("ml*"))


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:///runs.db", "sqlite:///{main}/runs.db"),
        ("sqlite:////elsewhere/runs.db", "sqlite:////elsewhere/runs.db"),
        ("https://host:5000", "https://host:5000"),
        ("", "sqlite:///{main}/mlflow.db"),
    ],
)
def test_a_relative_database_lies_in_the_main_workspace(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, uri: str, expected: str
) -> None:
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking_uri() == expected.format(main=workspace.parent.resolve())


def test_a_server_that_is_down_costs_a_warning_and_not_the_experiment(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stages import track

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(workspace)
    track.main(["track.json"])
    assert json.loads((workspace / "track.json").read_text()) == {"key": result_in(workspace).key}
    printed = capsys.readouterr()
    assert "warning: " in printed.err
    assert "127.0.0.1:9" in printed.err
    assert "secret" not in printed.err
    assert "`callboard sync` records the result once it answers" in printed.err
    assert "not in MLflow yet" in printed.out


def test_a_database_that_mlflow_cannot_use_is_a_tracking_error(workspace: Path) -> None:
    (workspace.parent / "mlflow.db").write_text("not a database " * 100)
    with pytest.raises(TrackingError, match=r"mlflow\.db"):
        record(result_in(workspace), REPRO)


def test_passwords_are_not_shown() -> None:
    uri = "https://ann:secret@host:5000/x"
    assert without_credentials(f"GET {uri}/runs failed", uri) == "GET https://host:5000/x/runs failed"
    assert without_credentials("no table", "sqlite:////w/mlflow.db") == "no table"


def in_its_own_process(folder: Path, code: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        text=True,
        stdout=-1,
        stderr=subprocess.STDOUT,
    )


def test_a_known_result_is_recognised_without_importing_mlflow(workspace: Path) -> None:
    record(result_in(workspace), REPRO)
    code = (
        "import sys; from stages.track import main; main(['track.json']); assert 'mlflow' not in sys.modules"
    )
    process = in_its_own_process(workspace, code)
    assert "already in MLflow" in process.communicate()[0]
    assert process.returncode == 0


@pytest.mark.slow
def test_four_processes_at_once_on_a_missing_database_leave_it_whole(workspace: Path) -> None:
    (workspace.parent / "mlflow.db").unlink()
    folders = [
        workspace,
        *(write_workspace(workspace.parent / name, name) for name in ("clip", "seq", "none")),
    ]
    code = "from stages.track import main; main(['track.json'])"
    processes = [in_its_own_process(folder, code) for folder in folders]
    for process in processes:
        printed = process.communicate()[0]
        assert process.returncode == 0, printed
        assert "warning" not in printed, printed
    # two of the four reached the same result
    assert sorted(run.data.params["loss.neg_mask"] for run in runs(workspace.parent)) == [
        "clip",
        "none",
        "seq",
    ]
    assert len(runs(workspace.parent, "fold")) == 6
    record(replace(result_in(workspace), key="later"), REPRO)
    assert len(runs(workspace.parent)) == 4
