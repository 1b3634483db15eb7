"""DVC commands of a job: in one process, in their order, up to the first that fails."""

import json
import subprocess
import sys
from pathlib import Path

from callboard.experiments.jobs import dvc_commands
from callboard.experiments.jobs.dvc_commands import in_one_process


def test_commands_of_dvc_that_follow_each_other_become_one() -> None:
    commands = [["dvc", "checkout", "a"], ["dvc", "repro", "b"], ["stages.crop", "x"], ["dvc", "push"]]
    assert in_one_process(commands) == [
        [dvc_commands.__name__, '[["checkout", "a"], ["repro", "b"]]'],
        ["stages.crop", "x"],
        [dvc_commands.__name__, '[["push"]]'],
    ]


def test_they_run_up_to_the_first_that_fails(tmp_path: Path) -> None:
    commands = [["init", "--no-scm", "--quiet"], ["add", "gone"], ["add", "there"]]
    (tmp_path / "there").write_text("x")
    process = [sys.executable, "-m", dvc_commands.__name__, json.dumps(commands)]
    done = subprocess.run(process, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode != 0
    assert b"gone" in done.stderr
    assert (tmp_path / ".dvc").is_dir()
    assert not (tmp_path / "there.dvc").exists()
