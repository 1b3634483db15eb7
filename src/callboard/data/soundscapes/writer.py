"""Writing of a world: FLAC recordings, the tables that a competitor sees, and the truth in hidden/."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from numpy.typing import NDArray

from callboard.core.console import counted
from callboard.core.machine import refuse_more_disk
from callboard.core.threads import map_threaded
from callboard.data.annotations import ANNOTATION_COLUMNS
from callboard.data.content_digests import bytes_digest
from callboard.data.recordings import RECORDING_COLUMNS
from callboard.data.score_tables import score_columns
from callboard.data.soundscapes.annotator import TP_AND_FP_SHARE, Annotation, confirm, reject
from callboard.data.soundscapes.calls import Subset, Waveform
from callboard.data.soundscapes.prevalence import common_to_rare, test_presence, train_cast
from callboard.data.soundscapes.scenes import DISTRACTOR, PlacedCall, World, build_world, render_scene
from callboard.data.source_tables import SourceTables
from callboard.params.data import DemoParams

STREAMS = {"train": 1, "test": 2, "ids": 3, "presence": 4, "usage": 5, "external": 6, "external_presence": 7}
"""Second word of the seed of each random stream; the third is the recording's number."""
PUBLIC_SHARE = 1 / 2
SONGTYPE = "1"
FLAC_EFFORT = 0.0
"""Compression level in 0 … 1; at 1, noise is hardly smaller and takes three times as long."""
BYTES_PER_SAMPLE = 1.3
"""Size of these files, measured at 8 to 48 kHz, 20 and 60 s, sparse and dense: 1.29 to 1.32."""
TRUTH_COLUMNS = ["recording_id", "species_id", "t_min", "f_min", "t_max", "f_max"]


@dataclass(frozen=True)
class Job:
    """One recording to make."""

    recording_id: str
    subset: str
    """One of recording_folders.SUBSETS."""
    number: int
    target: int | None
    """Species with a confirmed call; None = only rejected boxes, or not a training recording."""
    present: tuple[int, ...] | None
    """Species that call; None = drawn when the recording is made."""

    @property
    def sounds_like(self) -> Subset:
        """Subset with the same acoustic conditions: for external recordings, those of the test set."""
        return "train" if self.subset == "train" else "test"


@dataclass(frozen=True)
class Made:
    """A written recording: its digest, true calls and annotations."""

    job: Job
    digest: str
    calls: list[PlacedCall]
    confirmed: list[Annotation]
    rejected: list[Annotation]


def make_soundscapes(demo: DemoParams, sample_rate: int, folder: Path) -> SourceTables:
    """Write all recordings to `folder`/train, test and external, and the truth to `folder`/hidden.

    The same arguments give the same bytes: every recording has its own random stream, so neither the other
    recordings nor the number of threads matter.

    Args:
        demo: The `data.demo` section.
        sample_rate: Sample rate of the recordings, Hz.
        folder: Must be empty.

    Returns:
        The tables, not yet written.

    Raises:
        UserError: They do not fit on the disk.
    """
    world = build_world(demo, sample_rate)
    jobs = _jobs(demo, world)
    length_s = len(jobs) * demo.recording_length_s
    refuse_more_disk(
        f"{counted(len(jobs), 'soundscape')} of {length_s / 3600:.1f} h",
        length_s * sample_rate * BYTES_PER_SAMPLE,
        folder,
        "lower data.demo.recording_length_s or the numbers of recordings there",
    )
    for name in {"train", "test", "hidden", *(job.subset for job in jobs)}:
        (folder / name).mkdir()
    made = list(
        map_threaded(
            lambda job: _make(world, demo.seed, job, folder), jobs, label="soundscapes", unit="recordings"
        )
    )
    _write_truth(world, demo.seed, made, folder / "hidden")
    return _tables(world, made)


def _jobs(demo: DemoParams, world: World) -> list[Job]:
    n_species = len(world.species)
    n_train = demo.n_tp_recordings + demo.n_fp_recordings
    n_ids = n_train + demo.n_test_recordings + demo.n_external_recordings
    ids = iter(recording_ids(n_ids, np.random.default_rng([demo.seed, STREAMS["ids"]])))
    rng = np.random.default_rng([demo.seed, STREAMS["presence"]])
    order = common_to_rare([voice.templates[0].f_max_hz for voice in world.voices], rng)
    shares = world.conditions["test"].n_species_shares
    presence = {"test": test_presence(demo.n_test_recordings, order, shares, rng)}
    if demo.n_external_recordings:
        rng = np.random.default_rng([demo.seed, STREAMS["external_presence"]])
        presence["external"] = test_presence(demo.n_external_recordings, order, shares, rng)
    train = [
        Job(next(ids), "train", number, number % n_species if number < demo.n_tp_recordings else None, None)
        for number in range(n_train)
    ]
    others = [
        Job(next(ids), subset, number, None, tuple(int(species) for species in np.flatnonzero(row)))
        for subset, rows in presence.items()
        for number, row in enumerate(rows)
    ]
    return train + others


def recording_ids(n_ids: int, rng: np.random.Generator) -> list[str]:
    """Draw distinct ids of 9 hex digits; 1 in 20 is decimal with a leading 0, 1 in 20 looks like a float."""
    ids: dict[str, None] = {}
    while len(ids) < n_ids:
        text = f"{rng.integers(16**9):09x}"
        digits = f"{rng.integers(10**8):08d}"
        match len(ids) % 20:
            case 3:
                text = f"0{digits}"
            case 7:
                text = f"{digits[:6]}e{digits[6:]}"
        ids[text] = None
    return list(ids)


def _make(world: World, seed: int, job: Job, folder: Path) -> Made:
    rng = np.random.default_rng([seed, STREAMS[job.subset], job.number])
    present: Sequence[int] | None = job.present
    if present is None:
        shares = world.conditions["train"].n_species_shares
        present = train_cast(job.target, len(world.species), shares, rng)
    scene = render_scene(world, present, job.sounds_like, rng)
    confirmed = confirm(world, scene, job.target, rng) if job.target is not None else []
    has_fp = job.subset == "train" and (job.target is None or rng.random() < TP_AND_FP_SHARE)
    rejected = reject(world, scene, confirmed, rng) if has_fp else []
    path = folder / job.subset / _file_name(job)
    digest = _write_flac(scene.waveform, world.sample_rate, path)
    return Made(job, digest, scene.calls, confirmed, rejected)


def _file_name(job: Job) -> str:
    return f"{job.recording_id}.flac"


def _write_flac(waveform: Waveform, sample_rate: int, path: Path) -> str:
    """Write a 16-bit FLAC and return its digest.

    It is encoded in memory, because libsndfile does not report a full disk.
    """
    flac = io.BytesIO()
    samples = np.rint(waveform * 32767).astype(np.int16)
    soundfile.write(
        flac, samples, sample_rate, format="FLAC", subtype="PCM_16", compression_level=FLAC_EFFORT
    )
    path.write_bytes(flac.getbuffer())
    return bytes_digest(flac.getbuffer())


def _tables(world: World, made: list[Made]) -> SourceTables:
    recordings = pd.DataFrame(
        [
            (
                one.job.recording_id,
                one.job.subset,
                _file_name(one.job),
                world.n_samples,
                world.sample_rate,
                one.digest,
            )
            for one in made
        ],
        columns=RECORDING_COLUMNS,
    ).sort_values(["subset", "recording_id"], ascending=[False, True], ignore_index=True)
    test_ids = recordings.loc[recordings["subset"] == "test", "recording_id"].tolist()
    return SourceTables(
        species=world.species,
        recordings=recordings,
        train_tp=_annotation_table(world, [(one.job, one.confirmed) for one in made]),
        train_fp=_annotation_table(world, [(one.job, one.rejected) for one in made]),
        test_ids=test_ids,
    )


def _annotation_table(world: World, annotated: list[tuple[Job, list[Annotation]]]) -> pd.DataFrame:
    rows = [
        (job.recording_id, world.species[box.species], SONGTYPE, box.t_min, box.f_min, box.t_max, box.f_max)
        for job, boxes in annotated
        for box in boxes
    ]
    return pd.DataFrame(rows, columns=ANNOTATION_COLUMNS).sort_values(
        ["recording_id", "t_min", "species_id"], ignore_index=True
    )


def _write_truth(world: World, seed: int, made: list[Made], folder: Path) -> None:
    for subset in sorted({one.job.subset for one in made} - {"test"}):
        calls = [
            (one.job.recording_id, world.species[c.species], c.t_min, c.f_min, c.t_max, c.f_max)
            for one in made
            for c in one.calls
            if one.job.subset == subset and c.species != DISTRACTOR
        ]
        table = pd.DataFrame(calls, columns=TRUTH_COLUMNS)
        table = table.sort_values(["recording_id", "t_min"], ignore_index=True)
        table.round(4).to_csv(folder / f"{subset}_labels.csv", index=False)
    tested = sorted((one for one in made if one.job.subset == "test"), key=lambda one: one.job.recording_id)
    is_present = np.zeros((len(tested), len(world.species)), dtype=np.int64)
    for row, one in enumerate(tested):
        is_present[row, list(one.job.present or ())] = 1
    usage = _usage(is_present, np.random.default_rng([seed, STREAMS["usage"]]))
    labels = pd.DataFrame(is_present, columns=score_columns(world.species))
    labels.insert(0, "recording_id", [one.job.recording_id for one in tested])
    labels.insert(1, "usage", usage)
    labels.to_csv(folder / "test_labels.csv", index=False)


def _usage(is_present: NDArray[np.int64], rng: np.random.Generator) -> list[str]:
    """Return "public" for a random half of the recordings (at least one), "private" for the rest."""
    n_public = max(1, round(PUBLIC_SHARE * len(is_present)))
    public = set(rng.permutation(len(is_present))[:n_public].tolist())
    return ["public" if row in public else "private" for row in range(len(is_present))]
