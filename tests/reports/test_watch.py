"""`callboard watch` beside a real training in a process of its own."""

import json
import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML

from callboard.core.workspace import CHECKPOINTS
from callboard.experiments.jobs.local import Workers
from callboard.experiments.jobs.stage_progress import COMMANDS, StageProgress
from callboard.params.base import read_tree
from callboard.reports import watch
from callboard.reports.watch import Trainings, find_trainings
from callboard.training.progress import STALE_AFTER_S, Progress, ProgressWriter, read_progress
from tests.conftest import ROOT, TOY_PARAMS, merge
from tests.toy_training import PARAMS, write_fold_inputs

N_EPOCHS = 5000
"""Longer than any test looks."""

Started = tuple[Path, list[subprocess.Popen[bytes]]]


def wait_for(condition: Callable[[], Any], seconds: float = 180) -> Any:
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)
    return value


def start_training(main: Path, folder: Path, experiment: str = "") -> subprocess.Popen[bytes]:
    """Train fold 0 in `folder`, as dvc would below the main workspace `main`."""
    command = [sys.executable, "-m", "stages.train", "--fold", "0", "--mel", "mel", "--clips", "clips.csv"]
    command += ["--folds", "folds.csv", "--species", "species.csv", "--weights", "models/r0/fold0.pt"]
    command += ["--curve", "plots/train/r0-fold0.csv"]
    names = {"DVC_ROOT": str(main), "CALLBOARD_DEVICE": "cpu", "CALLBOARD_WORKERS": "1"}
    names |= {"DVC_EXP_NAME": experiment} if experiment else {}
    with (folder / "log.txt").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, env=os.environ | names, stdout=log, stderr=log)


def write_world(folder: Path, seed: int) -> Path:
    folder.mkdir(parents=True)
    write_fold_inputs(folder)
    for name in ("src", "stages", "requirements.lock"):
        (folder / name).symlink_to(ROOT / name)
    tree = read_tree(ROOT / "tests/params.yaml")
    merge(tree, TOY_PARAMS)
    merge(tree, {**PARAMS, "seed": seed, "train": {**PARAMS["train"], "epochs": N_EPOCHS}})
    YAML().dump(tree, folder / "params.yaml")
    return folder


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """Those of `dvc repro` and of a queued experiment; killed at the end."""
    root = tmp_path_factory.mktemp("trainings")
    processes = [
        start_training(root, write_world(root / "here", 1)),
        start_training(root, write_world(root / ".dvc/tmp/exps/tmp1", 2), "exp0058"),
    ]
    yield root, processes
    kill(processes)


@pytest.fixture
def started(trainings: Started, monkeypatch: pytest.MonkeyPatch) -> Started:
    """The main workspace, as that of this process, and what trains there until a test kills it."""
    monkeypatch.setenv("DVC_ROOT", str(trainings[0]))
    return trainings


def kill(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
        process.wait()


def all_have_epochs(n: int) -> Trainings | None:
    found = find_trainings()
    return found if len(found.shown) == 2 and all(len(each.curve) >= n for each in found.shown) else None


@pytest.mark.slow
def test_side_by_side_trainings_are_told_apart_and_a_killed_one_is_called_stopped(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    processes = started[1]
    found: Trainings = wait_for(lambda: all_have_epochs(3))
    assert {training.experiment: training.pid for training in found.shown} == {
        "": processes[0].pid,
        "exp0058": processes[1].pid,
    }
    curve = found.shown[0].curve
    assert [row["epoch"] for row in curve] == list(range(1, len(curve) + 1))
    assert curve[0] != found.shown[1].curve[0]  # another seed, another loss
    assert not found.stopped

    watch.follow(once=True)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2
    pattern = rf"r0-fold0: epoch \d+ of {N_EPOCHS}, loss \d\.\d+, LWLRAP \d\.\d+, "
    pattern += r"\d+\.\d s per epoch, [\d.]+ (s|min|h) left  [▁-█]+"
    for line, name in zip(sorted(printed), ("exp0058", "workspace"), strict=True):
        assert re.fullmatch(f"{name} {pattern}", line), line

    kill(processes)
    watch.follow(once=True)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("nothing is training")
    stopped = [line.split(" after")[0] for line in sorted(printed[2:])]
    assert stopped == ["stopped: exp0058 r0-fold0", "stopped: workspace r0-fold0"]


def a_progress(**changes: Any) -> Progress:
    """Of this process, after two of nine epochs."""
    plain = Progress(
        experiment="",
        name="r0-fold1",
        n_epochs=9,
        curve=[{"epoch": 1, "loss": 2.0, "val_lwlrap": None}, {"epoch": 2, "loss": 1.0, "val_lwlrap": 0.5}],
        seconds_per_epoch=4.0,
        pid=os.getpid(),
        host=socket.gethostname(),
        started=time.time() - 10,
        updated=time.time() - 2,
    )
    return replace(plain, **changes)


def put(main: Path, fold: int, progress: Progress, recipe: str = "a") -> Path:
    """Write a progress file and the checkpoint beside it."""
    path = main / CHECKPOINTS / f"{recipe * 32}-fold{fold}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    path.with_suffix(".json").write_text(json.dumps(asdict(progress)))
    return path


def test_finished_folds_of_the_same_recipe_stand_above_the_one_that_trains(main: Path) -> None:
    finished = {"n_epochs": 2, "pid": 1}
    put(main, 0, a_progress(experiment="exp0058", name="r0-fold0", **finished)).unlink()
    put(main, 1, a_progress(experiment="exp0058", curve=[], seconds_per_epoch=None))
    put(main, 0, a_progress(name="r0-fold0", **finished), recipe="b").unlink()
    assert [str(watch.line_of(progress)) for progress in find_trainings().shown] == [
        "exp0058 r0-fold0: epoch 2 of 2, loss 1.000, LWLRAP 0.500, 4.0 s per epoch, finished  █▁",
        "exp0058 r0-fold1: epoch 0 of 9",
    ]


def test_the_time_left_counts_from_the_last_epoch(main: Path) -> None:
    put(main, 1, a_progress())
    (progress,) = find_trainings().shown
    assert progress.left_s() == pytest.approx(4 * 7 - 2, abs=1)
    assert a_progress(updated=time.time() - 1000).left_s() == 0


def test_a_training_whose_process_has_ended_is_stopped(
    main: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    put(main, 0, a_progress(name="r0-fold0", pid=child.pid, updated=time.time() - 600))
    # another process has the number by now: this one, which began after the last epoch
    long_ago = psutil.Process().create_time() - 3600
    put(main, 1, a_progress(experiment="exp1", updated=long_ago))
    put(main, 2, a_progress(pid=child.pid)).unlink()  # killed before its first epoch: nothing to go on from
    watch.follow(once=True)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("nothing is training")
    assert printed[2] == (
        "stopped: workspace r0-fold0 after epoch 2, 10 min ago; the command that ran it continues from there"
    )
    assert printed[3].startswith("stopped: exp1 r0-fold1 after epoch 2, ")
    assert len(printed) == 4


def test_a_training_on_another_host_runs_as_long_as_it_writes() -> None:
    elsewhere = a_progress(host="elsewhere", pid=2**22 + 1)
    assert elsewhere.is_running()
    assert not replace(elsewhere, updated=time.time() - 2 * STALE_AFTER_S).is_running()


def test_stages_of_a_command_are_listed_and_machines_named(
    main: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = StageProgress(Workers(2), main / COMMANDS / f"{platform.node()}.{os.getpid()}")
    progress.expect("exp0058", ["train@0", "train@1"])
    watch.follow(once=True)
    assert capsys.readouterr().out == "exp0058: 0 of 2 stages finished, waiting: train@0 train@1\n"
    put(main, 1, a_progress(experiment="exp0058", host="node7"))
    with progress.running("exp0058", "train@1"):
        watch.follow(once=True)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("exp0058 r0-fold1 on node7: epoch 2 of 9, ")
    assert second == "exp0058: 0 of 2 stages finished, running: train@1, waiting: train@0"


def test_a_progress_file_of_another_version_is_left_out(main: Path) -> None:
    put(main, 1, a_progress())
    for fold, text in enumerate(("", "[]", '{"epoch": 1}', "\u00ff")):
        put(main, 10 + fold, a_progress()).with_suffix(".json").write_text(text, encoding="latin-1")
    assert len(find_trainings().shown) == 1


def test_the_curve_goes_on_and_the_pace_is_that_of_the_epochs_of_this_process(main: Path) -> None:
    checkpoint = main / "x-fold0.pt"
    rows = a_progress().curve
    ProgressWriter(checkpoint, "r0-fold0", 3).write(rows[:1])
    writer = ProgressWriter(checkpoint, "r0-fold0", 3)
    writer.write(rows)
    (before,) = read_progress(main).values()
    assert (before.curve, before.seconds_per_epoch, before.is_finished) == (rows, None, False)
    time.sleep(0.2)
    writer.write([*rows, {**rows[0], "epoch": 3}])
    (after,) = read_progress(main).values()
    assert after.seconds_per_epoch == pytest.approx(0.2, abs=0.15)
    assert after.started == before.started
    assert after.is_finished


def test_a_sparkline_spans_its_values_and_keeps_the_last() -> None:
    assert watch.sparkline([0.0, 7.0, float("nan"), 3.0]) == "▁█▄"
    assert watch.sparkline([2.0, 2.0]) == "▁▁"
    assert watch.sparkline([]) == ""
    long = watch.sparkline([float(i) for i in range(100)])
    assert len(long) <= watch.CURVE_WIDTH
    assert long[-1] == "█"


def test_watching_imports_neither_torch_nor_mlflow() -> None:
    heavy = "{'torch', 'mlflow', 'pandas'} & set(sys.modules)"
    code = f"import sys, callboard.reports.watch; print({heavy} or 'none')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "src"
    )
    assert done.stdout.strip() == "none"
