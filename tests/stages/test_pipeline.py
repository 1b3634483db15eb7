"""The pipeline as people use it: what runs again, what does not, and what MLflow holds afterwards."""

import csv
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from callboard.core.compute import from_cells
from tests.conftest import Workspace, ran
from tests.stages.test_one_run import callboard

pytestmark = pytest.mark.slow

SCORING = {"evaluate", "infer", "score", "track"}
ONE_ROUND = "pseudo.rounds=1"


def recorded(workspace: Workspace, kind: str = "cv") -> list[str]:
    """Names of MLflow's finished runs."""
    query = """
        SELECT runs.name FROM runs JOIN tags USING (run_uuid)
        WHERE tags.key = 'callboard.kind' AND tags.value = ? AND status = 'FINISHED' ORDER BY start_time"""
    with closing(sqlite3.connect(workspace.root / "mlflow.db")) as connection:
        return [name for (name,) in connection.execute(query, (kind,))]


# what a first run leaves


def test_a_first_run_ends_with_a_submission_scores_and_one_run(finished: Workspace) -> None:
    cv = json.loads(finished.read("metrics/cv.json"))["cv"]
    lb = json.loads(finished.read("metrics/lb.json"))["lb"]
    assert 0 < cv["lwlrap"] <= 1
    assert set(lb) == {"public", "private"}
    submission = list(csv.reader(io.StringIO(finished.read("submission/submission.csv"))))
    sample = list(csv.reader(io.StringIO(finished.read("data/source/sample_submission.csv"))))
    assert [row[0] for row in submission] == [row[0] for row in sample]
    assert recorded(finished) == ["exp0051"]
    assert sorted(recorded(finished, "fold")) == ["r0-fold0", "r0-fold1"]


def test_the_run_has_what_trained_it_from_the_curves_and_its_screen_shows_it(finished: Workspace) -> None:
    curves = [csv.DictReader(io.StringIO(finished.read(f"plots/train/r0-fold{fold}.csv"))) for fold in (0, 1)]
    (compute,) = {from_cells(row) for curve in curves for row in curve}
    assert compute
    assert (compute.device, compute.threads) == ("cpu", 1)
    (name,) = recorded(finished)
    assert f"trained on  {compute}\n" in callboard(finished, "show", name)


def test_git_sees_metrics_and_plots_and_nothing_else_that_was_made(finished: Workspace) -> None:
    known = set(finished.git("ls-files").split())
    made = {path for path in known if path.startswith(("metrics/", "plots/", "data/", "models/", "scores/"))}
    curves = {f"plots/train/r0-fold{fold}.csv" for fold in (0, 1)}
    assert made == curves | {"metrics/cv.json", "metrics/lb.json", "plots/species.csv"}
    assert "track.json" not in known
    assert not [
        path
        for path in known
        if path.endswith(".gitignore") and path not in (".gitignore", ".dvc/.gitignore")
    ]


def test_the_tables_of_dvc_have_cv_and_lb(finished: Workspace) -> None:
    columns = next(csv.reader(io.StringIO(finished.dvc("exp", "show", "--csv"))))
    for name in ("cv.lwlrap", "lb.public", "lb.private", "loss.neg_mask"):
        assert any(column.endswith(name) for column in columns), name
    assert "cv.lwlrap" in finished.dvc("metrics", "show", "--md")


def test_plots_are_curves_and_bars(finished: Workspace) -> None:
    printed = finished.dvc("plots", "show", "--json")
    plots = json.JSONDecoder().raw_decode(printed[printed.index("{") :])[0]["data"]
    curve = plots["training loss"][0]["content"]
    assert {row["filename"] for row in curve["data"]["values"]} == {"r0-fold0.csv", "r0-fold1.csv"}
    assert plots["plots/species.csv"][0]["content"]["mark"]["type"] == "bar"


# what runs again


def test_a_second_repro_runs_nothing(workspace: Workspace) -> None:
    workspace.dvc("repro")  # settles what DVC keeps about copied files
    start = time.monotonic()
    printed = workspace.dvc("repro")
    assert ran(printed) == set()
    assert "Data and pipelines are up to date" in printed
    assert time.monotonic() - start < 10  # seconds; about one on an idle machine


def test_editing_the_readme_reruns_nothing(workspace: Workspace) -> None:
    workspace.write("README.md", "other words\n")
    assert ran(workspace.dvc("repro")) == set()


def test_another_loss_reruns_train_and_what_follows(workspace: Workspace) -> None:
    printed = workspace.dvc("exp", "run", "--name", "exp0058", "--set-param", "loss.neg_mask=seq")
    assert ran(printed) == {"check", "train", "predict"} | SCORING
    assert recorded(workspace)[1:] == ["exp0058"]
    changed = workspace.git("diff", "--unified=0", "params.yaml").splitlines()[5:]
    assert changed == ["-  neg_mask: none", "+  neg_mask: seq"]


def test_another_pooling_retrains_nothing_and_a_cache_hit_is_no_second_run(workspace: Workspace) -> None:
    override = ("--set-param", "infer.window_agg=mean")
    printed = workspace.dvc("exp", "run", "--name", "first", *override)
    assert {"check", "evaluate", "infer", "track"} <= ran(printed) <= {"check"} | SCORING
    workspace.git("checkout", "--quiet", ".")
    workspace.dvc("checkout")
    for name, place in (("again", ()), ("elsewhere", ("--temp",))):
        printed = workspace.dvc("exp", "run", "--name", name, *place, *override)
        assert ran(printed) == {"track"}, name
        workspace.git("checkout", "--quiet", ".")
        workspace.dvc("checkout")
    assert recorded(workspace)[1:] == ["first"]


LOSSES = "src/callboard/training/losses/terms.py"


def replace_once(workspace: Workspace, name: str, old: str, new: str) -> None:
    text = workspace.read(name)
    assert text.count(old) == 1
    workspace.write(name, text.replace(old, new))


def test_other_words_in_the_loss_and_another_rich_rerun_nothing_but_code(workspace: Workspace) -> None:
    workspace.write(LOSSES, f'"""Other words."""\n{workspace.read(LOSSES)}\n\n\n# a remark\n')
    lock = workspace.read("requirements.lock")
    workspace.write("requirements.lock", re.sub(r"^rich==.*", "rich==99", lock, flags=re.MULTILINE))
    assert ran(workspace.dvc("repro")) == {"code"}


def test_another_torch_changes_the_stages_that_import_it(workspace: Workspace) -> None:
    lock = workspace.read("requirements.lock")
    workspace.write("requirements.lock", re.sub(r"^torch==.*", "torch==99", lock, flags=re.MULTILINE))
    assert stale_after_code(workspace) == {"train", "predict"}


def stale_after_code(workspace: Workspace) -> set[str]:
    """Stages that DVC would run again first, once the fingerprints of the code are made anew."""
    assert ran(workspace.dvc("repro", "--single-item", "code")) == {"code"}
    return {name.split("@")[0] for name in json.loads(workspace.dvc("status", "--json"))}


def test_other_code_in_the_loss_reruns_train_and_an_equal_result_is_no_second_run(
    workspace: Workspace,
) -> None:
    workspace.write(LOSSES, f"{workspace.read(LOSSES)}\nUNUSED = 1\n")
    assert ran(workspace.dvc("repro")) == {"code", "train"}
    assert len(recorded(workspace)) == 1


def test_another_operator_in_the_loss_changes_the_stages_that_train(workspace: Workspace) -> None:
    cells = "self.cells(targets.clip, targets.clip_labeled)"
    replace_once(workspace, LOSSES, f"({cells} * loss)", f"({cells} - loss)")
    assert stale_after_code(workspace) == {"train"}


def test_a_clone_without_dvc_lock_starts_with_any_command_and_has_no_results_of_the_past(
    finished: Workspace, tmp_path: Path
) -> None:
    """DVC's cache comes along, only to be quick: no dvc.lock says what of it belongs to which stage."""
    finished.git("clone", "--quiet", str(finished.root), str(tmp_path / "clone"))
    clone = Workspace(tmp_path / "clone")
    shutil.copytree(finished.root / ".dvc/cache", clone.root / ".dvc/cache")
    clone.git("rm", "-r", "--quiet", "dvc.lock", "metrics", "plots")
    clone.commit()
    clone.dvc("exp", "run", "--name", "first", "-S", "evaluate.n_bootstrap=121")
    for command in (
        ("exp", "run", "--temp", "--name", "second", "-S", "evaluate.n_bootstrap=122"),
        ("repro",),
    ):
        clone.git("checkout", "--quiet", ".")
        clone.dvc("checkout")
        callboard(clone, "sync")
        assert set(recorded(clone)) <= {"first", "second"}
        clone.dvc(*command)
    assert recorded(clone)[:2] == ["first", "second"]
    assert recorded(clone)[2] == "exp0051"


def test_a_typo_in_a_value_stops_before_anything_runs(workspace: Workspace) -> None:
    done = workspace.command(sys.executable, "-m", "dvc", "exp", "run", "-S", "loss.neg_mask=sec")
    assert done.returncode != 0
    assert "loss.neg_mask: Input should be 'none', 'clip', 'seq' or 'unlabeled', found 'sec'" in done.stdout
    assert ran(done.stdout) == {"check"}


def test_a_key_that_no_stage_reads_is_refused(workspace: Workspace) -> None:
    done = workspace.command(sys.executable, "-m", "dvc", "exp", "run", "-S", "+foo.bar=1")
    assert done.returncode != 0
    assert "foo: unknown parameter" in done.stdout


# experiments elsewhere


def test_queued_experiments_run_their_own_code_and_make_one_run_each_in_a_missing_database(
    workspace: Workspace,
) -> None:
    (workspace.root / "mlflow.db").unlink()
    own = workspace.read("src/callboard/scoring/window_scores.py")
    workspace.write("src/callboard/scoring/window_scores.py", f'{own}\nprint("code of the experiment")\n')
    for name, n_bootstrap in (("one", 121), ("two", 122)):
        workspace.dvc("exp", "run", "--queue", "--name", name, "-S", f"evaluate.n_bootstrap={n_bootstrap}")
    workspace.write("src/callboard/scoring/window_scores.py", f'{own}\nprint("code of the main workspace")\n')
    workspace.dvc("exp", "run", "--run-all", "--jobs", "2")
    for name in ("one", "two"):
        log = workspace.dvc("queue", "logs", name)
        assert "code of the experiment" in log
        assert "code of the main workspace" not in log
    assert sorted(recorded(workspace)) == ["one", "two"]


def test_a_pseudo_label_round_runs_through_to_a_score(workspace: Workspace) -> None:
    settings = [ONE_ROUND, "pseudo.source=train_test", "pseudo.min_votes=2"]
    overrides = [word for setting in settings for word in ("--set-param", setting)]
    printed = workspace.dvc("exp", "run", "--temp", "--name", "student", *overrides)
    assert ran(printed) == {"check", "pseudo_label_1", "retrain_1", "predict"} | SCORING
    assert recorded(workspace)[1:] == ["student"]
    folds = recorded(workspace, "fold")
    assert sorted(folds) == ["r0-fold0", "r0-fold0", "r0-fold1", "r0-fold1", "r1-fold0", "r1-fold1"]
    assert "pseudo.rounds: 0 → 1" in note_of(workspace, "student")
    assert_students_trained_on_labeled_recordings(workspace, printed)


def assert_students_trained_on_labeled_recordings(workspace: Workspace, printed: str) -> None:
    """Labels are of training and test recordings; an epoch of a student has a clip for each test one."""
    workspace.dvc("exp", "apply", "student")
    labeled = {row["recording_id"] for row in table_of(workspace, "pseudo/r1.csv")}
    fold_of = {row["recording_id"]: row["fold"] for row in table_of(workspace, "data/folds.csv")}
    assert labeled & fold_of.keys()
    assert labeled - fold_of.keys()
    confirmed = {
        row["recording_id"] for row in table_of(workspace, "data/clips.csv") if row["label_type"] == "tp"
    }
    n_fp = yaml.safe_load(workspace.read("params.yaml"))["train"]["fp_per_epoch"]
    for fold in ("0", "1"):
        n_tp = sum(fold_of[name] != fold for name in confirmed)
        n_clips = n_tp + n_fp + len(labeled - fold_of.keys())
        assert f"train: fold {fold}, 2 epochs of {n_clips} clips" in printed


def table_of(workspace: Workspace, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(workspace.read(name))))


def note_of(workspace: Workspace, name: str) -> str:
    query = """SELECT tags.value FROM tags JOIN runs USING (run_uuid)
               WHERE tags.key = 'mlflow.note.content' AND runs.name = ?"""
    with closing(sqlite3.connect(workspace.root / "mlflow.db")) as connection:
        (note,) = connection.execute(query, (name,)).fetchone()
    return str(note)


# killed


def wait_for(condition: Callable[[], Any], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_a_killed_training_goes_on_where_it_stopped(workspace: Workspace) -> None:
    """With the bytes of one that was not killed, as tests/stages/test_train.py shows."""
    workspace.write("params.yaml", workspace.read("params.yaml").replace("  epochs: 2\n", "  epochs: 12\n"))
    command = [sys.executable, "-m", "dvc", "repro", "train"]
    process = subprocess.Popen(
        command, cwd=workspace.root, env=workspace.environment(), start_new_session=True
    )
    wait_for(lambda: list((workspace.root / ".cache").glob("checkpoints/*-fold1.pt")), seconds=120)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    printed = workspace.dvc("repro", "train")
    assert "Running stage 'train@0'" not in printed
    assert "Running stage 'train@1'" in printed
    assert "resumed after epoch " in printed
    assert not list((workspace.root / ".cache").glob("checkpoints/*.pt"))
