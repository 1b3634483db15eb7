"""What real DVC leaves when it is killed, and remedies whose commands are DVC's, done as doctor says."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from callboard.results.dvc_lock import all_outs, stages_in
from callboard.results.mlflow.sync import sync
from tests.analysis import test_doctor
from tests.analysis.test_doctor_remedies import do, found_now
from tests.conftest import IDENTITY
from tests.toy_git import ToyRepository

pytestmark = pytest.mark.slow

PIPELINE = """\
stages:
  prepare:
    cmd: mkdir -p data/source && cp params.yaml data/source/all
    params: [seed]
    outs: [data/source]
  crop:
    cmd: sleep ${pause} && cp data/source/all data/clips.csv
    deps: [data/source]
    outs: [data/clips.csv]
  evaluate:
    cmd: >-
      mkdir -p scores metrics plots/train && cp data/clips.csv scores/oof.csv &&
      echo '{"cv":{"lwlrap":0.7}}' > metrics/cv.json &&
      printf 'epoch,loss\\n0,1.0\\n' > plots/train/r0-fold0.csv
    deps: [data/clips.csv]
    outs:
    - scores/oof.csv
    - metrics/cv.json: {cache: false}
    - plots/train/r0-fold0.csv: {cache: false}
  infer:
    cmd: mkdir -p submission && cp data/clips.csv submission/submission.csv
    deps: [data/clips.csv]
    outs: [submission/submission.csv]
  score:
    cmd: echo '{"lb":{}}' > metrics/lb.json
    deps: [submission/submission.csv]
    outs:
    - metrics/lb.json: {cache: false}
"""
"""Stages that every result has, in shell."""

CONFIG = """\
[core]
    remote = store
[cache]
    type = "reflink,hardlink,symlink,copy"
['remote "store"']
    url = ../../store
"""


def environment(root: Path) -> dict[str, str]:
    own = {
        "DVC_SITE_CACHE_DIR": str(root / ".dvc/tmp/site"),
        "DVC_NO_ANALYTICS": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    foreign = ("DVC_", "MLFLOW_")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    return clean | IDENTITY | own


def dvc(root: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(
        command, cwd=root, env=environment(root), text=True, stdout=-1, stderr=-2, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> ToyRepository:
    """One result of HEAD and one of an experiment, recorded and pushed. Not to be changed, see `toy`."""
    toy = ToyRepository(tmp_path_factory.mktemp("ran") / "main")
    (toy.root / "dvc.yaml").write_text(PIPELINE)
    (toy.root / "params.yaml").write_text("seed: 1\npause: 0\nsplit:\n  folds: [0]\n")
    (toy.root / ".dvc/config").write_text(CONFIG)
    (toy.root / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")
    (toy.root / "leaderboard.csv").write_text("submission_md5,key,public,private,date,note\n")
    (toy.root / ".gitignore").write_text("/.cache\n/mlflow.db*\n/.mlflow.lock\n/mlartifacts\n")
    toy.commit()
    dvc(toy.root, "repro")
    toy.commit()
    dvc(toy.root, "push")
    dvc(toy.root, "exp", "run", "--temp", "--name", "second", "-S", "seed=2")
    shutil.copy(empty_database, toy.root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        stand_in(toy, patch)
        sync()
    return toy


@pytest.fixture
def toy(ran: ToyRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyRepository:
    """The same, of the test's own; doctor finds nothing."""
    shutil.copytree(ran.root.parent / "store", tmp_path / "store")
    toy = ran.copied(tmp_path / "main")
    stand_in(toy, monkeypatch)
    assert found_now() == {}
    return toy


def stand_in(toy: ToyRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    test_doctor.stand_in(toy, monkeypatch)
    for name, value in environment(toy.root).items():
        monkeypatch.setenv(name, value)


def cached(toy: ToyRepository, path: str) -> Path:
    md5 = all_outs(stages_in((toy.root / "dvc.lock").read_text(), "dvc.lock"))[path]
    return toy.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def damaged_scores(toy: ToyRepository) -> None:
    path = cached(toy, "scores/oof.csv")
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-3])


def lost_table(toy: ToyRepository) -> None:
    cached(toy, "data/clips.csv").unlink()


def lost_folder(toy: ToyRepository) -> None:
    cached(toy, "data/source").unlink()


def merge_in_lock(toy: ToyRepository) -> None:
    text = (toy.root / "dvc.lock").read_text()
    (toy.root / "dvc.lock").write_text(f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> other\n")


def queued(toy: ToyRepository) -> None:
    dvc(toy.root, "exp", "run", "--queue", "--name", "later", "-S", "seed=3")


@pytest.mark.parametrize(
    ("plant", "what", "alternative"),
    [
        (damaged_scores, "1 file damaged in DVC's cache: data/source of ", 0),
        (lost_table, "1 result with tables that DVC's cache lacks", 0),
        (lost_folder, "dvc.lock names 1 folder that DVC's cache lacks: data/source", 0),
        (merge_in_lock, "dvc.lock has the marks of a merge in line 1", 0),
        (queued, "1 experiment in DVC's queue and no worker: later", 1),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_the_remedy_says_mends_it(toy: ToyRepository, plant, what: str, alternative: int) -> None:
    plant(toy)
    (told,) = [todo for finding, todo in found_now().items() if finding.startswith(what)]
    do(toy, re.split(r",? or (?=`)", told)[alternative])
    assert found_now() == {}


def test_what_a_killed_experiment_leaves_is_found_and_mended(toy: ToyRepository) -> None:
    """Killed while a stage runs, in a workspace with edits that are not committed."""
    (toy.root / "leaderboard.csv").write_text("submission_md5,key,public,private,date,note\n\n")
    command = [
        sys.executable,
        "-m",
        "dvc",
        "exp",
        "run",
        "--name",
        "killed",
        "-S",
        "seed=4",
        "-S",
        "pause=60",
    ]
    process = subprocess.Popen(
        command, cwd=toy.root, env=environment(toy.root), start_new_session=True, stdout=-3, stderr=-3
    )
    for _ in range(600):
        if subprocess.run(
            ["pgrep", "-g", str(process.pid), "sleep"], capture_output=True, check=False
        ).stdout:
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    told = found_now()
    assert any("of an experiment that was killed, which DVC would go on with" in what for what in told)
    for todo in told.values():
        if "`" in todo:
            do(toy, todo)
    assert not any("killed" in what or "stash" in what for what in found_now())
    dvc(toy.root, "exp", "run", "--temp", "--name", "third", "-S", "seed=5")


def test_an_experiment_without_a_readable_metric_is_removed_as_told(toy: ToyRepository) -> None:
    toy.git("checkout", "--quiet", "--detach")
    (toy.root / "metrics/cv.json").unlink()
    (toy.root / "params.yaml").write_text("seed: 6\npause: 0\nsplit:\n  folds: [0]\n")
    lock = (toy.root / "dvc.lock").read_text().replace("seed: 1", "seed: 6")
    (toy.root / "dvc.lock").write_text(lock)
    commit = toy.commit()
    toy.git("checkout", "--quiet", "main")
    baseline = toy.git("rev-parse", "HEAD")
    toy.git("update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/lost", commit)
    (told,) = found_now().items()
    assert "metrics/cv.json: not found" in told[0]
    do(toy, told[1])
    assert found_now() == {}
