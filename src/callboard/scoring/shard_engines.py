"""Scoring of shards in this process, by a Ray cluster, or by jobs of Slurm."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from callboard.data.archive import ArchiveShard
from callboard.experiments.jobs.options import LOCAL, SLURM, JobOptions
from callboard.scoring.predictions import Predictions, ShardTotals


@contextmanager
def made_shards(
    options: JobOptions, predictions: Predictions, shards: Sequence[ArchiveShard]
) -> Iterator[Iterator[ShardTotals]]:
    """Yield an iterator that scores shards and writes their files, in the order in which they finish.

    Only this process writes. Shards that could not be scored, since each attempt was killed, are named by an
    error at the end.

    Args:
        options: Where they are scored.
        predictions: The folder of predictions. Networks are on this machine's device if they score here, else
            on the CPU.
        shards: The shards.

    Raises:
        UserError: The package of the engine is not installed, the cluster cannot be reached, or no machine
            has room for a job.
    """
    if options.place == LOCAL:
        yield map(predictions.make, shards)
        return
    if options.place == SLURM:
        from callboard.scoring.slurm_shards import slurm_shards

        scoring = slurm_shards(options, predictions, shards)
    else:
        from callboard.scoring.ray_shards import ray_shards

        scoring = ray_shards(options, predictions, shards)
    with scoring as scored:
        yield (predictions.write(shards[one.number], one.tables, one.sound_s) for one in scored)
