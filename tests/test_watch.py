"""`callboard watch` beside a real training in a process of its own."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from callboard.params.base import read_tree
from callboard.reports.watch import watching
from callboard.reports.watch.checkpoints import CHECKPOINTS, SECTIONS, checkpoint_names, read_history
from callboard.reports.watch.trainings import Training, interrupted_trainings, running_trainings
from tests.conftest import ROOT, TOY_PARAMS, merge
from tests.toy_git import ToyRepository
from tests.toy_training import PARAMS, write_fold_inputs

N_EPOCHS = 5000
"""Longer than any test looks."""

Trainings = tuple[Path, list[subprocess.Popen[bytes]]]


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
    tree = read_tree(ROOT / "params.yaml")
    merge(tree, TOY_PARAMS)
    merge(tree, {**PARAMS, "seed": seed, "train": {**PARAMS["train"], "epochs": N_EPOCHS}})
    YAML().dump(tree, folder / "params.yaml")
    return folder


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    """Those of `dvc repro` and of a queued experiment; killed at the end."""
    root = tmp_path_factory.mktemp("trainings")
    processes = [
        start_training(root, write_world(root / "here", 1)),
        start_training(root, write_world(root / ".dvc/tmp/exps/tmp1", 2), "exp0058"),
    ]
    yield root, processes
    kill(processes)


@pytest.fixture
def started(trainings: Trainings, monkeypatch: pytest.MonkeyPatch) -> Trainings:
    """The main workspace, as that of this process, and what trains there until a test kills it."""
    monkeypatch.setenv("DVC_ROOT", str(trainings[0]))
    return trainings


def kill(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
        process.wait()


def test_the_sections_are_those_that_training_reads() -> None:
    from stages.train import TrainStageParams

    assert set(TrainStageParams.model_fields) == SECTIONS


@pytest.mark.parametrize(
    ("pseudo", "has_test_set", "start"),
    [
        ("", False, "null"),
        ("r", False, "null"),
        ("", True, "null"),
        ("r", True, "null"),
        ("t", True, "null"),
        ("", False, f"stage1@{'0' * 16}"),
    ],
)
def test_training_writes_its_checkpoint_where_watch_looks(
    main: Path, monkeypatch: pytest.MonkeyPatch, pseudo: str, has_test_set: bool, start: str
) -> None:
    from stages import train

    folder = write_world(main / "here", 1)
    params = (folder / "params.yaml").read_text(encoding="utf-8")
    assert params.count("init_from:") == 1
    params = re.sub("init_from:.*", f"init_from: {start}", params)
    (folder / "params.yaml").write_text(params, encoding="utf-8")
    monkeypatch.setattr(train, "find_fold_weights", lambda *given: None)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CALLBOARD_DEVICE", "cpu")
    arguments = ["--fold", "0", "--mel", "mel", "--clips", "clips.csv", "--folds", "folds.csv"]
    arguments += ["--species", "species.csv", "--weights", "w.pt", "--curve", "c.csv"]
    if pseudo:
        rename_recordings(Path("clips.csv"), pseudo, Path("pseudo.csv"))
        arguments += ["--pseudo", "pseudo.csv"]
    if has_test_set:
        shutil.copytree("mel", "mel-test")
        rename_recordings(Path("mel/index.csv"), "t", Path("mel-test/index.csv"))
        arguments += ["--mel-others", "mel-test"]

    def stop_before_fitting(params: Any, fold: int, data: Any, execution: Any, start: Any) -> None:
        raise ReachedError(execution.checkpoint.path)

    monkeypatch.setattr(train, "fit", stop_before_fitting)
    with pytest.raises(ReachedError) as reached:
        train.main(arguments)
    names = checkpoint_names(folder, train._parse(arguments))
    assert len(set(names)) == 1 + has_test_set
    assert reached.value.args[0] == main / CHECKPOINTS / names[pseudo == "t"]


class ReachedError(Exception):
    """With the path of the checkpoint."""


def rename_recordings(table: Path, letter: str, target: Path) -> None:
    """A copy in which the recordings r00, r01, ... begin with another letter, and all labels are pseudo."""
    renamed = re.sub(r"\br(?=\d\d,)", letter, table.read_text())
    target.write_text(re.sub(r",[tf]p,", ",pseudo,", renamed))


def two(folder: Path) -> list[Path]:
    paths = list(folder.glob("*.pt"))
    return paths if len(paths) == 2 else []


def all_have_epochs(n: int) -> list[Training]:
    found = running_trainings()
    return found if len(found) == 2 and all(len(t.progress()[0]) >= n for t in found) else []


@pytest.mark.slow
def test_side_by_side_trainings_are_told_apart_and_a_killed_one_is_called_stopped(
    started: Trainings, capsys: pytest.CaptureFixture[str]
) -> None:
    processes = started[1]
    found = wait_for(lambda: all_have_epochs(3))
    assert {training.experiment: training.pid for training in found} == {
        "": processes[0].pid,
        "exp0058": processes[1].pid,
    }
    curve = found[0].progress()[0]
    assert [row["epoch"] for row in curve] == list(range(1, len(curve) + 1))
    assert found[0].progress()[0][0] != found[1].progress()[0][0]  # another seed, another loss
    assert not list(interrupted_trainings(found))

    watching.follow(once=True)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2
    pattern = rf"r0-fold0: epoch \d+ of {N_EPOCHS}, loss \d\.\d+, LWLRAP \d\.\d+, "
    pattern += r"\d+\.\d s per epoch, [\d.]+ (s|min|h) left  [▁-█]+"
    for line, name in zip(sorted(printed), ("exp0058", "workspace"), strict=True):
        assert re.fullmatch(f"{name} {pattern}", line), line

    kill(processes)
    watching.follow(once=True)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("nothing trains")
    assert [line.split(",")[0].split(" after")[0] for line in printed[2:]] == ["stopped: fold0"] * 2


@pytest.mark.slow
def test_a_history_read_without_torch_is_the_one_that_torch_reads(started: Trainings) -> None:
    from callboard.training.checkpoint import Checkpoint

    main, processes = started
    paths = wait_for(lambda: two(main / CHECKPOINTS))
    kill(processes)
    for path in paths:
        state = Checkpoint(path).read()
        assert state
        assert read_history(path) == state["history"]


def test_finished_folds_are_those_that_this_run_has_written(tmp_path: Path) -> None:
    curve = "epoch,lr,loss,val_lwlrap\n1,0.001,2.0,\n2,0.001,1.0,0.5\n"
    repository = ToyRepository(tmp_path / "main")
    folder = repository.root
    (folder / "plots/train").mkdir(parents=True)
    (folder / "models/r0").mkdir(parents=True)
    for fold, written in (
        (4, 2000),
        (0, 2000),
        (1, 2000),
        (2, 500),
        (3, 2000),
    ):  # 1 trains, 2 is of an earlier run
        path = folder / f"plots/train/r0-fold{fold}.csv"
        path.write_text(curve)
        os.utime(path, (written, written))
        if fold == 4:  # dvc puts what was committed into a temporary copy
            repository.commit()
        if fold != 3:  # no weights
            (folder / f"models/r0/fold{fold}.pt").touch()
    training = Training(1, "exp0058", folder, "r0-fold1", 9, 1500.0, 1000.0, ())
    assert training.finished_folds() == {
        "r0-fold0": [
            {"epoch": 1, "lr": 0.001, "loss": 2.0, "val_lwlrap": None},
            {"epoch": 2, "lr": 0.001, "loss": 1.0, "val_lwlrap": 0.5},
        ]
    }
    assert [str(line) for line in watching.lines([training], watching.Pace())] == [
        "exp0058 r0-fold0: epoch 2, loss 1.000, LWLRAP 0.500, finished  █▁",
        "exp0058 r0-fold1: epoch 0 of 9",
    ]


def test_the_pace_of_a_resumed_training_is_that_of_the_epochs_seen() -> None:
    training = Training(1, "", Path(), "r0-fold1", 9, 100.0, 100.0, ())
    pace = watching.Pace()
    assert pace.seconds(training, 5, 50.0) is None  # written before this process began
    assert pace.seconds(training, 10, 110.0) == 1.0
    assert pace.seconds(training, 12, 118.0) == 4.0


def test_a_sparkline_spans_its_values_and_keeps_the_last() -> None:
    assert watching.sparkline([0.0, 7.0, float("nan"), 3.0]) == "▁█▄"
    assert watching.sparkline([2.0, 2.0]) == "▁▁"
    assert watching.sparkline([]) == ""
    long = watching.sparkline([float(i) for i in range(100)])
    assert len(long) <= watching.CURVE_WIDTH
    assert long[-1] == "█"


def test_watching_imports_neither_torch_nor_mlflow() -> None:
    heavy = "{'torch', 'mlflow', 'pandas'} & set(sys.modules)"
    code = f"import sys, callboard.reports.watch.watching; print({heavy} or 'none')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "src"
    )
    assert done.stdout.strip() == "none"
