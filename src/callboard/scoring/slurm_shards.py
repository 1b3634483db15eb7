"""Shards as jobs of Slurm. A job takes every n-th shard and writes its scores into a shared folder."""

import pickle
import platform
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from callboard.core.errors import UserError, one_line
from callboard.core.files import written_whole
from callboard.data.archive import ArchiveShard
from callboard.experiments.jobs.copies import this_process
from callboard.experiments.jobs.options import JobOptions
from callboard.experiments.jobs.slurm import ASK_EVERY_S, N_JOBS, is_alive, slurm_executor
from callboard.scoring.predictions import Predictions
from callboard.scoring.shard_jobs import (
    DEFAULT_CPUS,
    N_ATTEMPTS,
    ScoredShard,
    ScoringWork,
    ShardScorer,
    refuse_killed,
)

JOBS = ".slurm"
"""Folder in one of predictions, for what jobs read and write, with a folder for each command."""

WORK = "work.pkl"

COLLECT_EVERY_S = 1.0
"""Pause between looks at what jobs have written."""


@contextmanager
def slurm_shards(
    options: JobOptions, predictions: Predictions, shards: Sequence[ArchiveShard]
) -> Iterator[Iterator[ScoredShard]]:
    """Yield an iterator over shards that Slurm's jobs score; see `made_shards`."""
    cpus = options.cpus or DEFAULT_CPUS
    folder = predictions.folder / JOBS / this_process()
    with slurm_executor(options, cpus, folder) as executor:
        with written_whole(folder / WORK) as unfinished:
            unfinished.write_bytes(pickle.dumps(ScoringWork.of(predictions, cpus, options.gpus or 0)))
        jobs = _Jobs(executor, folder, shards, options.n_jobs or N_JOBS)
        try:
            yield jobs.scored()
        finally:
            jobs.cancel()


def _score(folder: Path, shards: Sequence[tuple[int, ArchiveShard]]) -> str:
    """Score shards in a job of Slurm, and return the reason if it cannot, or an empty text."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # submitit ignores it, and `scancel` would take longer
    try:
        if not (folder / WORK).exists():
            raise UserError(
                f"{platform.node()} does not have {folder.parents[1]}; Slurm's nodes must share the folder "
                "of predictions"
            )
        scorer = ShardScorer(pickle.loads((folder / WORK).read_bytes()))
        for number, shard in shards:
            scored = scorer.score(number, shard)
            with written_whole(folder / f"{number}.scored") as unfinished:
                unfinished.write_bytes(pickle.dumps(scored))
    except UserError as error:
        return str(error)
    return ""


class _Jobs:
    """Jobs that share some shards; when one dies, a new one takes the shards that it left."""

    def __init__(self, executor: Any, folder: Path, shards: Sequence[ArchiveShard], n_jobs: int) -> None:
        self._executor, self._folder, self._shards = executor, folder, shards
        self._n_deaths = [0] * len(shards)
        self._missing = set(range(len(shards)))
        n_jobs = min(n_jobs, len(shards))
        self._running = [self._submit(range(job, len(shards), n_jobs)) for job in range(n_jobs)]

    def _submit(self, numbers: Sequence[int]) -> tuple[Any, Sequence[int]]:
        shards = [(number, self._shards[number]) for number in numbers]
        return self._executor.submit(_score, self._folder, shards), numbers

    def scored(self) -> Iterator[ScoredShard]:
        """Yield shards as jobs finish them, until no job is left."""
        killed, asked = [], time.monotonic()
        while self._running:
            yield from self._collected()
            ended = [job for job, _ in self._running if job.paths.result_pickle.exists()]
            if time.monotonic() - asked > ASK_EVERY_S:
                ended += [job for job, _ in self._running if not is_alive(job)]
                asked = time.monotonic()
            yield from self._collected()  # what they wrote last
            for job, numbers in [pair for pair in self._running if pair[0] in ended]:
                self._running.remove((job, numbers))
                left = [number for number in numbers if number in self._missing]
                if left and (reason := _why(job)):
                    raise UserError(reason)
                if left:
                    self._n_deaths[left[0]] += 1  # the job was scoring it
                    if self._n_deaths[left[0]] == N_ATTEMPTS:
                        killed.append(self._shards[left.pop(0)])
                if left:
                    self._running.append(self._submit(left))
            time.sleep(COLLECT_EVERY_S)
        refuse_killed(killed)

    def _collected(self) -> Iterator[ScoredShard]:
        for path in self._folder.glob("*.scored"):
            scored: ScoredShard = pickle.loads(path.read_bytes())
            path.unlink()
            if scored.number in self._missing:
                self._missing.remove(scored.number)
                yield scored

    def cancel(self) -> None:
        """Cancel jobs that still run."""
        for job, _ in self._running:
            with suppress(Exception):
                job.cancel()


def _why(job: Any) -> str:
    """Return the reason that a job gave for its end; empty if it was killed."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    if not job.paths.result_pickle.exists():
        return ""
    try:
        return str(job.result())
    except FailedJobError as error:
        return f"a job of Slurm failed: {one_line(error)}"
    except UncompletedJobError:
        return ""
