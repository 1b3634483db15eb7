"""Kill processes of `callboard repro` at random moments and check that nothing is lost.

    python benchmarks/kills.py --kills 30 --on local
    python benchmarks/kills.py --kills 30 --on ray

Each time, `callboard repro` runs in a workspace of small recordings whose folds are not trained yet, and one
victim dies by SIGKILL at a random moment: the command, one of its workers, or a DVC or a training that they
started; of a Ray cluster also a node, or the head. If the command fails, it is typed again. In the end, all
outputs must have the md5 of a serial `dvc repro`; no fold may be trained to its end twice; no process and
no copy may be left.
"""

import argparse
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.conftest import TOY_PARAMS, Workspace, new_workspace
from tests.experiments.test_side_by_side import callboard, outs, processes_in

N_FOLDS, N_EPOCHS = 3, 4
MOST_CALLS = 4
"""Times that the command may be typed."""

TRAINED = re.compile(r"^workspace train: fold (\d+), ", re.MULTILINE)
"""Line about a fold that has finished; the end of a failed one's log does not begin like this."""

Victims = dict[str, Callable[[], bool]]
"""What to kill, by name; each returns whether there was something to kill."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=30, help="default %(default)s")
    parser.add_argument("--on", choices=("local", "ray"), default="local", help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of victims and moments; default %(default)s")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    n_bad = 0
    with tempfile.TemporaryDirectory() as folder:
        base = prepared_workspace(Path(folder, "base"))
        reference = copied(base, Path(folder, "reference"))
        start = time.monotonic()
        reference.dvc("repro")
        longest = time.monotonic() - start
        print(f"serial: {longest:.0f} s", flush=True)
        for number in range(1, args.kills + 1):
            workspace = copied(base, Path(folder, f"workspace{number}"))
            what, problems = trial(workspace, reference, args.on, chance, longest)
            n_bad += bool(problems)
            print(f"{number}: {what}: {'; '.join(problems) or 'as if nothing had happened'}", flush=True)
            shutil.rmtree(workspace.root)
    sys.exit(f"{n_bad} of {args.kills} went wrong" if n_bad else 0)


def prepared_workspace(root: Path) -> Workspace:
    """Make a workspace up to its folds."""
    TOY_PARAMS["split"]["folds"] = list(range(N_FOLDS))
    TOY_PARAMS["train"]["epochs"] = TOY_PARAMS["sched"]["t_max"] = N_EPOCHS
    workspace = new_workspace(root)
    workspace.dvc("repro", "split")
    return workspace


def copied(base: Workspace, root: Path) -> Workspace:
    shutil.copytree(base.root, root, symlinks=True)
    return Workspace(root)


def trial(
    workspace: Workspace, reference: Workspace, on: str, chance: random.Random, longest: float
) -> tuple[str, list[str]]:
    """Kill one victim; return what was done, and what was wrong afterwards."""
    printed, what, calls = "", "", 0
    status = 1
    while status and calls < MOST_CALLS:
        calls += 1
        with cluster() if on == "ray" else nullcontext() as nodes:
            running = start(workspace, f"ray:{nodes.address}" if nodes else "local")
            if calls == 1:
                moment = chance.uniform(0, longest)
                what = f"{kill(victims(workspace, running, nodes), chance, moment)} after {moment:.0f} s"
            printed += running.communicate()[0]
            status = running.returncode
    problems = [] if not status else [f"status {status} after {calls} calls: {printed[-1500:]}"]
    trained = TRAINED.findall(printed)
    if outs(workspace) != outs(reference):
        problems.append("outputs differ")
    if len(trained) != len(set(trained)):
        problems.append(f"folds trained: {' '.join(trained)}")
    time.sleep(1)
    if left := processes_in(workspace.root):
        problems.append(f"processes left: {left}")
    if copies := list(workspace.root.glob(".dvc/tmp/copies/*/*")):
        problems.append(f"copies left: {copies}")
    return f"{what}, {calls} calls", problems


def start(workspace: Workspace, place: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        callboard("repro", "--on", place),
        cwd=workspace.root,
        env=workspace.environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@contextmanager
def cluster() -> Iterator[Any]:
    """Start a Ray cluster of two nodes, one processor each; the first is the head."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        nodes.add_node(num_cpus=1, node_ip_address="127.0.0.2")
        yield nodes
    finally:
        with suppress(Exception):  # without a head, not all of it can be stopped in order
            nodes.shutdown()


def victims(workspace: Workspace, command: subprocess.Popen[str], nodes: Any) -> Victims:
    """Return what can be killed."""

    def process(part: str) -> Callable[[], bool]:
        def kill_one() -> bool:
            found = [pid for pid in processes_in(workspace.root) if part in command_line(pid)]
            if found:
                psutil.Process(found[0]).kill()
            return bool(found)

        return kill_one

    def kill_command() -> bool:
        command.kill()
        return True

    chosen: Victims = {
        "command": kill_command,
        "worker": process("jobs.worker"),
        "DVC": process("dvc_commands"),
        "training": process("stages.train"),
    }
    if nodes:
        other = next(node for node in nodes.list_all_nodes() if node is not nodes.head_node)
        chosen["node"] = lambda: nodes.remove_node(other, allow_graceful=False) or True
        chosen["head"] = lambda: nodes.head_node.kill_all_processes(allow_graceful=False) or True
    return chosen


def kill(chosen: Victims, chance: random.Random, moment: float) -> str:
    """Kill one victim at a moment; another one if it is not there. Return its name."""
    time.sleep(moment)
    for name in chance.sample(sorted(chosen), len(chosen)):
        with suppress(psutil.NoSuchProcess):
            if chosen[name]():
                return name
    return "nothing"


def command_line(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


if __name__ == "__main__":
    main()
