"""Engines of jobs: processes of this machine, a Ray cluster, or Slurm."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from callboard.core.threads import n_workers
from callboard.experiments.jobs.copies import Snapshot
from callboard.experiments.jobs.local import Workers
from callboard.experiments.jobs.options import LOCAL, SLURM, JobOptions, default_jobs
from callboard.experiments.jobs.worker import CopyJob, JobResult


class Engine(Protocol):
    """Something that runs jobs, called from several threads at once."""

    n_jobs: int
    """Number of jobs to give it at a time."""
    n_threads: int
    """Number of threads for each job."""
    n_nodes: int
    """Number of machines, as far as it is known."""
    n_shards: int
    """Number of jobs that share `crop`, and `predict`, unless the user wants another."""
    is_apart: bool
    """Whether a machine lacks the workspace's folder, so that results travel through DVC's remote."""

    def run(self, job: CopyJob) -> JobResult:
        """Run a job and wait for it.

        Raises:
            WorkerKilledError: its process or machine died.
            TaskError: its commands could not be run, or `stop` was called.
        """
        ...

    def stop(self) -> None:
        """End all jobs; each removes its copy of the workspace."""
        ...

    def carry_again(self) -> None:
        """Bring results that are new in git to machines without the workspace's folder."""
        ...

    def describe(self) -> list[str]:
        """Return lines about its machines."""
        ...


@contextmanager
def engine(options: JobOptions, threads: int, snapshot: Snapshot) -> Iterator[Engine]:
    """Yield an engine, which ends with the context.

    Args:
        options: The user's options.
        threads: `train.threads`.
        snapshot: What jobs run in copies of; its folder of copies exists.

    Raises:
        UserError: it cannot run such jobs; the message says why in one sentence.
    """
    if options.place == LOCAL:
        n_jobs = options.n_jobs or default_jobs(threads)
        yield Workers(n_jobs, max(n_workers() // n_jobs, 1))
    elif options.place == SLURM:
        from callboard.experiments.jobs.slurm import slurm_jobs

        with slurm_jobs(options, threads, snapshot) as submitted:
            yield submitted
    else:
        from callboard.experiments.jobs.ray_cluster import ray_jobs

        with ray_jobs(options, threads, snapshot) as jobs:
            yield jobs
