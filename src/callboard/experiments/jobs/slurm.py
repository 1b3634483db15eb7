"""Jobs of Slurm, submitted through submitit. Each runs the same process as a job of this machine."""

import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from callboard.core.console import counted
from callboard.core.errors import UserError, one_line
from callboard.experiments.jobs.copies import Snapshot, left_over
from callboard.experiments.jobs.local import WorkerKilledError, run_until_interrupted
from callboard.experiments.jobs.nodes import Node, refuse_unlike, this_node
from callboard.experiments.jobs.options import JobOptions
from callboard.experiments.jobs.schedule import TaskError
from callboard.experiments.jobs.worker import CopyJob, JobResult

FOLDER = Path(".cache/jobs/slurm")
"""Folder of the main workspace for submitit's files, one folder for each command."""

CLUSTER = "slurm"
"""Submitit's name of the engine; tests use its `local`."""

N_JOBS = 16
"""Number of jobs in Slurm's queue at a time, unless the user wants another."""

ASK_EVERY_S = 15.0
"""Pause between questions to Slurm whether a job is still there."""

MINUTES = 24 * 60
"""Time limit of a job, unless the user wants another. Slurm's own default can be minutes."""


@contextmanager
def slurm_executor(options: JobOptions, cpus: int, folder: Path) -> Iterator[Any]:
    """Yield an executor of submitit.

    Args:
        options: The user's options.
        cpus: CPUs of a job.
        folder: Folder for submitit's files, which is removed at the end; it is named as by
            `this_process`, so that jobs of commands that were killed are known, and cancelled here.

    Raises:
        UserError: submitit or Slurm is not here, or Slurm would not take such jobs.
    """
    try:
        import submitit
    except ImportError:
        raise UserError("submitit is not installed; pip install -e '.[slurm]' in the clone") from None
    if CLUSTER == "slurm":
        _refuse_what_slurm_refuses(options, cpus)
    _cancel_left_over(folder.parent)
    executor: Any = submitit.AutoExecutor(folder, cluster=CLUSTER)
    executor.update_parameters(name="callboard", cpus_per_task=cpus, timeout_min=MINUTES)
    if options.gpus:
        executor.update_parameters(gpus_per_node=int(options.gpus))
    if CLUSTER == "slurm":
        executor.update_parameters(slurm_additional_parameters=dict(options.slurm))
    try:
        yield executor
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def slurm_jobs(options: JobOptions, threads: int, snapshot: Snapshot) -> Iterator["SlurmJobs"]:
    """Yield an engine that submits to Slurm; see `engine`."""
    cpus = options.cpus or threads
    with slurm_executor(options, cpus, snapshot.workspace / FOLDER / snapshot.copies.name) as executor:
        yield SlurmJobs(executor, options.n_jobs or N_JOBS, cpus, this_node(str(snapshot.copies)))


def _refuse_what_slurm_refuses(options: JobOptions, cpus: int) -> None:
    """Let Slurm check a job without submitting it.

    Raises:
        UserError: Slurm is not here, or would not take the job, as for an unknown partition.
    """
    if not shutil.which("sbatch"):
        raise UserError("sbatch: not found on PATH; --on slurm must run where Slurm's commands are")
    settings = {"cpus-per-task": str(cpus)} | ({"gpus-per-node": f"{options.gpus:g}"} if options.gpus else {})
    flags = [f"--{key}={value}" for key, value in (settings | dict(options.slurm)).items()]
    command = ["sbatch", "--test-only", *flags, "--wrap=true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1].rpartition("error: ")[2]
        raise UserError(f"Slurm does not take such jobs ({' '.join(flags)}): {reason}")


def _cancel_left_over(parent: Path) -> None:
    """Cancel jobs of commands of this machine that were killed."""
    for folder in left_over(parent):
        jobs = [path.name.partition("_")[0] for path in folder.glob("*_submitted.pkl")]
        if jobs and CLUSTER == "slurm":
            subprocess.run(["scancel", *jobs], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def run_on_slurm_node(job: CopyJob, head: Node) -> JobResult | str:
    """Run a job in a process of this machine; return why it could not, if so."""
    node = this_node(job.copies)
    try:
        if not node.sees_copies:
            raise UserError(f"{node.name} does not have {job.workspace}; Slurm's nodes must share its folder")
        refuse_unlike([node], head)
        # submitit ignores SIGTERM, by which `scancel` lets a job end in order
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        return run_until_interrupted(job)
    except WorkerKilledError:
        raise
    except UserError as error:
        return str(error)


class SlurmJobs:
    """Engine that gives each job to Slurm."""

    n_nodes = 2
    """More than one, so that the node is shown."""
    n_shards = 1
    """Slurm may let jobs wait, and `crop` and `predict` of a small data set are quick."""
    is_apart = False

    def __init__(self, executor: Any, n_jobs: int, n_threads: int, head: Node) -> None:
        self.n_jobs, self.n_threads = n_jobs, n_threads
        self._executor, self._head = executor, head
        self._submitted: set[Any] = set()
        self._lock = threading.Lock()
        self._is_stopped = False

    def run(self, job: CopyJob) -> JobResult:
        """Submit a job and wait for it; see `Engine.run`."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError

        try:
            with self._lock:
                if self._is_stopped:
                    raise TaskError(f"{job.name}: stopped")
                submitted = self._executor.submit(run_on_slurm_node, job, self._head)
                self._submitted.add(submitted)
        except (FailedJobError, FailedSubmissionError) as error:
            raise TaskError(f"{job.name}: Slurm does not take the job: {one_line(error)}") from error
        try:
            self._wait(job.name, submitted)
            result: JobResult | str = submitted.result()
        except UncompletedJobError as error:
            raise WorkerKilledError(f"{job.name}: Slurm's job ended early ({one_line(error)})") from None
        finally:
            with self._lock:
                self._submitted.discard(submitted)
        if isinstance(result, str):
            raise TaskError(f"{job.name}: {result}")
        return result

    def _wait(self, name: str, submitted: Any) -> None:
        """Wait for the result of a job, as long as Slurm knows the job."""
        asked = time.monotonic()
        while not submitted.paths.result_pickle.exists():
            if self._is_stopped:
                raise TaskError(f"{name}: stopped")
            time.sleep(1)
            if time.monotonic() - asked > ASK_EVERY_S:
                if not is_alive(submitted) and not submitted.paths.result_pickle.exists():
                    raise WorkerKilledError(f"{name}: Slurm's job {submitted.job_id} ended without a result")
                asked = time.monotonic()

    def stop(self) -> None:
        """Cancel all jobs."""
        with self._lock:
            self._is_stopped = True
            for submitted in self._submitted:
                with suppress(subprocess.CalledProcessError):
                    submitted.cancel()

    def carry_again(self) -> None:
        """Do nothing: nodes share the workspace's folder."""

    def describe(self) -> list[str]:
        """Return a line about what Slurm takes; which nodes there are shows when jobs run."""
        cpus, jobs = counted(self.n_threads, "CPU"), counted(self.n_jobs, "job")
        return [f"Slurm takes jobs with {cpus}; up to {jobs} in its queue at a time"]


def is_alive(submitted: Any) -> bool:
    """Return whether a job waits or runs; also while Slurm does not answer.

    Submitit asks `sacct`, and not every Slurm keeps accounts.
    """
    if CLUSTER != "slurm":
        return not submitted.done()
    command = ["squeue", "--noheader", "--jobs", submitted.job_id]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return bool(done.stdout.strip()) or (done.returncode != 0 and "Invalid job id" not in done.stderr)
