"""Options of running jobs."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from callboard.core.errors import UserError
from callboard.core.threads import n_workers

LOCAL, RAY, SLURM = "local", "ray", "slurm"

GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Files of the drivers of NVIDIA, AMD and of Windows below Linux. Asking torch would take two seconds."""

JOB_MEMORY_GB = 2.0
"""Memory that a training of a small network on a CPU takes at most."""


def default_jobs(threads: int) -> int:
    """Return how many jobs of some threads this machine runs at a time; 1 where a GPU computes."""
    device = os.environ.get("CALLBOARD_DEVICE", "auto")
    has_gpu = sys.platform == "darwin" or any(Path(name).exists() for name in GPU_FILES)
    if device in ("cuda", "mps") or (device == "auto" and has_gpu):
        return 1
    in_memory = int(psutil.virtual_memory().available / 1e9 / JOB_MEMORY_GB)
    return max(min(n_workers() // threads, in_memory), 1)


@dataclass(frozen=True)
class JobOptions:
    """Choices of a user about jobs. None leaves a number to the engine."""

    place: str = LOCAL
    """LOCAL, SLURM, RAY for a Ray of this machine alone, or `ray:ADDRESS` of a running cluster."""
    n_jobs: int | None = None
    """Number of jobs that run at a time."""
    cpus: int | None = None
    """Number of processors that a job occupies; None = train.threads, or one for shards of new recordings."""
    gpus: float | None = None
    """Number of GPUs that a job occupies; below 1, several jobs share one."""
    slurm: Mapping[str, str] = field(default_factory=dict)
    """Options of `sbatch`, without their dashes."""
    has_dashboard: bool = False
    """Whether a Ray of this machine starts with its dashboard."""
    shards: int | None = None
    """Number of jobs that share `crop`, and `predict`; 1 = they run where the command does."""

    def __post_init__(self) -> None:
        """Refuse options that do not apply.

        Raises:
            UserError: the message names the option.
        """
        if self.place == LOCAL and (self.cpus or self.gpus):
            raise UserError("--cpus-per-job and --gpus-per-job need --on ray or --on slurm")
        if self.has_dashboard and self.place != RAY:
            raise UserError(
                "--dashboard needs --on ray; a cluster has one unless `ray start` was told otherwise"
            )
        if self.place != SLURM and self.slurm:
            raise UserError("--slurm needs --on slurm")
        if self.place == SLURM and self.gpus and not self.gpus.is_integer():
            raise UserError(f"--gpus-per-job {self.gpus:g}: jobs of Slurm do not share a GPU")

    def is_side_by_side(self, threads: int) -> bool:
        """Return whether more than one job runs at a time, or they do not run on this machine."""
        n_jobs = self.n_jobs or default_jobs(threads)
        return self.place != LOCAL or n_jobs > 1 or (self.shards or 1) > 1
