"""Options of running jobs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from callboard.core.errors import UserError
from callboard.experiments.jobs.local import default_jobs

LOCAL, RAY, SLURM = "local", "ray", "slurm"


@dataclass(frozen=True)
class JobOptions:
    """Choices of a user about jobs. None leaves a number to the engine."""

    place: str = LOCAL
    """LOCAL, SLURM, RAY for a Ray of this machine alone, or `ray:ADDRESS` of a running cluster."""
    n_jobs: int | None = None
    """Number of jobs that run at a time."""
    cpus: int | None = None
    """Number of processors that a job occupies; None = train.threads."""
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
