"""Shards as tasks of Ray Core; a process of Ray keeps the detector from one to the next."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from callboard.core.errors import UserError
from callboard.data.archive import ArchiveShard
from callboard.experiments.jobs.nodes import refuse_unlike, this_node
from callboard.experiments.jobs.options import JobOptions
from callboard.experiments.jobs.ray_cluster import CHECK_EVERY_S, RayCluster, joined_ray
from callboard.scoring.predictions import Predictions
from callboard.scoring.shard_jobs import (
    DEFAULT_CPUS,
    N_ATTEMPTS,
    ScoredShard,
    ScoringWork,
    ShardScorer,
    refuse_killed,
)

_scorers: dict[str, ShardScorer] = {}
"""The scorer of this process, by the reference of its work."""


@contextmanager
def ray_shards(
    options: JobOptions, predictions: Predictions, shards: Sequence[ArchiveShard]
) -> Iterator[Iterator[ScoredShard]]:
    """Yield an iterator over shards that Ray scores; see `made_shards`."""
    with joined_ray(options, DEFAULT_CPUS) as cluster:
        refuse_unlike(cluster.ask(this_node, ""), this_node(""))
        work = cluster.ray.put(ScoringWork.of(predictions, cluster.cpus, cluster.gpus))
        yield _scored(cluster, work, shards, options.n_jobs or cluster.n_places)


def _score(work: list[Any], number: int, shard: ArchiveShard) -> ScoredShard:
    """Score a shard in a process of Ray; the function of a task.

    Args:
        work: Ray's reference to the `ScoringWork`, in a list, so that it is not read for each task.
        number: See `ScoredShard`.
        shard: The shard.
    """
    import ray

    if (key := work[0].hex()) not in _scorers:
        _scorers.clear()
        _scorers[key] = ShardScorer(ray.get(work[0]))
    return _scorers[key].score(number, shard)


def _scored(
    cluster: RayCluster, work: Any, shards: Sequence[ArchiveShard], n_jobs: int
) -> Iterator[ScoredShard]:
    ray, killed = cluster.ray, []
    # Ray's own retries have no end for a task that it kills for its memory
    task = ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=0, max_calls=0)(_score)
    waiting = iter(range(len(shards)))
    running: dict[Any, tuple[int, int]] = {}
    """Number of the shard and of the attempt, by Ray's reference to the answer."""

    def begin(number: int, attempt: int) -> None:
        running[task.remote([work], number, shards[number])] = number, attempt

    while True:
        for number in islice(waiting, n_jobs - len(running)):
            begin(number, 1)
        if not running:
            break
        done, _ = ray.wait(list(running), timeout=CHECK_EVERY_S)
        if not done and not cluster.has_place():
            raise UserError(f"no node is left with {cluster.needs}; the same command continues")
        for answer in done:
            number, attempt = running.pop(answer)
            try:
                yield ray.get(answer)
            except ray.exceptions.RayError as error:
                cluster.cause_of_kill(error)
                if attempt < N_ATTEMPTS:
                    begin(number, attempt + 1)
                else:
                    killed.append(shards[number])
    refuse_killed(killed)
