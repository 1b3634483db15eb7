"""Scoring of shards on other machines: the work that a job receives, and the process that does it."""

import os
import pickle
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from callboard.core.errors import UserError
from callboard.core.threads import VARIABLE
from callboard.data.archive import ArchiveShard
from callboard.experiments.jobs.nodes import Node, refuse_unlike, this_node
from callboard.scoring.detector import Detector
from callboard.scoring.predictions import Predictions, score_shard

N_ATTEMPTS = 4
"""Number of times that a shard whose process is killed is begun."""

DEFAULT_CPUS = 1
"""Processors of a job, unless the user wants a different number."""


class ScoredShard(NamedTuple):
    """A shard with its tables, see `score_shard`."""

    number: int
    """Its index among those of the command."""
    tables: dict[str, pd.DataFrame]
    sound_s: float


class ScoringWork(NamedTuple):
    """Everything that a job needs to score shards; it can be pickled."""

    detector: bytes
    """The detector, pickled: it is loaded when the machine's settings are known."""
    floor: float
    cpus: int
    device: str
    """Value of CALLBOARD_DEVICE."""
    head: Node
    """The machine of the command."""

    @classmethod
    def of(cls, predictions: Predictions, cpus: int, gpus: float) -> "ScoringWork":
        """Return the work of a command on this machine.

        Args:
            predictions: The folder of predictions, with networks on the CPU.
            cpus: Processors of a job.
            gpus: GPUs of a job; 0 hides those that its machine has.
        """
        device = os.environ.get("CALLBOARD_DEVICE", "auto") if gpus else "cpu"
        return cls(pickle.dumps(predictions.detector), predictions.floor, cpus, device, this_node(""))


class ShardScorer:
    """A process that scores shards, one after the other."""

    def __init__(self, work: ScoringWork) -> None:
        """Load the networks on the device of this machine.

        Raises:
            UserError: This machine has other versions of packages, or lacks the device.
        """
        refuse_unlike([this_node("")], work.head)
        os.environ[VARIABLE], os.environ["CALLBOARD_DEVICE"] = str(work.cpus), work.device
        detector: Detector = pickle.loads(work.detector)
        self._detector, self._floor = detector.here(), work.floor

    def score(self, number: int, shard: ArchiveShard) -> ScoredShard:
        """Score a shard; see `score_shard`."""
        return ScoredShard(number, *score_shard(self._detector, shard, self._floor))


def refuse_killed(shards: Sequence[ArchiveShard]) -> None:
    """Refuse to end as if all were well if some shards were given up.

    Raises:
        UserError: There are such shards.
    """
    if shards:
        lines = [f"{shard[0].path} … {shard[-1].path} ({len(shard)} recordings)" for shard in shards]
        raise UserError(
            "processes that scored these recordings were killed "
            f"{N_ATTEMPTS} times, perhaps for lack of memory; all others are scored:\n" + "\n".join(lines)
        )
