"""The stages of a running command, as printed and as `callboard watch` reads them."""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from callboard.experiments.jobs.local import Workers
from callboard.experiments.jobs.stage_progress import COMMANDS, StageProgress, progress_of, stages_now
from callboard.experiments.jobs.worker import JobResult

FOLD_0 = JobResult(0, "", "other text\ntrain: fold 0, 2 epochs\n", 60.0, "node1", {})


@pytest.fixture
def progress(tmp_path: Path) -> StageProgress:
    return StageProgress(Workers(2), tmp_path / COMMANDS / f"{platform.node()}.{os.getpid()}")


def test_stages_wait_run_and_finish(
    progress: StageProgress, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stages_now(tmp_path) == []
    progress.expect("exp0051", ["train@0", "train@1", "train@2"])
    assert stages_now(tmp_path) == [
        "exp0051: 0 of 3 stages finished, waiting: train@0 train@1 train@2",
    ]
    with progress.running("exp0051", "train@0"):
        assert "0 of 3 stages finished, running: train@0, waiting: train@1 train@2" in stages_now(tmp_path)[0]
    progress.finished("exp0051", "train@0", FOLD_0)
    assert capsys.readouterr().out.splitlines() == [
        "exp0051 train: fold 0, 2 epochs",
        "1 of 3 stages, 60 s left",  # two more, two at a time
    ]
    first, left = stages_now(tmp_path)
    assert first == "exp0051: 1 of 3 stages finished, waiting: train@1 train@2"
    assert left in ("about 60 s left", "about 59 s left")
    progress.close()
    assert stages_now(tmp_path) == []


def test_shards_of_a_stage_are_shown_like_stages(
    progress: StageProgress, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    progress.expect("exp0051", ["crop@1", "crop@2"])
    for number in (1, 2):
        with progress.running("exp0051", f"crop@{number}"):
            pass
        shard = FOLD_0._replace(printed=f"crop: shard {number}/2, 3 of 3 packs made, 5.0 s\n")
        progress.finished("exp0051", f"crop@{number}", shard)
    progress.expect("exp0051", ["train@0"])
    assert stages_now(tmp_path)[0] == "exp0051: 2 of 3 stages finished, waiting: train@0"
    assert capsys.readouterr().out.splitlines() == [
        "exp0051 crop: shard 1/2, 3 of 3 packs made, 5.0 s",
        "1 of 2 stages, 30 s left",
        "exp0051 crop: shard 2/2, 3 of 3 packs made, 5.0 s",
        "2 of 2 stages",
    ]


def test_a_stage_that_fails_ends_its_experiment_alone(progress: StageProgress, tmp_path: Path) -> None:
    progress.expect("exp0051", ["train@0", "train@1"])
    progress.expect("exp0058", ["train@0"])
    with pytest.raises(ZeroDivisionError), progress.running("exp0051", "train@0"):
        _ = 1 / 0
    assert stages_now(tmp_path) == [
        "exp0051: 0 of 0 stages finished",
        "exp0058: 0 of 1 stages finished, waiting: train@0",
    ]


def test_what_killed_commands_and_other_versions_left_is_not_shown(
    progress: StageProgress, tmp_path: Path
) -> None:
    progress.expect("exp0051", ["train@0"])
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    file = tmp_path / COMMANDS / f"{platform.node()}.{os.getpid()}"
    killed = file.with_suffix(f".{ended.pid}")
    file.rename(killed)
    assert stages_now(tmp_path) == []
    (tmp_path / COMMANDS / "elsewhere.1").write_text("{}")
    assert stages_now(tmp_path) == []
    StageProgress(Workers(), file)
    assert not killed.exists()
    assert (tmp_path / COMMANDS / "elsewhere.1").exists()


def test_progress_of_a_job_is_shown_while_it_runs_and_not_that_of_an_earlier_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "exp0058-split.log"
    log.write_text("prepare: 1 of 520 recordings, 99 s left\n")
    printed = ""
    with progress_of(log, "exp0058"):
        for n_done in (90, 180):
            with log.open("a") as file:
                file.write(f"Running stage 'prepare'\nprepare: {n_done} of 520 recordings, 9 s left\n")
            end = time.monotonic() + 30
            while str(n_done) not in printed and time.monotonic() < end:
                printed += capsys.readouterr().out
                time.sleep(0.1)
        log.write_text("prepare: demo, 12 species\n")
    assert printed.splitlines() == [
        f"exp0058 prepare: {n_done} of 520 recordings, 9 s left" for n_done in (90, 180)
    ]
