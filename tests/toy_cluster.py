"""Processes of Ray, and a Slurm of one node, for tests."""

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=46817
SlurmdPort=46818
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}
SlurmdSpoolDir={folder}
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/node.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/node.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=main Nodes=ALL Default=YES State=UP
"""

ON_SUBMITIT_S_LOCAL_ENGINE = """
from callboard.experiments.jobs import slurm
slurm.CLUSTER = "local"
"""


def tasks_of_ray(name: str) -> list[psutil.Process]:
    """Processes of Ray, started by this one, that run a task whose name has this part."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if (
                process.cmdline()
                and process.cmdline()[0].startswith("ray::")
                and name in process.cmdline()[0]
            ):
                found.append(process)
    return found


@pytest.fixture
def on_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start a Slurm of one node if its daemons are installed; return what makes the command use submitit."""
    pytest.importorskip("submitit")
    if not shutil.which("slurmctld") or os.geteuid():
        yield ON_SUBMITIT_S_LOCAL_ENGINE
        return
    folder = tmp_path / "slurm"
    folder.mkdir()
    conf = folder / "slurm.conf"
    conf.write_text(SLURM_CONF.format(host=platform.node(), folder=folder), encoding="utf-8")
    monkeypatch.setenv("SLURM_CONF", str(conf))
    daemons = [subprocess.Popen([name, "-D"]) for name in ("slurmctld", "slurmd")]
    try:
        wait_until(lambda: "idle" in output("sinfo"), "Slurm's node is not idle")
        yield ""
    finally:
        for daemon in daemons:
            daemon.terminate()
            daemon.wait()


def output(name: str) -> str:
    return subprocess.run([name], capture_output=True, text=True, check=False).stdout


def wait_until(condition: Callable[[], object], what: str, limit_s: float = 120) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.2)
