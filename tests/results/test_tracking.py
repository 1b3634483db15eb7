import itertools
import json
import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from callboard.core.compute import Compute
from callboard.core.errors import UserError
from callboard.experiments.captions import matching_row, memo_of
from callboard.params.base import read_tree
from callboard.params.defaults import result_params, with_defaults
from callboard.results.mlflow.connection import (
    TrackingError,
    prepare_environment,
    refuse_if_down,
    tracking_uri,
    without_credentials,
)
from callboard.results.mlflow.record import Origin
from callboard.results.mlflow.runs import open_runs
from callboard.results.mlflow.track import push_scores, record
from callboard.results.result import Result
from callboard.results.rows import read_rows
from callboard.results.stored_runs import known_runs, stored_runs
from tests.conftest import merge
from tests.toy_results import record_compute, result_in, runs, workspace, write_workspace

__all__ = ["workspace"]

ROOT = Path(__file__).parents[2]
REPRO = Origin(experiment=None, commit="c0ffee0")


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


def test_a_tag_says_what_trained_the_networks_if_it_was_recorded(workspace: Path) -> None:
    older = write_workspace(workspace.parent / "older", "seq")
    record(result_in(older), REPRO)
    assert "callboard.computed_by" not in runs(workspace.parent)[0].data.tags
    here = Compute("cpu", "AMD EPYC (AVX2)", 1, "float32", "2.14.1")
    there = replace(here, processor="Intel Xeon (AVX512)", precision="bfloat16")
    record_compute(workspace, 0, there)
    record_compute(workspace, 1, here)
    record(result_in(workspace), REPRO)
    rows = {row.params["loss.neg_mask"]: row.computed_by for row in read_rows()}
    assert rows == {"seq": frozenset(), "none": {here, there}}
    (run,) = (run for run in runs(workspace.parent) if run.data.params["loss.neg_mask"] == "none")
    assert json.loads(run.data.tags["callboard.computed_by"])[0]["threads"] == 1


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
    """As with a server, or with tables that our queries do not fit."""

    def refuse(*_: Any) -> None:
        raise sqlite3.OperationalError("no such column")

    monkeypatch.setattr("callboard.results.stored_runs._by_sql", refuse)


class KilledError(BaseException):
    pass


@contextmanager
def killed_at(transaction: int) -> Iterator[None]:
    """End what the block does before its transaction of this number; what earlier ones wrote stays."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    numbers = itertools.count()

    def die(connection: Any) -> None:
        if next(numbers) == transaction:
            connection.connection.rollback()  # as when its process is gone
            raise KilledError

    event.listen(Engine, "commit", die)
    try:
        yield
    finally:
        event.remove(Engine, "commit", die)


def told_of(database: Path, key: str) -> list[Any]:
    """All that MLflow's tables hold of a result and its folds, but for random ids and the key itself."""
    of_run = "JOIN runs USING (run_uuid)"
    ours = f"run_uuid IN (SELECT run_uuid FROM tags WHERE key = 'callboard.key' AND value = '{key}')"
    own = "key NOT IN ('callboard.key', 'mlflow.parentRunId')"
    queries = (
        f"SELECT name, status, start_time, end_time, lifecycle_stage FROM runs WHERE {ours}",
        f"SELECT name, key, tags.value FROM tags {of_run} WHERE {own} AND {ours}",
        f"SELECT name, key, value FROM params {of_run} WHERE {ours}",
        f"SELECT name, key, value, is_nan, step, timestamp FROM metrics {of_run} WHERE {ours}",
        f"SELECT name, key, value, is_nan, step FROM latest_metrics {of_run} WHERE {ours}",
        f"""SELECT runs.name, datasets.name, digest, dataset_source FROM inputs
            JOIN runs ON run_uuid = destination_id JOIN datasets ON dataset_uuid = source_id WHERE {ours}""",
    )
    with closing(sqlite3.connect(database)) as connection:
        return [sorted(connection.execute(query), key=repr) for query in queries]


@pytest.fixture
def odd_curve(workspace: Path) -> Path:
    """A workspace whose first fold went through NaN and infinity."""
    curve = "epoch,lr,loss,val_lwlrap\n0,0.001,nan,\n1,0.0005,inf,0.5\n2,0.0001,-1.5,0.4\n"
    (workspace / "plots/train/r0-fold0.csv").write_text(curve)
    return workspace


NAMED = Origin("exp0001", "c0ffee0", 1_600_000_000_000)


def keyed(result: Result, key: str) -> Result:
    """The same result under another content key."""
    return replace(result, ref=result.ref._replace(key=key))


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_is_completed_and_shown_by_nobody_before(odd_curve: Path) -> None:
    database, result = odd_curve.parent / "mlflow.db", result_in(odd_curve)
    record(keyed(result, "clean"), NAMED)
    clean = told_of(database, "clean")
    assert [len(rows) for rows in clean] == [3, 10 + 2 * 3, len(result.params), 3 + 8 + 5, 3 + 3 + 3, 1]
    for transaction in itertools.count():
        killed = keyed(result, f"killed at {transaction}")
        try:
            with killed_at(transaction):
                record(killed, NAMED)
            break
        except KilledError:
            assert killed.key not in {run.tags["callboard.key"] for run in stored_runs()}
        record(killed, NAMED)
        assert told_of(database, killed.key) == clean, transaction
    assert transaction > 15


@pytest.mark.slow
def test_a_run_completed_later_shows_the_scores_and_names_of_then(workspace: Path) -> None:
    result = result_in(workspace)
    record(result, REPRO)  # makes the experiment
    for transaction in (4, 12):  # before and after the scores were written
        key = f"killed at {transaction}"
        with pytest.raises(KilledError), killed_at(transaction):
            record(keyed(result, key), Origin("first", "c0ffee0"))
        assert bool(known_runs()[key].metrics) == (transaction == 12)
        record(keyed(replace(result, reported={"lb.public": 0.1}), key), Origin("second", "c0ffee0"))
        (run,) = [run for run in stored_runs() if run.tags["callboard.key"] == key]
        assert run.metrics["lb.public"] == 0.1
        assert run.names == ("first", "second")


def dying(transaction: int) -> str:
    """Code that tracks the workspace and kills its own process before a transaction of this number."""
    return f"""
import itertools, os, signal
from sqlalchemy import event
from sqlalchemy.engine import Engine
from stages.track import main
numbers = itertools.count()
@event.listens_for(Engine, "commit")
def die(connection):
    if next(numbers) == {transaction}:
        os.kill(os.getpid(), signal.SIGKILL)
main(["track.json"])
"""


def killed_by_itself(folder: Path, transaction: int) -> None:
    process = in_its_own_process(folder, dying(transaction))
    printed = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, printed


@pytest.mark.slow
def test_a_process_that_is_really_killed_leaves_what_can_be_completed(
    odd_curve: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "exp0001")
    database, result = odd_curve.parent / "mlflow.db", result_in(odd_curve)
    for transaction in (6, 10, 14):
        killed_by_itself(odd_curve, transaction)
        assert not stored_runs()
    half = known_runs()[result.key]
    record(result, NAMED)
    record(keyed(result, "clean"), replace(NAMED, commit=half.tags["git.commit"], time_ms=half.start_ms))
    assert told_of(database, result.key) == told_of(database, "clean")


@pytest.mark.slow
def test_tables_whose_making_was_killed_are_made_anew(workspace: Path) -> None:
    database = workspace.parent / "mlflow.db"
    database.unlink()
    killed_by_itself(workspace, 1)
    assert not database.exists()
    record(result_in(workspace), REPRO)
    assert len(stored_runs()) == 1


def test_tables_that_our_queries_do_not_fit_are_read_and_written_by_mlflow(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(result_in(workspace), REPRO)
    (by_sql,) = stored_runs()
    by_mlflow_alone(monkeypatch)
    (by_client,) = stored_runs()
    assert by_client == by_sql
    assert record(result_in(workspace), REPRO).startswith("known run")
    record(result_in(write_workspace(workspace.parent / "other", "seq")), REPRO)
    assert len(runs(workspace.parent)) == 2


def test_tables_of_another_version_are_read_where_our_queries_fit_and_not_written(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(result_in(workspace), REPRO)
    later = shutil.copy(workspace.parent / "mlflow.db", workspace.parent / "later.db")
    with sqlite3.connect(later) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
        connection.execute("ALTER TABLE runs ADD COLUMN priority INTEGER")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{later}")
    (run,) = stored_runs()
    assert run.metrics["cv.lwlrap"] == 0.71235
    with pytest.raises(TrackingError, match="a newer MLflow than the installed one wrote the"):
        record(result_in(write_workspace(workspace.parent / "other", "seq")), REPRO)


def test_scores_are_pushed_to_every_run_with_the_submission_and_the_last_word_counts(workspace: Path) -> None:
    record(result_in(workspace), REPRO)
    record(keyed(result_in(workspace), "of other folds"), REPRO)
    record(result_in(write_workspace(workspace.parent / "other", "seq")), REPRO)
    assert push_scores({"sub-none": {"lb.public": 0.9}}) == 2
    assert push_scores({"sub-none": {"lb.public": 0.8}}) == 2
    assert push_scores({"of nobody": {"lb.public": 0.7}}) == 0
    shown = sorted(
        (r.data.params["loss.neg_mask"], r.data.metrics["lb.public"]) for r in runs(workspace.parent)
    )
    assert shown == [("none", 0.8), ("none", 0.8), ("seq", 0.65)]


TABLE = """
rows:
- {id: exp0001, block: 1, certainty: code, memo_ja: 基準, memo_en: Baseline, set: {optim.lr: 0.1}}
- {id: exp0001, variant: max, base: exp0001, block: 1, certainty: code, memo_ja: 最大, memo_en: Max pool,
   set: {optim.lr: 0.2}}
"""


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({}, "exp0051"),
        ({"loss": {"neg_mask": "seq"}}, "exp0058"),
        ({"optim": {"lr": 0.123}}, ""),
        ({"seed": 7}, ""),
        ({"train": {"epochs": 3}}, ""),
        ({"infer": {"window_agg": "mean"}}, ""),
        ({"scale": {"window": None, "fp_per_epoch": None}}, "exp0051"),  # as before the section existed
        ({"scale": {"window": 1.0}}, ""),
    ],
)
def test_a_result_has_the_name_of_the_row_that_would_have_made_it(
    changes: dict[str, Any], row: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes of what a row leaves to the workspace count, unless they were committed before."""
    monkeypatch.chdir(workspace)
    tree = read_tree(ROOT / "tests/params.yaml")
    merge(tree, {"split": {"folds": [0, 1]}})
    committed = result_params(with_defaults(tree))
    merge(tree, changes)
    (workspace / "params.yaml").write_text(yaml.dump(tree))
    shutil.copy(ROOT / "experiments.yaml", workspace)
    result = result_in(workspace)
    assert matching_row(result, committed) == row
    if "seed" in changes:
        assert matching_row(result, result.params) == "exp0051"
    assert matching_row(result, {}) == ""
    (workspace / "experiments.yaml").write_text("no table")
    assert matching_row(result, committed) == ""


def test_the_memo_of_a_row_stands_in_the_note_of_its_run(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    (workspace / "experiments.yaml").write_text(TABLE)
    record(result_in(workspace), Origin("exp0001-max", ""), memo_of(["exp0001-max"]))
    (run,) = runs(workspace.parent)
    assert run.data.tags["mlflow.note.content"].startswith("Max pool\n\nAgainst")


def test_a_table_with_an_error_costs_the_memo_and_not_the_result(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    (workspace / "experiments.yaml").write_text(TABLE.replace("base: exp0001", "base: nobody"))
    record(result_in(workspace), Origin("exp0001-max", ""), memo_of(["exp0001-max"]))
    (run,) = runs(workspace.parent)
    assert run.data.tags["mlflow.note.content"].startswith("Against")


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


@pytest.mark.parametrize("error", [UserError("theirs"), ValueError("theirs"), OSError("theirs")])
def test_what_the_block_raises_is_not_taken_for_a_failure_of_mlflow(
    workspace: Path, error: Exception
) -> None:
    with pytest.raises(type(error)) as raised, open_runs():
        raise error
    assert raised.value is error


def test_what_fails_inside_mlflow_is_a_tracking_error_in_the_block_too(workspace: Path) -> None:
    record(result_in(workspace), REPRO)
    with open_runs() as found:
        (run,) = stored_runs()
        with pytest.raises(TrackingError, match="Run with id=4711 not found"):
            found.rename(replace(run, run_id="4711"), "other", {})
        with sqlite3.connect(workspace.parent / "mlflow.db") as connection:
            connection.execute("DROP TABLE runs")
        with pytest.raises(TrackingError, match="no such table: runs"):
            known_runs()


def test_a_lock_that_cannot_be_taken_is_a_tracking_error(workspace: Path) -> None:
    (workspace.parent / ".mlflow.lock").mkdir()
    with pytest.raises(TrackingError, match=r"\.mlflow\.lock: Is a directory"):
        record(result_in(workspace), REPRO)


@pytest.mark.parametrize("is_by_sql", [True, False])
def test_a_score_that_is_nan_is_known_as_nan(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, is_by_sql: bool
) -> None:
    result = result_in(workspace)
    cv = workspace / "metrics/cv.json"
    cv.write_text(cv.read_text().replace('"macro_ap"', '"macro_ap": NaN, "was"'))
    record(result_in(workspace), REPRO)
    if not is_by_sql:
        by_mlflow_alone(monkeypatch)
    metrics = known_runs()[result.key].metrics
    assert math.isnan(metrics["cv.macro_ap"])
    assert metrics["cv.lwlrap"] == 0.71235


def test_passwords_are_not_shown() -> None:
    uri = "https://ann:secret@host:5000/x"
    assert without_credentials(f"GET {uri}/runs failed", uri) == "GET https://host:5000/x/runs failed"
    assert without_credentials("no table", "sqlite:////w/mlflow.db") == "no table"
    uri = "http://host/?token=secret"
    assert without_credentials(f"{uri}: refused", uri) == "http://host/?token=***: refused"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("ann:s3cr3t@host:5000", "host:5000"),
        ("http://ann:s3cr3t@[::1", "http://[::1"),
        ("http://ann:s3cr3t/7@host", "http://host"),
        ("http://ann:s3cr3t@7@host", "http://host"),
        ("postgresql+psycopg://ann:s3cr3t@host/db", "postgresql+psycopg://host/db"),
        ("http://s3cr3t@host", "http://host"),
        ("sqlite:////w/ann@home/mlflow.db", "sqlite:////w/ann@home/mlflow.db"),
    ],
)
def test_no_address_however_wrong_shows_its_password(uri: str, shown: str) -> None:
    assert without_credentials(f"at {uri}: refused", uri) == f"at {shown}: refused"


def test_a_password_that_is_quoted_alone_is_not_shown() -> None:
    uri = "http://ann:s%40crets@host"
    assert without_credentials("no s@crets, no 's%40crets'; secrets", uri) == "no ***, no '***'; secrets"


@pytest.mark.parametrize(
    "uri", ["ann:s3cr3t@host:5000", "http://ann:s3cr3t@[::1", "http://ann:s3cr3t@h:port"]
)
def test_an_address_that_is_none_is_a_tracking_error_without_its_password(
    monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(TrackingError) as raised:
        known_runs()
    assert "s3cr3t" not in str(raised.value)


def test_a_server_that_is_down_is_asked_once_and_without_mlflow(workspace: Path) -> None:
    code = (
        "import sys\n"
        "from callboard.results.stored_runs import known_runs\n"
        "from callboard.results.mlflow.connection import TrackingError\n"
        "try: known_runs()\n"
        "except TrackingError as error: print(error)\n"
        "assert 'mlflow' not in sys.modules"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            patch.delenv(variable, raising=False)
        process = in_its_own_process(workspace, code)
    assert "http://127.0.0.1:9: [Errno 111] Connection refused" in process.communicate()[0]
    assert process.returncode == 0


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
def test_a_server_behind_a_proxy_is_not_asked_directly(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:8")
    refuse_if_down("http://tracking.invalid:9")


@pytest.mark.parametrize("before", ["", "host.invalid"])
def test_this_machine_is_never_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    for variable in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:8")
    monkeypatch.setenv("no_proxy", before)
    prepare_environment()
    prepare_environment()
    assert os.environ["no_proxy"] == f"{before},localhost,127.0.0.1,::1".lstrip(",")
    with pytest.raises(TrackingError, match="refused"):
        refuse_if_down("http://127.0.0.1:9")
    refuse_if_down("http://tracking.invalid:9")


def test_a_server_that_takes_connections_and_answers_slowly_is_not_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        refuse_if_down(f"http://ann:secret@127.0.0.1:{server.getsockname()[1]}")


def test_a_database_without_one_of_its_columns_is_told_in_a_sentence(
    workspace: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    record(result_in(workspace), REPRO)
    with sqlite3.connect(workspace.parent / "mlflow.db") as connection:
        connection.execute("ALTER TABLE runs DROP COLUMN start_time")
    with pytest.raises(TrackingError, match=r"no such column: runs\.start_time$"):
        known_runs()
    assert "SELECT" not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("is_by_sql", [True, False])
def test_of_two_runs_of_a_result_the_finished_one_counts_and_a_deleted_one_never(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, is_by_sql: bool
) -> None:
    from mlflow import MlflowClient

    result = result_in(workspace)
    record(result, REPRO)
    ((_, finished),) = known_runs().items()
    client = MlflowClient(tracking_uri())
    ours = client.get_experiment_by_name("callboard").experiment_id
    tags = {"callboard.kind": "cv", "callboard.key": result.key}
    client.create_run(ours, start_time=5, tags=tags, run_name="killed")  # earlier than the finished one
    if not is_by_sql:
        by_mlflow_alone(monkeypatch)
    assert known_runs()[result.key] == finished
    client.delete_run(finished.run_id)
    assert known_runs()[result.key].name == "killed"
    assert not known_runs()[result.key].is_finished


@pytest.mark.parametrize("is_by_sql", [True, False])
def test_a_score_is_logged_later_than_one_of_the_future(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, is_by_sql: bool
) -> None:
    """As after the clock was set back; at the same time the higher value would stay."""
    later_ms = 4_000_000_000_000
    record(result_in(workspace), REPRO)
    with sqlite3.connect(workspace.parent / "mlflow.db") as connection:
        for table in ("metrics", "latest_metrics"):
            connection.execute(f"UPDATE {table} SET timestamp = {later_ms} WHERE key = 'lb.public'")
    if not is_by_sql:
        by_mlflow_alone(monkeypatch)
    push_scores({"sub-none": {"lb.public": 0.1}})
    (run,) = runs(workspace.parent)
    assert run.data.metrics["lb.public"] == 0.1


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
    record(keyed(result_in(workspace), "later"), REPRO)
    assert len(runs(workspace.parent)) == 4
