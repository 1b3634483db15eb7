"""Measure what waiting costs a training whose threads lack a processor.

    python benchmarks/contention.py

Trains fold 0 of params.yaml with one thread and with two, alone and beside a process that keeps a processor
busy. Of two threads, one waits for the other many times per step: by default of OpenMP it spins meanwhile;
here it sleeps (OMP_WAIT_POLICY=PASSIVE, see stages/__init__.py). Prints the processor time of each training.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

sys.path.insert(0, str(Path(__file__).parent))
from side_by_side import new_clone, run

SPINNING, SLEEPING = "", "PASSIVE"
"""Values of OMP_WAIT_POLICY; an empty one is as none at all."""


def main() -> None:
    with TemporaryDirectory() as folder:
        clone = new_clone(Path(folder))
        run(clone, sys.executable, "-m", "dvc", "repro", "split")
        for n_threads, policy in ((1, SLEEPING), (2, SPINNING), (2, SLEEPING)):
            waiting = "" if n_threads == 1 else f", waiting ones {'sleep' if policy else 'spin'}"
            for is_beside in (False, True):
                with busy_loop() if is_beside else nullcontext():
                    seconds = training(clone, n_threads, policy)
                where = "beside a busy process" if is_beside else "alone"
                print(f"{n_threads} threads{waiting}, {where}: {seconds:.0f} s of processor time", flush=True)


def training(clone: Path, n_threads: int, policy: str) -> float:
    """Return the processor time of the training of fold 0, s."""
    params = clone / "params.yaml"
    tree = yaml.safe_load(params.read_text())
    tree["train"]["threads"] = n_threads
    params.write_text(yaml.safe_dump(tree))
    command = yaml.safe_load((clone / "dvc.yaml").read_text())["stages"]["train"]["cmd"]
    os.environ["OMP_WAIT_POLICY"] = policy
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(clone, *command.replace("${item.fold}", "0").split(), keep=("OMP_WAIT_POLICY",))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@contextmanager
def busy_loop() -> Iterator[None]:
    """Keep one processor busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
