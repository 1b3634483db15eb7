import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from callboard.analysis.doctor import findings
from callboard.analysis.doctor.checks import CHECKS, examine
from callboard.analysis.doctor.findings import Finding
from callboard.cli import dispatch
from callboard.results.leaderboard import LEADERBOARD_COLUMNS
from callboard.results.mlflow.sync import sync
from tests.results.test_git_faults import FAULTS, Damage
from tests.results.test_sync import applied, finish, put, ref_of, two_experiments
from tests.toy_git import ToyRepository

__all__ = ["two_experiments"]


@pytest.fixture(scope="module")
def in_order(two_experiments: ToyRepository, tmp_path_factory: pytest.TempPathFactory) -> ToyRepository:
    """A workspace with two results, recorded, their tables in the cache. Not to be changed, see `well`."""
    toy = two_experiments.copied(tmp_path_factory.mktemp("well") / "main")
    (toy.root / ".dvc/config").write_text("[cache]\n    type = 'reflink,hardlink,symlink,copy'\n")
    (toy.root / "dvc.yaml").write_text("stages: {}\n")
    toy.commit()
    mend_locks(toy)
    with pytest.MonkeyPatch.context() as patch:
        stand_in(toy, patch)
        sync()
    return toy


@pytest.fixture
def well(in_order: ToyRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyRepository:
    """A workspace of the test's own in which nothing is to be found."""
    toy = in_order.copied(tmp_path / "main")
    stand_in(toy, monkeypatch)
    return toy


def stand_in(toy: ToyRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "PYTHONDONTWRITEBYTECODE", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(toy.root)


def mend_locks(toy: ToyRepository) -> None:
    """dvc.lock of the toys names outputs by words; here it tells their md5, and the cache has the tables."""
    for name, neg_mask in (("first", "none"), ("second", "seq")):
        put(toy, neg_mask)
        params = (toy.root / "params.yaml").read_text().replace("  root: null\n", "")
        (toy.root / "params.yaml").write_text(f"{params}infer: {{}}\n")
        text = (toy.root / "dvc.lock").read_text()
        for path, word in (("metrics/cv.json", "cv1"), ("metrics/lb.json", "lb1")):
            text = text.replace(f": {word}\n", f": {md5_of(toy.root / path)}\n")
        for fold in (0, 1):
            text = text.replace(f": c{fold}\n", f": {md5_of(toy.root / f'plots/train/r0-fold{fold}.csv')}\n")
        for word in ("clips1", "oof1", f"sub-{neg_mask}"):
            text = text.replace(f": {word}\n", f": {toy.cache(word.encode())}\n")
        (toy.root / "dvc.lock").write_text(text)
        toy.git("update-ref", ref_of(toy, name), toy.commit())
        toy.git("reset", "--quiet", "--hard", "HEAD~1")


def md5_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def found(what: str) -> list[Finding]:
    return [finding for finding in examine().findings if what in finding.what]


def test_a_workspace_in_order_is_all_well(well: ToyRepository, capsys: pytest.CaptureFixture[str]) -> None:
    assert examine().findings == []
    dispatch(["doctor"])
    printed = capsys.readouterr().out
    assert "all well" in printed
    assert "2 results in git, 2 runs in MLflow" in printed
    assert "device: " in printed


def test_what_loses_results_is_status_1(well: ToyRepository, capsys: pytest.CaptureFixture[str]) -> None:
    finish(well, "third", "clip")
    with pytest.raises(SystemExit) as end:
        dispatch(["doctor"])
    assert end.value.code == 1
    printed = capsys.readouterr().out
    assert "LOSS  1 result in git without a finished run in MLflow: third@" in printed
    assert "→ `callboard sync`" in printed
    assert "all well" not in printed


def test_in_a_new_clone_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toy = ToyRepository(tmp_path / "main")
    (toy.root / "dvc.yaml").write_text("stages: {}\n")
    (toy.root / "leaderboard.csv").write_text(",".join(LEADERBOARD_COLUMNS) + "\n")
    stand_in(toy, monkeypatch)
    dispatch(["doctor"])
    printed = capsys.readouterr().out
    assert "note  nothing has run yet\n      → `dvc repro`" in printed
    assert "nothing is lost, " in printed


def without_database(toy: ToyRepository) -> None:
    (toy.root / "mlflow.db").unlink()


def broken_database(toy: ToyRepository) -> None:
    (toy.root / "mlflow.db").write_text("not a database " * 100)


def half_migrated(toy: ToyRepository) -> None:
    """As two processes leave it that make the tables at once."""
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine

    (toy.root / "mlflow.db").unlink()
    Base.metadata.create_all(create_engine(f"sqlite:///{toy.root / 'mlflow.db'}"))
    alter(toy, "CREATE TABLE _alembic_tmp_latest_metrics (key TEXT)")


def other_version(toy: ToyRepository) -> None:
    alter(toy, "UPDATE alembic_version SET version_num = 'c48cb773bb87'")


def newer_version(toy: ToyRepository) -> None:
    alter(toy, "UPDATE alembic_version SET version_num = 'ffffffffffff'")


def deleted_experiment(toy: ToyRepository) -> None:
    alter(toy, "UPDATE experiments SET lifecycle_stage = 'deleted'")


def two_versions(toy: ToyRepository) -> None:
    alter(toy, "INSERT INTO alembic_version VALUES ('c48cb773bb87')")


def lost_column(toy: ToyRepository) -> None:
    alter(toy, "ALTER TABLE runs DROP COLUMN source_version")


def half_written(toy: ToyRepository) -> None:
    alter(toy, "UPDATE runs SET status = 'RUNNING' WHERE name = 'first'")


def alter(toy: ToyRepository, statement: str) -> None:
    with sqlite3.connect(toy.root / "mlflow.db") as connection:
        connection.execute(statement)


def removed(toy: ToyRepository) -> None:
    toy.git("update-ref", "-d", ref_of(toy, "first"))


def merge_marks(toy: ToyRepository) -> None:
    finish(toy, "merged", "none", **{"dvc.lock": "<<<<<<< HEAD\nstages:\n=======\n"})


def rewritten_params(toy: ToyRepository) -> None:
    commit_over(toy, "params.yaml", "seed: 1", "seed: 2")


def rewritten_metrics(toy: ToyRepository) -> None:
    commit_over(toy, "metrics/cv.json", "0.7123456", "0.9")


def commit_over(toy: ToyRepository, path: str, old: str, new: str) -> None:
    """The first result with another text in one of its files, and dvc.lock as it was."""
    applied(toy)
    text = (toy.root / path).read_text()
    assert old in text
    (toy.root / path).write_text(text.replace(old, new))
    toy.git("update-ref", ref_of(toy, "first"), toy.commit())


def same_name_twice(toy: ToyRepository) -> None:
    toy.git("update-ref", f"refs/exps/ab/{'0' * 38}/first", ref_of(toy, "second"))


def lost_scores(toy: ToyRepository) -> None:
    forget(toy, "oof1")  # of both


def lost_annotations(toy: ToyRepository) -> None:
    forget(toy, "clips1")


def forget(toy: ToyRepository, word: str) -> None:
    cached(toy, word).unlink()


def cached(toy: ToyRepository, word: str) -> Path:
    md5 = hashlib.md5(word.encode()).hexdigest()
    return toy.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def damaged_scores(toy: ToyRepository) -> None:
    cached(toy, "oof1").write_text("oo")


def unreadable_metrics(toy: ToyRepository) -> None:
    """In a commit of its own, which dvc.lock does not contradict."""
    text = toy.git("show", f"{ref_of(toy, 'first')}:dvc.lock")
    whole = re.search(r"md5: (\w+)\n +path: metrics/cv.json", text)
    assert whole
    other = text.replace(whole[1], hashlib.md5(b"{").hexdigest())
    finish(toy, "third", "none", **{"metrics/cv.json": "{", "dvc.lock": other})


def lock_of_elsewhere(toy: ToyRepository) -> None:
    """What a dvc.lock says that another machine has written, in the work tree."""
    (toy.root / "dvc.lock").write_text(toy.git("show", f"{ref_of(toy, 'first')}:dvc.lock"))


def uncommitted_score(toy: ToyRepository) -> None:
    with (toy.root / "leaderboard.csv").open("a") as ledger:
        ledger.write(f"{md5_of(cached(toy, 'sub-none'))},0.9,,,\n")


def strange_score(toy: ToyRepository) -> None:
    with (toy.root / "leaderboard.csv").open("a") as ledger:
        ledger.write("of-nobody,0.9,,,\n")


def new_code(toy: ToyRepository) -> None:
    (toy.root / "src").mkdir()
    (toy.root / "src/losses.py").write_text("")


def stray(toy: ToyRepository) -> None:
    (toy.root / "docs").mkdir()
    (toy.root / "docs/mlflow.db").write_text("")


def running(toy: ToyRepository) -> None:
    write_lock(toy, os.getpid())


def write_lock(toy: ToyRepository, pid: int) -> None:
    (toy.root / ".dvc/tmp").mkdir()
    held = {"write": {str(toy.root / "models"): {"pid": pid, "cmd": "dvc exp run"}}, "read": {}}
    (toy.root / ".dvc/tmp/rwlock").write_text(json.dumps(held))


def hydra(toy: ToyRepository) -> None:
    with (toy.root / ".dvc/config").open("a") as config:
        config.write("[hydra]\n    enabled = True\n")


def copies(toy: ToyRepository) -> None:
    (toy.root / ".dvc/config").write_text("[core]\n    autostage = true\n")


TROUBLES: list[tuple[Callable[[ToyRepository], None], str, str, bool]] = [
    (without_database, "no MLflow database", "callboard sync", True),
    (broken_database, "file is not a database", "mlflow.db.old`", True),
    (half_migrated, "_alembic_tmp_latest_metrics", "mlflow.db.old`", True),
    (two_versions, "more than one head", "mlflow.db.old`", True),
    (other_version, "'mlflow db upgrade <database_uri>'", "do as MLflow says", True),
    (newer_version, "a newer MLflow than the installed one wrote", "mlflow.db.old`", True),
    (deleted_experiment, "the MLflow experiment 'callboard' was deleted", "callboard sync", True),
    (lost_column, "no such column: runs.source_version", "mlflow.db.old`", True),
    (half_written, "1 result in git without a finished run in MLflow: first@", "callboard sync", True),
    (
        removed,
        "1 run in MLflow whose result has no name in git: first",
        "commit dvc.lock, metrics and plots",
        False,
    ),
    (merge_marks, "experiment merged: its dvc.lock cannot be read", "mend dvc.lock", True),
    (rewritten_params, "poisoned, train@0 ran with seed 1 and params.yaml has 2", "--force", True),
    (rewritten_metrics, "poisoned, metrics/cv.json is not what evaluate wrote", "--force", True),
    (same_name_twice, "1 experiment name with several results: first", "name@key", False),
    (lost_scores, "2 results with tables that DVC's cache lacks", "dvc pull", True),
    (damaged_scores, "1 file damaged in DVC's cache: scores/oof.csv of ", "`rm -f ", True),
    (
        unreadable_metrics,
        "experiment third: metrics/cv.json: not ",
        "`dvc exp remove third`",
        True,
    ),
    (lost_annotations, "2 results with tables that DVC's cache lacks", "dvc pull", True),
    (lock_of_elsewhere, "names 2 folders that DVC's cache lacks: ", "dvc repro", False),
    (uncommitted_score, "leaderboard.csv: 1 row not committed", "git commit leaderboard.csv", False),
    (strange_score, "1 submission that no run has: of-nobody", "callboard sync", False),
    (new_code, "1 file of code that git does not track: src/losses.py", "git add", False),
    (stray, "MLflow data that no command here reads: docs/mlflow.db", "`rm -r docs/mlflow.db`", False),
    (running, "1 DVC command running in this workspace: dvc exp run", "--temp", False),
    (hydra, "hydra.enabled", "dvc config hydra.enabled false", True),
    (copies, "cache.type is reflink,copy", "dvc config cache.type", False),
]


@pytest.mark.parametrize(
    ("plant", "what", "todo", "is_loss"), TROUBLES, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_planted_trouble_is_found(
    well: ToyRepository, plant: Callable[[ToyRepository], None], what: str, todo: str, is_loss: bool
) -> None:
    plant(well)
    (finding,) = found(what)
    assert todo in finding.todo
    assert finding.loses_results == is_loss


@pytest.mark.parametrize(
    ("name", "value", "is_loss"),
    [
        ("MLFLOW_RUN_ID", "0123456789abcdef", False),
        ("PYTHONDONTWRITEBYTECODE", "1", False),
        ("DVC_ROOT", ".", False),
        ("CALLBOARD_DEVICE", "gpu", False),
        ("CALLBOARD_WORKERS", "0", False),
        ("MLFLOW_TRACKING_URI", "sqlite:///runs.db", False),
        ("MLFLOW_TRACKING_URI", "./mlruns", True),
        ("MLFLOW_TRACKING_URI", "file:///w/mlruns", True),
    ],
)
def test_a_trap_in_the_environment_is_found(
    well: ToyRepository, monkeypatch: pytest.MonkeyPatch, name: str, value: str, is_loss: bool
) -> None:
    monkeypatch.setenv(name, value)
    (finding,) = found(f"{name} ")
    assert "unset" in finding.todo
    assert finding.loses_results == is_loss


def test_a_server_that_is_down_is_found(well: ToyRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (finding,) = found("MLflow's server does not answer")
    assert finding.loses_results
    assert not found("without a finished run")  # who cannot be asked is not said to lack anything


def test_a_command_that_was_killed_holds_nothing(well: ToyRepository) -> None:
    write_lock(well, 2**22 + 1)  # above the largest process number
    assert examine().findings == []


def test_a_command_of_another_user_holds_its_part(
    well: ToyRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr("os.kill", refuse)
    write_lock(well, 1)
    assert found("1 DVC command running")


def test_a_queue_is_idle_only_without_a_worker(well: ToyRepository) -> None:
    message = f"commit: dvc-exp:{well.baseline}:{well.baseline}:later"
    well.git("update-ref", "--create-reflog", "-m", message, "refs/exps/celery/stash", "HEAD")
    info = well.root / ".dvc/tmp/exps/celery/dvc-exp-worker-1.json"
    info.parent.mkdir(parents=True)
    for pid, is_idle in ((2**22 + 1, True), (os.getpid(), False)):
        info.write_text(json.dumps({"pid": pid}))
        assert bool(found("1 experiment in DVC's queue and no worker: later")) == is_idle


@pytest.mark.parametrize(
    "uri", ["ann:s3cr3t@host:5000", "http://ann:s3cr3t@[::1", "http://ann:s3cr3t@127.0.0.1:9"]
)
def test_no_password_is_shown(
    well: ToyRepository, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(SystemExit):
        dispatch(["doctor"])
    printed = "".join(capfd.readouterr())
    assert "MLflow's server does not answer" in printed
    assert "s3cr3t" not in printed


def test_parameters_of_folds_that_the_matrix_no_longer_has_poison_nothing(well: ToyRepository) -> None:
    applied(well)
    lock = (well.root / "dvc.lock").read_text()
    assert "train@1:" in lock
    old = "  train@2:\n    cmd: x\n    params:\n      params.yaml:\n        seed: 7\n    outs: []\n"
    (well.root / "dvc.lock").write_text(lock + old)
    well.git("update-ref", ref_of(well, "first"), well.commit())
    assert not found("poisoned")


def test_asking_mlflow_changes_no_database(well: ToyRepository) -> None:
    """MLflow itself would add a table that is missing, as of an older version."""
    alter(well, "DROP TABLE trace_tags")
    before = md5_of(well.root / "mlflow.db")
    examine()
    assert md5_of(well.root / "mlflow.db") == before


@pytest.mark.parametrize("damage", FAULTS, ids=lambda damage: damage.__name__)
def test_what_git_refuses_is_a_loss_with_a_remedy_and_other_checks_go_on(
    well: ToyRepository, monkeypatch: pytest.MonkeyPatch, damage: Damage
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123456789abcdef")
    damage(well, monkeypatch)
    findings = examine().findings
    told = [finding for finding in findings if finding.what.startswith("git: ")]
    assert told
    assert all(finding.loses_results and finding.todo for finding in told)
    assert any(finding.what.startswith("MLFLOW_RUN_ID is set") for finding in findings)


def test_git_and_mlflow_are_read_once(well: ToyRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for name in ("results_in_git", "known_runs"):
        real = getattr(findings, name)
        monkeypatch.setattr(findings, name, lambda *a, real=real, name=name: asked.append(name) or real(*a))
    dispatch(["doctor"])
    assert sorted(asked) == ["known_runs", "results_in_git"]


def test_every_check_says_what_it_looks_for() -> None:
    assert all(check.__doc__ for check in CHECKS)
