import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from callboard.core.compute import Compute, computes_json
from callboard.core.errors import UserError
from callboard.results.git import files_in
from callboard.results.mlflow.connection import (
    TrackingError,
    connecting,
    experiment_id,
    our_experiment,
    tracking_uri,
)
from callboard.results.mlflow.record import RESULT, Origin
from callboard.results.mlflow.sync import sync
from callboard.results.mlflow.track import record
from callboard.results.result import read_result
from callboard.results.stored_runs import NoResultsError, read_by_client, stored_runs
from tests.results.test_tracking import KilledError, in_its_own_process, killed_at
from tests.toy_git import ToyRepository
from tests.toy_results import record_compute, result_in, runs, write_workspace

TRACKED = ("dvc.lock", "params.yaml", "metrics", "plots", "leaderboard.csv")


@pytest.fixture(scope="session")
def two_experiments(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> ToyRepository:
    """On one baseline; MLflow has tables and no run. Not to be changed, see `toy`."""
    repository = ToyRepository(tmp_path_factory.mktemp("two") / "main")
    (repository.root / ".git/info/exclude").write_text("/.cache\n")
    shutil.copy(empty_database, repository.root / "mlflow.db")
    (repository.root / "leaderboard.csv").write_text("submission_md5,public,private,date,note\n")
    repository.baseline = repository.commit()
    finish(repository, "first", "none")
    finish(repository, "second", "seq")
    return repository


@pytest.fixture
def toy(two_experiments: ToyRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyRepository:
    """Two experiments, of the test's own."""
    repository = two_experiments.copied(tmp_path / "main")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("DVC_ROOT", str(repository.root))
    monkeypatch.chdir(repository.root)
    return repository


def finish(toy: ToyRepository, name: str, neg_mask: str, **changes: str) -> str:
    """An experiment with a whole result, as DVC leaves it; `changes` are files with another content."""
    put(toy, neg_mask, **changes)
    commit = toy.commit()
    toy.git("update-ref", ref_of(toy, name), commit)
    toy.git("reset", "--quiet", "--hard", "HEAD~1")
    return commit


def put(toy: ToyRepository, neg_mask: str, **changes: str) -> None:
    made = write_workspace(toy.root / "made", neg_mask)
    for path, text in changes.items():
        (made / path).write_text(text)
    for tracked in TRACKED[:-1]:
        source, target = made / tracked, toy.root / tracked
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)
    shutil.rmtree(made)


def ref_of(toy: ToyRepository, name: str) -> str:
    return f"refs/exps/{toy.baseline[:2]}/{toy.baseline[2:]}/{name}"


def rename(toy: ToyRepository, old: str, new: str) -> None:
    """As `dvc exp rename` does."""
    toy.git("update-ref", ref_of(toy, new), ref_of(toy, old))
    toy.git("update-ref", "-d", ref_of(toy, old))


def shown(toy: ToyRepository) -> dict[str, str]:
    """Title of each run and the experiments that it names."""
    return {run.info.run_name: run.data.tags.get("dvc.exp_name", "") for run in runs(toy.root)}


def told(toy: ToyRepository) -> list[Any]:
    """All that MLflow says of the results, without random ids, in an order of its own."""
    with sqlite3.connect(toy.root / "mlflow.db") as connection:
        names = dict(connection.execute("SELECT run_uuid, name || start_time FROM runs"))
        parents = "key != 'mlflow.parentRunId'"
        tables = {
            "tags": f"SELECT run_uuid, key, value FROM tags WHERE {parents}",
            "params": "SELECT run_uuid, key, value FROM params",
            "metrics": "SELECT run_uuid, key, value, step, timestamp FROM metrics",
            "latest": "SELECT run_uuid, key, value FROM latest_metrics",
            "runs": "SELECT run_uuid, status, end_time FROM runs",
        }
        found = {
            table: sorted((names[run], *row) for run, *row in connection.execute(query))
            for table, query in tables.items()
        }
    return list(found.items())


def test_every_result_in_git_becomes_one_run_and_twice_is_once(toy: ToyRepository) -> None:
    first = sync()
    assert (first.n_results, first.new, first.unchanged) == (2, 2, 0)
    before = told(toy)
    second = sync()
    assert (second.n_results, second.new, second.unchanged) == (2, 0, 2)
    assert told(toy) == before
    assert shown(toy) == {"first": "first", "second": "second"}
    assert len(runs(toy.root, "fold")) == 4


def test_a_lost_database_is_written_again_the_same(toy: ToyRepository, empty_database: Path) -> None:
    sync()
    before = told(toy)
    shutil.copy(empty_database, toy.root / "mlflow.db")
    sync()
    assert told(toy) == before


def test_a_deleted_experiment_is_named_and_sync_restores_it(
    toy: ToyRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    sync()
    before = told(toy)
    uri = tracking_uri()
    with connecting(uri) as client:
        client.delete_experiment(experiment_id(client, uri))
    message = "the MLflow experiment 'callboard' was deleted; `callboard sync` restores it with its runs"
    with pytest.raises(UserError, match=message):
        stored_runs()
    with pytest.raises(TrackingError, match=message):
        read_by_client(uri, RESULT)
    with pytest.raises(TrackingError, match=message), our_experiment(uri):
        pass
    capsys.readouterr()
    assert sync().unchanged == 2
    assert "warning: the MLflow experiment 'callboard' was deleted; it is restored" in capsys.readouterr().err
    assert told(toy) == before
    assert len(stored_runs()) == 2


@pytest.mark.slow
def test_a_database_of_a_newer_mlflow_is_named_and_can_be_written_again(toy: ToyRepository) -> None:
    with sqlite3.connect(toy.root / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    message = "a newer MLflow than the installed one wrote the database; install that version, or move the"
    with pytest.raises(UserError, match=message):
        sync()
    (toy.root / "mlflow.db").rename(toy.root / "away.db")
    code = "from callboard.results.mlflow.sync import sync; print(sync().new)"
    assert in_its_own_process(toy.root, code).communicate()[0].splitlines()[-1] == "2"


def test_what_is_rebuilt_equals_what_track_wrote(toy: ToyRepository, empty_database: Path) -> None:
    put(toy, "seq")
    when = int(toy.git("log", "-1", "--format=%ct", ref_of(toy, "second"))) * 1000
    result = read_result(files_in(toy.root), "here")
    record(result, Origin("second", toy.baseline, when))
    toy.git("reset", "--quiet", "--hard", toy.baseline)
    toy.git("update-ref", "-d", ref_of(toy, "first"))
    before = told(toy)
    shutil.copy(empty_database, toy.root / "mlflow.db")
    assert sync().new == 1
    assert told(toy) == before


def test_what_trained_a_result_is_read_from_its_commit(toy: ToyRepository) -> None:
    compute = Compute("cpu", "AMD EPYC (AVX2)", 2, "float32", "2.14.1")
    made = write_workspace(toy.root.parent / "made")
    record_compute(made, 0, compute)
    curve = "plots/train/r0-fold0.csv"
    finish(toy, "third", "clip", **{curve: (made / curve).read_text()})
    sync()
    found = {run.info.run_name: run.data.tags.get("callboard.computed_by") for run in runs(toy.root)}
    assert found == {"first": None, "second": None, "third": computes_json([compute])}


def renamed(toy: ToyRepository) -> None:
    rename(toy, "first", "better-name")


def branched(toy: ToyRepository) -> None:
    toy.git("branch", "kept", ref_of(toy, "first"))


def tagged(toy: ToyRepository) -> None:
    toy.git("tag", "--annotate", "--message", "kept", "v1", ref_of(toy, "first"))


def applied(toy: ToyRepository) -> None:
    toy.git("checkout", "--quiet", ref_of(toy, "first"), "--", ".")
    toy.commit()


def reproduced(toy: ToyRepository) -> None:
    put(toy, "none")
    record(result_in(toy.root), Origin(None, toy.baseline))


def run_again(toy: ToyRepository) -> None:
    toy.git("update-ref", ref_of(toy, "again"), ref_of(toy, "first"))


@pytest.mark.parametrize(
    ("happens", "names"),
    [
        (renamed, "better-name"),
        (branched, "first"),
        (tagged, "first"),
        (applied, "first"),
        (reproduced, "first"),
        (run_again, "again,first"),
    ],
)
def test_however_a_result_is_reached_it_stays_one_run(
    toy: ToyRepository, happens: Callable[[ToyRepository], None], names: str
) -> None:
    sync()
    happens(toy)
    summary = sync()
    assert (summary.n_results, summary.new) == (2, 0)
    assert sorted(shown(toy).values()) == sorted([names, "second"])
    assert len(runs(toy.root)) == 2
    assert len(runs(toy.root, "fold")) == 4


def test_a_result_on_a_branch_alone_is_called_after_it(toy: ToyRepository) -> None:
    branched(toy)
    toy.git("update-ref", "-d", ref_of(toy, "first"))
    sync()
    assert set(shown(toy)) == {"kept", "second"}
    (run,) = [run for run in runs(toy.root) if run.info.run_name == "kept"]
    assert run.data.tags["git.commit"] == toy.baseline


def test_the_checked_out_result_is_called_as_track_calls_it(toy: ToyRepository) -> None:
    applied(toy)
    head = toy.git("rev-parse", "HEAD~1")
    toy.git("branch", "topic")
    for name in ("first", "second"):
        toy.git("update-ref", "-d", ref_of(toy, name))
    sync()
    (run,) = runs(toy.root)
    assert run.info.run_name == f"workspace-{run.data.tags['callboard.key'][:6]}"
    assert run.data.tags["git.commit"] == head


def test_a_result_without_a_name_in_git_is_called_by_its_row_and_by_its_experiment_once_it_has_one(
    toy: ToyRepository,
) -> None:
    applied(toy)
    commit = toy.git("rev-parse", ref_of(toy, "first"))
    for name in ("first", "second"):
        toy.git("update-ref", "-d", ref_of(toy, name))
    assert sync().new == 1
    for n_renamed in (1, 0):  # a row that the table did not have before
        summary = sync(
            lambda result, origin: (replace(origin, experiment=f"row-{result.params['loss.neg_mask']}"), "")
        )
        assert summary.renamed == n_renamed
        assert shown(toy) == {"row-none": "row-none"}
    toy.git("update-ref", ref_of(toy, "first"), commit)
    sync()
    assert set(shown(toy)) == {"first"}


def test_a_run_whose_experiment_is_gone_keeps_its_name(toy: ToyRepository) -> None:
    sync()
    toy.git("update-ref", "-d", ref_of(toy, "first"))
    assert sync().n_results == 1
    assert shown(toy) == {"first": "first", "second": "second"}


def test_a_title_that_a_person_gave_stays(toy: ToyRepository) -> None:
    from mlflow import MlflowClient

    sync()
    (run,) = [run for run in runs(toy.root) if run.info.run_name == "first"]
    MlflowClient(f"sqlite:///{toy.root / 'mlflow.db'}").update_run(run.info.run_id, name="my favourite")
    rename(toy, "first", "better-name")
    assert sync().renamed == 1
    assert shown(toy) == {"my favourite": "better-name", "second": "second"}


def test_the_time_of_a_rebuilt_run_is_that_of_its_commit(toy: ToyRepository) -> None:
    sync()
    for run in runs(toy.root):
        when = toy.git("log", "-1", "--format=%ct", ref_of(toy, run.info.run_name))
        assert run.info.start_time == int(when) * 1000


def test_scores_and_their_corrections_reach_the_runs(toy: ToyRepository) -> None:
    sync()
    for score in (0.9, 0.8):
        with (toy.root / "leaderboard.csv").open("a") as ledger:
            ledger.write(f"sub-none,{score},,,\n")
        assert sync().scored == 1
    toy.git("update-ref", "-d", ref_of(toy, "first"))
    with (toy.root / "leaderboard.csv").open("a") as ledger:
        ledger.write("sub-none,0.7,,,\n")
    assert sync().scored == 1  # also where git has no name for the result any more
    scores = {run.info.run_name: run.data.metrics["lb.public"] for run in runs(toy.root)}
    assert scores == {"first": 0.7, "second": 0.65}
    with sqlite3.connect(toy.root / "mlflow.db") as connection:
        connection.execute("UPDATE runs SET status = 'RUNNING' WHERE name = 'first'")
    with (toy.root / "leaderboard.csv").open("a") as ledger:
        ledger.write("sub-none,0.6,,,\n")
    assert sync().scored == 0  # git cannot complete it any more, so nobody is shown it


def test_a_half_written_run_is_completed(toy: ToyRepository) -> None:
    sync()
    before = told(toy)
    with sqlite3.connect(toy.root / "mlflow.db") as connection:
        (run_id,) = connection.execute("SELECT run_uuid FROM runs WHERE name = 'first'").fetchone()
        (fold,) = connection.execute(
            "SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId' AND value = ?", (run_id,)
        ).fetchone()
        connection.execute(
            "UPDATE runs SET status = 'RUNNING', end_time = NULL WHERE run_uuid = ?", (run_id,)
        )
        for table in ("tags", "metrics", "latest_metrics", "runs"):
            connection.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (fold,))
        connection.execute("DELETE FROM params WHERE run_uuid = ? AND key = 'seed'", (run_id,))
    assert sync().completed == 1
    assert told(toy) == before


@pytest.mark.slow
def test_a_synchronisation_killed_anywhere_is_finished_by_the_next(
    toy: ToyRepository, empty_database: Path
) -> None:
    sync()
    before = told(toy)
    for transaction in range(1, 37, 5):
        shutil.copy(empty_database, toy.root / "mlflow.db")
        with pytest.raises(KilledError), killed_at(transaction):
            sync()
        sync()
        assert told(toy) == before, transaction
        assert sync().unchanged == 2


def test_unfinished_experiments_are_no_results_and_broken_ones_are_told(
    toy: ToyRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(toy, "half", "none", **{"dvc.lock": yaml.dump({"stages": {"prepare": {}}})})
    finish(toy, "merged", "none", **{"dvc.lock": "<<<<<<< HEAD\nstages:\n=======\n"})
    finish(toy, "torn", "clip", **{"metrics/cv.json": '{"cv": '})
    assert sync().new == 2
    errors = capsys.readouterr().err
    assert "experiment merged: its dvc.lock cannot be read" in errors
    assert "experiment torn: metrics/cv.json: not metrics: " in errors
    assert "half" not in errors


def test_a_server_that_is_down_is_repaired_once_it_answers(
    toy: ToyRepository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stages import track

    put(toy, "clip")
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        patch.setenv("DVC_EXP_NAME", "third")
        track.main(["track.json"])
        with pytest.raises(UserError, match=r"MLflow cannot be brought up to date: .*127\.0\.0\.1:9"):
            sync()
    assert "`callboard sync` records the result" in capsys.readouterr().err
    commit = toy.commit()
    toy.git("update-ref", ref_of(toy, "third"), commit)
    key = json.loads((toy.root / "track.json").read_text())["key"]
    assert sync().new == 3
    assert key in {run.data.tags["callboard.key"] for run in runs(toy.root)}


@pytest.mark.slow
def test_sync_and_track_at_once_on_a_missing_database_leave_it_whole(toy: ToyRepository) -> None:
    (toy.root / "mlflow.db").unlink()
    folders = [write_workspace(toy.root / name, name) for name in ("none", "clip")]
    codes = ["from callboard.results.mlflow.sync import sync; sync()"] * 2
    processes = [in_its_own_process(toy.root, code) for code in codes]
    track = "from stages.track import main; main(['track.json'])"
    processes += [in_its_own_process(folder, track) for folder in folders]
    for process in processes:
        printed = process.communicate()[0]
        assert process.returncode == 0, printed
        assert "warning" not in printed, printed
    assert sorted(run.data.params["loss.neg_mask"] for run in runs(toy.root)) == ["clip", "none", "seq"]
    assert len(runs(toy.root, "fold")) == 6


def test_a_known_history_is_read_without_mlflow(toy: ToyRepository) -> None:
    sync()
    code = (
        "import sys; from callboard.results.mlflow.sync import sync; sync(); "
        "sys.exit('mlflow' in sys.modules)"
    )
    process = in_its_own_process(toy.root, code)
    assert not process.communicate()[0].count("Error")
    assert process.returncode == 0


def test_a_result_that_a_later_commit_replaced_is_rebuilt_too(toy: ToyRepository) -> None:
    put(toy, "none")
    toy.commit()
    put(toy, "seq")
    toy.commit()
    for name in ("first", "second"):
        toy.git("update-ref", "-d", ref_of(toy, name))
    assert sync().new == 2
    titles = {run.info.run_name.split("-")[0] for run in runs(toy.root)}
    assert titles == {"workspace"}
    assert sync().unchanged == 2


def delete_lock(toy: ToyRepository) -> None:
    (toy.root / "dvc.lock").unlink()
    toy.commit()


def test_deleting_dvc_lock_withdraws_what_lies_before_and_has_no_name(toy: ToyRepository) -> None:
    put(toy, "none")
    past = toy.commit()
    put(toy, "clip")
    toy.commit()
    delete_lock(toy)
    for name in ("first", "second"):
        toy.git("update-ref", "-d", ref_of(toy, name))
    assert sync().n_results == 0
    toy.git("tag", "kept", past)
    assert sync().new == 1
    put(toy, "seq")
    toy.commit()
    assert sync().n_results == 2
    put(toy, "unlabeled")
    toy.commit()
    assert sync().n_results == 3  # what was made after the deletion stays, also when it is replaced


def test_a_merge_that_keeps_its_own_dvc_lock_withdraws_the_past_and_nothing_else(toy: ToyRepository) -> None:
    for name in ("first", "second"):
        toy.git("update-ref", "-d", ref_of(toy, name))
    put(toy, "none")
    toy.commit()
    toy.git("checkout", "--quiet", "-b", "upstream")
    delete_lock(toy)
    toy.git("checkout", "--quiet", "main")
    put(toy, "clip")
    toy.commit()
    put(toy, "seq")
    toy.commit()
    toy.git("merge", "--quiet", "--strategy=ours", "upstream")
    toy.git("branch", "--quiet", "-D", "upstream")
    sync()
    assert sorted(run.data.params["loss.neg_mask"] for run in runs(toy.root)) == ["clip", "seq"]


def test_an_experiment_that_only_a_branch_names_any_more_keeps_its_names(toy: ToyRepository) -> None:
    sync()
    branched(toy)
    toy.git("update-ref", "-d", ref_of(toy, "first"))
    summary = sync()
    assert (summary.renamed, summary.unchanged) == (0, 2)
    assert shown(toy) == {"first": "first", "second": "second"}


def test_a_folder_without_git_is_refused_and_gets_no_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / "leaderboard.csv").write_text("submission_md5,public,private,date,note\n")
    with pytest.raises(UserError, match=r"git rev-parse in .*: fatal: not a git repository"):
        sync()
    assert [path.name for path in tmp_path.iterdir()] == ["leaderboard.csv"]


def test_a_board_without_database_names_sync_where_git_has_results(toy: ToyRepository) -> None:
    (toy.root / "mlflow.db").unlink()
    with pytest.raises(NoResultsError, match=r"does not exist; `callboard sync` records those in git"):
        stored_runs()
