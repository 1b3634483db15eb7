"""A full disk ends a job with one sentence that names the machine and the folder."""

import errno
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from callboard.experiments.jobs import carried as carried_module
from callboard.experiments.jobs.carried import Carried, unpacked, why_not_here
from callboard.experiments.jobs.full_disk import full_disk
from callboard.experiments.jobs.schedule import TaskError
from callboard.experiments.jobs.worker import CopyJob
from tests.conftest import Workspace

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_fullest_folder_is_named_where_space_ran_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / name for name in ("wide", "narrow", "missing")]
    for folder in folders[:2]:
        folder.mkdir()
    free = {folders[0]: 9e9, folders[1]: 5e6}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, free[folder]))
    assert full_disk("the loss is nan", folders) == ""
    assert full_disk(str(FULL), []) == ""
    said = f"the disk of {folders[1]} is full (5 MB free); make room and run again"
    assert full_disk(f"ERROR: {FULL}: 'x'", folders) == said
    assert full_disk("Disk quota exceeded", folders) == said
    free[folders[0]] = 1e3
    assert full_disk("an end without its words", folders).startswith(f"the disk of {folders[0]} is full (0")


def test_a_node_without_room_for_the_workspace_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> Path:
        raise FULL

    monkeypatch.setattr(carried_module, "unpack", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    job = CopyJob("exp0051-train-0", "", "", "", "", "", [], {}, "")
    carried = Carried("main", b"", "", "")
    sentence = rf"the disk of {tmp_path} is full \(\d+ MB free\)"
    with pytest.raises(TaskError, match=f"^exp0051-train-0 on {platform.node()}: {sentence}"):
        unpacked(job, carried)
    assert why_not_here(carried, "", "").startswith(f"the disk of {tmp_path} is full")


ON_A_SMALL_DISK = """
import subprocess, sys
from pathlib import Path

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)], check=True)

from callboard.experiments.jobs.copies import snapshot
from callboard.experiments.jobs.local import Workers
from callboard.experiments.jobs.schedule import TaskError
from callboard.experiments.jobs.worker import CopyJob
from tests.conftest import Workspace

workspace = Workspace(disk / "project")
(workspace.root / ".dvc").mkdir(parents=True)
workspace.write(".dvc/config", "[core]\\n    analytics = false\\n")
workspace.write("params.yaml", "seed: 1\\n")
workspace.write("dvc.yaml", "stages: {big: {cmd: head -c 20000000 /dev/zero > big, outs: [big]}}\\n")
workspace.write("code.bin", "x" * 500_000)
workspace.git("init", "--quiet")
workspace.commit()
root = workspace.root
own = {"DVC_SITE_CACHE_DIR": str(disk / "site")}
log = str(disk / "log")

def refusal(source):
    where = str(root), str(source.copies), source.commit
    job = CopyJob("exp0051-big", *where, "seed: 1\\n", "", [["dvc", "repro"]], own, log)
    try:
        return Workers().run(job)
    except TaskError as error:
        return error

with snapshot(root) as source:
    print(refusal(source))
    (disk / "filler").write_bytes(bytes(4_000_000 - 1_500_000))
    print(refusal(source))
    print(list(source.copies.iterdir()))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("unshare")
    or subprocess.run(["unshare", "--mount", "true"], check=False).returncode != 0,
    reason="needs a mount of its own",
)
def test_a_full_disk_while_a_stage_writes_and_while_the_workspace_is_copied(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    root = Path(__file__).parent.parent.parent
    environment = Workspace(root).environment() | {"PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"}
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", ON_A_SMALL_DISK, str(disk)],
        env=environment,
        text=True,
        stdout=-1,
        stderr=-2,
        check=False,
    )
    lines = done.stdout.splitlines()
    said = f"exp0051-big on {platform.node()}: the disk of {disk}/project is full ("
    assert [line.startswith(said) for line in lines[:2]] == [True, True], done.stdout
    assert lines[2:] == ["[]"]
