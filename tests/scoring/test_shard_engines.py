import os
import pickle
import signal
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from callboard.core.errors import UserError
from callboard.data import archive
from callboard.data.archive import ArchiveFile, list_archive, plan_shards
from callboard.experiments.jobs import slurm
from callboard.experiments.jobs.nodes import this_node
from callboard.experiments.jobs.options import JobOptions
from callboard.scoring import slurm_shards
from callboard.scoring.detector import Networks
from callboard.scoring.predictions import PREDICTION_TABLES, Predictions
from callboard.scoring.shard_engines import made_shards
from callboard.scoring.shard_jobs import N_ATTEMPTS, ScoredShard, ScoringWork, ShardScorer
from callboard.scoring.slurm_shards import _score
from tests.scoring.test_predictions import detector, networks, table, write_sound  # noqa: F401  a fixture
from tests.toy_cluster import on_slurm  # noqa: F401  a fixture

ROOT = Path(__file__).parents[2]
needs_ray = pytest.mark.skipif(not find_spec("ray"), reason="needs Ray")  # whose import fixes its settings
N_RECORDINGS = 12
KILLS = "CALLBOARD_TEST_KILLS"
"""Variable with a folder that has a file for each time that a process killed itself."""


@dataclass(frozen=True)
class Deadly(Networks):
    """Networks that kill their process, several times, when they score a recording."""

    n_kills: int = 0

    def scores(self, cache, recording_ids, species):
        folder = Path(os.environ[KILLS])
        if "04.wav" in recording_ids and (number := len(list(folder.iterdir()))) < self.n_kills:
            (folder / str(number)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().scores(cache, recording_ids, species)


@pytest.fixture
def sounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Recordings, of which one is damaged, in shards of two."""
    monkeypatch.setattr(archive, "SHARD_RECORDINGS", 2)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}{os.pathsep}{ROOT}")
    monkeypatch.setenv(KILLS, str(tmp_path / "kills"))
    (tmp_path / "kills").mkdir()
    for number in range(N_RECORDINGS):
        write_sound(tmp_path / f"sounds/{number:02d}.wav", 1.0 + 0.1 * number, number)
    (tmp_path / "sounds/07.wav").write_bytes(b"RIFF")
    return tmp_path / "sounds"


def deadly(plain: Networks, n_kills: int) -> Networks:
    return Deadly(*(getattr(plain, name) for name in Networks.__dataclass_fields__), n_kills=n_kills)


def predict(options: JobOptions, plain: Networks, sounds: Path, output: Path) -> list[list[str]]:
    """Names of the recordings of each shard."""
    predictions = Predictions(output, detector(plain), 0.0)
    shards = list(plan_shards(predictions.missing(list_archive([sounds]))))
    with made_shards(options, predictions, shards) as totals:
        return [[file.name for file in one.files] for one in totals]


def are_equal(first: Path, second: Path) -> bool:
    return all(table(first, name).equals(table(second, name)) for name in PREDICTION_TABLES)


@needs_ray
@pytest.mark.slow
def test_ray_gives_the_scores_of_one_process_although_a_process_is_killed(
    sounds,
    networks,  # noqa: F811
    tmp_path,
):
    predict(JobOptions(), networks(0, 1), sounds, tmp_path / "here")
    assert len(pd.read_parquet(tmp_path / "here/skipped")) == 1
    options, plain = JobOptions("ray", cpus=1), networks(0, 1)

    shards = predict(options, deadly(plain, N_ATTEMPTS - 1), sounds, tmp_path / "ray")

    assert len(list((tmp_path / "kills").iterdir())) == N_ATTEMPTS - 1
    assert sorted(chain(*shards)) == [f"{number:02d}.wav" for number in range(N_RECORDINGS)]
    assert are_equal(tmp_path / "here", tmp_path / "ray")


@needs_ray
@pytest.mark.slow
def test_ray_gives_up_a_shard_that_is_killed_again_and_again_and_scores_all_others(
    sounds,
    networks,  # noqa: F811
    tmp_path,
):
    with pytest.raises(UserError, match=r"killed 4 times.*\n.*04\.wav … .*05\.wav \(2 recordings\)$"):
        predict(JobOptions("ray", cpus=1), deadly(networks(0), 99), sounds, tmp_path / "ray")
    assert len(list((tmp_path / "kills").iterdir())) == N_ATTEMPTS
    assert predict(JobOptions(), networks(0), sounds, tmp_path / "ray") == [["04.wav", "05.wav"]]


@pytest.mark.slow
def test_slurm_gives_the_scores_of_one_process_although_a_job_is_killed(
    sounds,
    networks,  # noqa: F811
    tmp_path,
    monkeypatch,
    on_slurm,  # noqa: F811
):
    if on_slurm:
        monkeypatch.setattr(slurm, "CLUSTER", "local")
    predict(JobOptions(), networks(0, 1), sounds, tmp_path / "here")
    options, plain = JobOptions("slurm", n_jobs=2), networks(0, 1)

    predict(options, deadly(plain, 1), sounds, tmp_path / "there")

    assert len(list((tmp_path / "kills").iterdir())) == 1
    assert are_equal(tmp_path / "here", tmp_path / "there")
    assert not list((tmp_path / "there/.slurm").iterdir())


class FirstJobDiesAtItsSecondShard:
    """An executor of submitit whose jobs all die at once, the first one after a shard."""

    def __init__(self) -> None:
        self.given: list[list[int]] = []

    def submit(self, function, folder, shards):
        if not self.given:
            (folder / "0.scored").write_bytes(pickle.dumps(ScoredShard(0, {}, 0.0)))
        self.given.append([number for number, _ in shards])
        return SimpleNamespace(paths=SimpleNamespace(result_pickle=folder / "gone"), done=lambda: True)


def test_a_shard_is_begun_four_times_whatever_its_job_did_before(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "CLUSTER", "local")
    for name in ("ASK_EVERY_S", "COLLECT_EVERY_S"):
        monkeypatch.setattr(slurm_shards, name, 0)
    shards = [[ArchiveFile(f"{number}.wav", f"/{number}.wav", 1, 0)] for number in range(3)]
    executor = FirstJobDiesAtItsSecondShard()
    scored = slurm_shards._Jobs(executor, tmp_path, shards, 1).scored()
    assert next(scored).number == 0
    with pytest.raises(UserError, match=r"killed 4 times(.|\n)*/1\.wav(.|\n)*/2\.wav"):
        list(scored)
    assert executor.given == [[0, 1, 2], *[[1, 2]] * (N_ATTEMPTS - 1), *[[2]] * N_ATTEMPTS]


class JobEndsBetweenTwoLooks:
    """An executor of submitit whose job writes its shard, and its result, when it is asked for that."""

    def __init__(self) -> None:
        self.n_given = 0

    def submit(self, function, folder, shards):
        self.n_given += 1

        def ends() -> bool:
            (folder / "0.scored").write_bytes(pickle.dumps(ScoredShard(0, {}, 0.0)))
            return True

        paths = SimpleNamespace(result_pickle=SimpleNamespace(exists=ends))
        return SimpleNamespace(paths=paths, result=lambda: "")


def test_what_a_job_wrote_last_is_not_scored_again(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_shards, "COLLECT_EVERY_S", 0)
    executor = JobEndsBetweenTwoLooks()
    jobs = slurm_shards._Jobs(executor, tmp_path, [[ArchiveFile("0.wav", "/0.wav", 1, 0)]], 1)
    assert [one.number for one in jobs.scored()] == [0]
    assert executor.n_given == 1


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (0.5, "cuda")])
def test_a_job_without_a_gpu_leaves_those_of_its_machine_alone(
    networks,  # noqa: F811
    tmp_path,
    monkeypatch,
    gpus,
    device,
):
    predictions = Predictions(tmp_path / "out", detector(networks(0)), 0.0)
    monkeypatch.setenv("CALLBOARD_DEVICE", "cuda")
    assert ScoringWork.of(predictions, cpus=1, gpus=gpus).device == device


def test_a_machine_that_lacks_something_says_so(sounds, networks, tmp_path, monkeypatch):  # noqa: F811
    predictions = Predictions(tmp_path / "out", detector(networks(0)), 0.0)
    work = ScoringWork.of(predictions, cpus=1, gpus=0)
    shard = next(plan_shards(list_archive([sounds])))
    elsewhere = [shard[0], *(file._replace(path=f"/gone/{file.name}") for file in shard[1:])]
    with pytest.raises(
        UserError, match=r"does not have /gone/01\.wav; .*all machines of a cluster must share"
    ):
        ShardScorer(work).score(0, elsewhere)
    head = this_node("")
    other = head._replace(versions=head.versions | {"torch": "1.0"})
    with pytest.raises(UserError, match=r"has torch .*, this machine 1\.0"):
        ShardScorer(work._replace(head=other))
    assert "nodes must share the folder of predictions" in _score(tmp_path / "gone/.slurm/x", [])
