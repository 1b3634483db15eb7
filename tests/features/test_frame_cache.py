import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from callboard.core.errors import UserError
from callboard.features.frame_cache import (
    EncodedRecording,
    JoinedFrames,
    MelCache,
    TrainingCache,
    is_whole_pack,
    open_training_cache,
    pack_name,
    read_index,
    write_cache,
    write_index,
    write_pack,
)

N_MELS = 5


def recordings() -> list[EncodedRecording]:
    rng = np.random.default_rng(0)
    return [
        EncodedRecording(
            name, rng.integers(0, 256, (n_frames, N_MELS), dtype=np.uint8), -80.0 - n_frames, 0.125
        )
        for name, n_frames in [("055088446", 7), ("838227e71", 1), ("NA", 12)]
    ]


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    write_cache(tmp_path, recordings(), N_MELS)
    cache = MelCache.open(tmp_path)
    assert cache.recording_ids == ["055088446", "838227e71", "NA"]
    assert cache.offsets.tolist() == [0, 7, 8]
    assert cache.n_frames.tolist() == [7, 1, 12]
    assert cache.db_min.tolist() == [-87.0, -81.0, -92.0]
    assert cache.db_max.tolist() == [0.125] * 3
    assert (len(cache), cache.n_mels, cache.frames.shape) == (3, N_MELS, (20, N_MELS))
    for row, recording in enumerate(recordings()):
        assert cache.row(recording.recording_id) == row
        np.testing.assert_array_equal(cache.read(recording.recording_id), recording.frames)
        span = slice(cache.offsets[row], cache.offsets[row] + cache.n_frames[row])
        np.testing.assert_array_equal(cache.frames[span], recording.frames)


def test_the_packed_file_is_an_ordinary_npy(tmp_path: Path) -> None:
    write_cache(tmp_path, recordings(), N_MELS)
    packed = np.load(tmp_path / "0000.npy")
    np.testing.assert_array_equal(packed, np.concatenate([recording.frames for recording in recordings()]))


def test_the_same_recordings_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_cache(tmp_path / name, iter(recordings()), N_MELS)
    for file in ("0000.npy", "index.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_set_without_recordings_works(tmp_path: Path) -> None:
    write_cache(tmp_path, [], N_MELS)
    cache = MelCache.open(tmp_path)
    assert (len(cache), cache.n_mels, cache.frames.shape) == (0, N_MELS, (0, N_MELS))
    assert np.load(tmp_path / "0000.npy").shape == (0, N_MELS)


def test_an_unknown_recording_is_refused(tmp_path: Path) -> None:
    write_cache(tmp_path, recordings(), N_MELS)
    with pytest.raises(UserError, match="recording '55088446' is not among the 3 in the cache"):
        MelCache.open(tmp_path).read("55088446")


def test_files_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    write_cache(tmp_path, recordings(), N_MELS)
    index = (tmp_path / "index.csv").read_text().splitlines()
    (tmp_path / "index.csv").write_text("\n".join(index[:-1]) + "\n")
    words = r"0000\.npy: contains 20 frames, but index\.csv lists 8; run crop again"
    with pytest.raises(UserError, match=words):
        MelCache.open(tmp_path)


def test_a_packed_file_cut_short_or_of_another_type_is_refused(tmp_path: Path) -> None:
    write_cache(tmp_path, recordings(), N_MELS)
    os.truncate(tmp_path / "0000.npy", 150)
    with pytest.raises(UserError, match=r"uint8 of shape \(20, 5\) in 22 bytes is not a mel cache"):
        MelCache.open(tmp_path)
    np.save(tmp_path / "0000.npy", np.zeros((20, N_MELS), np.float32))
    with pytest.raises(UserError, match="float32 of shape"):
        MelCache.open(tmp_path)


def test_a_missing_file_asks_for_crop(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"index\.csv: not found; run crop first"):
        MelCache.open(tmp_path)
    write_cache(tmp_path, recordings(), N_MELS)
    (tmp_path / "0000.npy").unlink()
    with pytest.raises(UserError, match=r"0000\.npy: not found; run crop first"):
        MelCache.open(tmp_path)


def test_the_index_changes_with_the_frames_alone(tmp_path: Path) -> None:
    first, *others = recordings()
    for name, frames in (("a", first.frames), ("b", np.roll(first.frames, 1, axis=0))):
        write_cache(tmp_path / name, [first._replace(frames=frames), *others], N_MELS)
    assert (tmp_path / "a/index.csv").read_bytes() != (tmp_path / "b/index.csv").read_bytes()


def test_an_index_cut_short_or_without_numbers_is_refused(tmp_path: Path) -> None:
    write_cache(tmp_path, recordings(), N_MELS)
    whole = (tmp_path / "index.csv").read_text()
    (tmp_path / "index.csv").write_text(whole[:-15])
    with pytest.raises(UserError, match=r"^index\.csv row 4: \d cells, but the header has 7$"):
        MelCache.open(tmp_path)
    (tmp_path / "index.csv").write_text(whole.replace("055088446,0,0,", "055088446,0,x,"))
    with pytest.raises(
        UserError, match=r"index\.csv: not what its stage writes: .*'x'.*; run its stage again"
    ):
        MelCache.open(tmp_path)


def test_a_training_opens_the_caches_that_annotations_lie_in(tmp_path: Path) -> None:
    for name, recording in zip(("train", "test", "external"), recordings(), strict=True):
        write_cache(tmp_path / name, [recording], N_MELS)
    ids = [recording.recording_id for recording in recordings()]
    others = [tmp_path / "test", tmp_path / "external"]
    for annotated in ([0], [0, 1], [0, 2], [0, 1, 2]):
        clips = pd.DataFrame({"recording_id": [ids[k] for k in annotated]})
        joined = open_training_cache(tmp_path / "train", others, clips)
        assert len(joined) == len(annotated)
        for row, k in enumerate(annotated):
            assert joined.row(ids[k]) == row
            first, n_frames = joined.offsets[row], joined.n_frames[row]
            np.testing.assert_array_equal(joined.frames[first : first + n_frames], recordings()[k].frames)


def test_joined_caches_are_read_as_one(tmp_path: Path) -> None:
    first, *others = recordings()
    write_cache(tmp_path / "train", others, N_MELS)
    write_cache(tmp_path / "test", [first], N_MELS)
    train, test = (MelCache.open(tmp_path / name) for name in ("train", "test"))
    joined = TrainingCache(train, test)
    assert (len(joined), joined.other_ids) == (3, {first.recording_id})
    assert isinstance(joined.frames, JoinedFrames)
    assert joined.frames.nbytes == train.frames.nbytes + test.frames.nbytes
    everything = np.concatenate([train.frames, test.frames])
    assert joined.frames.shape == everything.shape
    index = np.random.default_rng(0).integers(0, len(everything), (4, 7))
    assert np.array_equal(joined.frames[index], everything[index])
    assert np.array_equal(joined.frames[3:11], everything[3:11])
    assert np.array_equal(joined.frames[3:99], everything[3:])
    for recording in [first, *others]:
        row = joined.row(recording.recording_id)
        span = slice(joined.offsets[row], joined.offsets[row] + joined.n_frames[row])
        assert np.array_equal(joined.frames[span], recording.frames)


def write_packs(folder: Path, *packs: list[EncodedRecording]) -> MelCache:
    folder.mkdir()
    rows = [write_pack(folder / pack_name(number), pack, N_MELS) for number, pack in enumerate(packs)]
    write_index(folder, rows)
    return MelCache.open(folder)


def test_several_packs_are_read_as_one(tmp_path: Path) -> None:
    first, second, third = recordings()
    one = write_packs(tmp_path / "one", [first, second, third])
    several = write_packs(tmp_path / "several", [first], [], [second, third], [])
    assert several.recording_ids == one.recording_ids
    assert several.pack.tolist() == [0, 2, 2]
    assert np.array_equal(several.offsets, one.offsets)
    assert read_index(tmp_path / "several")["offset"].tolist() == [0, 0, 1]
    index = np.random.default_rng(0).integers(0, 20, (4, 7))
    for frames in (several.frames, TrainingCache(several).frames):
        assert isinstance(frames, JoinedFrames)
        assert np.array_equal(frames[index], one.frames[index])
    assert isinstance(one.frames, np.memmap)
    for recording in recordings():
        assert np.array_equal(several.read(recording.recording_id), recording.frames)
    both = TrainingCache(several, write_packs(tmp_path / "other", [third._replace(recording_id="x")]))
    assert np.array_equal(both.frames[both.offsets[3] + np.arange(12)], third.frames)


def test_a_pack_that_is_missing_or_that_the_index_does_not_know_is_refused(tmp_path: Path) -> None:
    first, second, third = recordings()
    write_packs(tmp_path / "a", [first], [second], [third])
    (tmp_path / "a/0001.npy").rename(tmp_path / "0001.npy")
    with pytest.raises(UserError, match=r"0001\.npy: not found; run crop first"):
        MelCache.open(tmp_path / "a")
    (tmp_path / "0001.npy").rename(tmp_path / "a/0001.npy")
    write_index(tmp_path / "a", [write_pack(tmp_path / "a/0000.npy", [first], N_MELS)])
    with pytest.raises(UserError, match=r"0001\.npy: contains 1 frames, but index\.csv lists 0"):
        MelCache.open(tmp_path / "a")


def test_any_change_of_a_pack_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "0000.npy"
    rows = write_pack(path, recordings(), N_MELS)
    whole = path.read_bytes()
    assert is_whole_pack(path, rows)
    changes = {byte: bytes([whole[byte] ^ 1]) for byte in range(len(whole) - 100, len(whole))}
    for byte, changed in changes.items():
        path.write_bytes(whole[:byte] + changed + whole[byte + 1 :])
        assert not is_whole_pack(path, rows)
    for length in (0, 5, 60, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert not is_whole_pack(path, rows)
    path.unlink()
    assert not is_whole_pack(path, rows)


def test_the_training_set_alone_is_read_where_it_lies(tmp_path: Path) -> None:
    write_cache(tmp_path, recordings(), N_MELS)
    cache = MelCache.open(tmp_path)
    alone = TrainingCache(cache)
    assert alone.frames is cache.frames
    assert np.array_equal(alone.offsets, cache.offsets)
    assert [alone.row(name) for name in cache.recording_ids] == [0, 1, 2]
    with pytest.raises(UserError, match="recording 'x' is not among the 3 in the cache"):
        alone.row("x")
