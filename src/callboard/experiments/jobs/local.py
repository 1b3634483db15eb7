"""Processes of this machine that each run a job."""

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from callboard.core.compute import cpu_name
from callboard.core.console import counted
from callboard.experiments.jobs.schedule import TaskError
from callboard.experiments.jobs.worker import CopyJob, JobResult

LOOK_EVERY_S = 0.1
"""Pause between looks at whether a process has ended."""


class WorkerKilledError(TaskError):
    """A process ended without an answer, as when memory runs out. Its training can be resumed."""


class Workers:
    """Engine of this machine: a process for each job. They end with this process, however it ends."""

    n_nodes = 1
    n_shards = 1
    is_apart = False

    def __init__(self, n_jobs: int = 1, n_threads: int = 1) -> None:
        self.n_jobs, self.n_threads = n_jobs, n_threads
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._is_stopped = False

    def run(self, job: CopyJob) -> JobResult:
        """Run a job in a process of its own and wait for it.

        Raises:
            WorkerKilledError: the process was killed.
            TaskError: its commands could not be run, or `stop` was called.
        """
        if self._is_stopped:
            raise TaskError(f"{job.name}: stopped")
        command = [sys.executable, "-m", "callboard.experiments.jobs.worker"]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if job.log else sys.stdout,
            text=True,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the others
        )
        with self._lock:
            self._running.add(process)
        try:
            assert process.stdin
            assert process.stdout
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            with self._lock:
                self._running.discard(process)
            if process.stdin:
                process.stdin.close()
            process.wait()
            _kill_what_is_left(process.pid)
        if not answer:
            status = f"status {process.returncode}"
            raise WorkerKilledError(f"{job.name}: its process on {platform.node()} was killed ({status})")
        outcome = JobResult(*json.loads(answer))
        if outcome.error:
            raise TaskError(f"{job.name} on {outcome.node}: {outcome.error}")
        return outcome

    def stop(self) -> None:
        """End all processes; each removes its copy of the workspace."""
        with self._lock:
            self._is_stopped = True
            for process in self._running:
                if process.stdin:
                    process.stdin.close()

    def carry_again(self) -> None:
        """Do nothing: jobs run in the workspace's folder."""

    def describe(self) -> list[str]:
        """Return a line about this machine."""
        return [f"{platform.node()}: {cpu_name()}; {counted(self.n_jobs, 'job')} at a time"]


def run_until_interrupted(job: CopyJob) -> JobResult:
    """Run a job in a process; an exception that interrupts this ends it, and waits until its copy is removed.

    The main thread only polls, since not every interrupt ends a blocking read.
    """
    workers = Workers()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(workers.run, job)
        try:
            while not running.done():
                time.sleep(LOOK_EVERY_S)
        except BaseException:
            workers.stop()
            raise
        return running.result()


def _kill_what_is_left(leader: int) -> None:
    """Kill what a worker started, if it was killed itself before it could do so."""
    if sys.platform != "win32":
        with suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)
