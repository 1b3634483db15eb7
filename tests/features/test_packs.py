"""Packs of a cache: divided by data alone, named after all that they contain."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from callboard.core.errors import UserError
from callboard.data.recordings import Recording
from callboard.features import encoding, packs
from callboard.features.frame_cache import EncodedRecording, MelCache
from callboard.features.packs import PackParts, PlannedPack, plan_packs
from callboard.params.features import FrontEndParams
from tests.features.test_encoding import FRONT_END

RECORDINGS = [Recording(name, "train", Path(f"{name}.flac"), 8000, 8000, name) for name in "abcde"]
TEST = Recording("t", "test", Path("t.flac"), 8000, 8000, "t")


def planned(
    recordings: list[Recording], front_end: FrontEndParams = FRONT_END, code: str = "code"
) -> list[PlannedPack]:
    return plan_packs(recordings, [101] * len(recordings), front_end, code)


def keys(recordings: list[Recording], *arguments: Any) -> list[str]:
    return [pack.key for pack in planned(recordings, *arguments)]


@pytest.fixture
def packs_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "PACK_BYTES", 3 * 101 * 12 - 1)


@pytest.mark.usefixtures("packs_of_two")
def test_neighbours_of_a_set_share_a_pack_and_each_set_has_one() -> None:
    found = planned([*RECORDINGS[:3], TEST, *RECORDINGS[3:]])
    names = [(pack.subset, pack.number, [one.recording_id for one in pack.recordings]) for pack in found]
    assert names == [
        ("train", 0, ["a", "b"]),
        ("train", 1, ["c", "d"]),
        ("train", 2, ["e"]),
        ("test", 0, ["t"]),
        ("external", 0, []),
    ]


@pytest.mark.usefixtures("packs_of_two")
def test_a_key_names_all_that_a_pack_depends_on_and_nothing_else() -> None:
    before = keys([*RECORDINGS, TEST])
    assert len(set(before)) == 5
    assert keys([*RECORDINGS, TEST]) == before
    louder = FRONT_END.model_copy(update={"features": FRONT_END.features.model_copy(update={"top_db": 60.0})})
    assert not set(keys([*RECORDINGS, TEST], louder)) & set(before)
    assert not set(keys([*RECORDINGS, TEST], FRONT_END, "other code")) & set(before)
    for field, value in (
        ("recording_id", "x"),
        ("digest", "x"),
        ("n_samples", 8001),
        ("sample_rate", 44100),
    ):
        changed = [*RECORDINGS[:2], RECORDINGS[2]._replace(**{field: value}), *RECORDINGS[3:], TEST]
        same = [key == other for key, other in zip(keys(changed), before, strict=True)]
        assert same == [True, False, True, True, True], field
    assert keys([*(one._replace(path=Path("moved", one.path)) for one in RECORDINGS), TEST]) == before


def loud(n_frames: int) -> Callable[[Recording, FrontEndParams, Path], EncodedRecording]:
    def encode(recording: Recording, front_end: FrontEndParams, folder: Path) -> EncodedRecording:
        return EncodedRecording(recording.recording_id, np.full((n_frames, 12), 7, np.uint8), -80.0, 0.0)

    return encode


@pytest.mark.parametrize("pack_mb", [4, 1000])
def test_memory_does_not_grow_with_recordings_or_packs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack_mb: int
) -> None:
    monkeypatch.setenv("CALLBOARD_WORKERS", "2")
    monkeypatch.setattr(packs, "PACK_BYTES", pack_mb * 1_000_000)
    monkeypatch.setattr(encoding, "encode_recording", loud(100_000))  # 1.2 MB each
    recordings = [Recording(str(number), "train", Path("x"), 1, 8000, "d") for number in range(60)]
    found = plan_packs(recordings, [100_000] * len(recordings), FRONT_END, "")
    parts = PackParts(tmp_path, FRONT_END, "error")
    tracemalloc.start()
    parts.make_missing(found)
    (tmp_path / "cache").mkdir()
    parts.collect(found, tmp_path / "cache")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 15e6  # of 72 MB: at most two recordings ahead of each thread
    assert len(MelCache.open(tmp_path / "cache/train")) == 60


def test_the_bytes_of_frames_are_known_before_any_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "encode_recording", loud(101))
    plan = planned(RECORDINGS)
    parts = PackParts(tmp_path, FRONT_END, "error")
    parts.make_missing(plan)
    files = [tmp_path / f"{pack.key}.npy" for pack in plan]
    frames = [np.load(file).nbytes for file in files]
    assert [pack.n_bytes for pack in plan] == frames
    assert sum(frames) == 5 * 101 * 12
    assert all(file.stat().st_size - n_bytes == 128 for file, n_bytes in zip(files, frames, strict=True))


def test_frames_that_do_not_fit_on_the_disk_are_refused_before_any_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "encode_recording", loud(101))
    plan = plan_packs(RECORDINGS, [10**15] * 5, FRONT_END, "code")
    told = r"the frames of all recordings: needs 60000.0 TB on disk, .* free; raise features.hop_length"
    with pytest.raises(UserError, match=told):
        PackParts(tmp_path, FRONT_END, "error").make_missing(plan)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("old", "new"), [("-80.0", "-70.0"), ("-80.0", '"a"'), ('"a"', '"b"')])
def test_a_part_whose_scale_or_names_somebody_changed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    monkeypatch.setattr(encoding, "encode_recording", loud(101))
    plan = planned(RECORDINGS[:1])[:1]
    assert PackParts(tmp_path, FRONT_END, "error").make_missing(plan) == 1
    content = tmp_path / f"{plan[0].key}.json"
    assert old in content.read_text()
    content.write_text(content.read_text().replace(old, new))
    assert PackParts(tmp_path, FRONT_END, "error").make_missing(plan) == 1
    assert PackParts(tmp_path, FRONT_END, "error").make_missing(plan) == 0
