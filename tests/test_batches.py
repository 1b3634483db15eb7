from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from callboard import batches
from callboard.batches import (
    Annotations,
    BatchSource,
    FoldData,
    Items,
    Moment,
    Purpose,
    batch_bounds,
    build_targets,
    copy_frames,
    draw_items,
    event_starts,
    gather_clips,
    on_device,
    select_fold,
)
from callboard.clips import read_clips
from callboard.errors import UserError
from callboard.folds import read_folds
from callboard.mel_cache import MelCache
from callboard.params.training import ClipParams
from tests.toy_training import CPU, SPECIES, annotation, clips_table, fit_params, load_fold, write_fold_inputs


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("fold")
    write_fold_inputs(root)
    return root


@pytest.fixture(scope="module")
def data(root):
    return load_fold(root)


def random_data(seed, n_recordings=6, n_species=4):
    """Recordings of 20 to 200 frames with random annotations of both kinds."""
    rng = np.random.default_rng(seed)
    n_frames = rng.integers(20, 200, n_recordings)
    start = rng.integers(0, n_frames[:, None], (n_recordings, 8))
    stop = np.minimum(start + rng.integers(1, 60, start.shape), n_frames[:, None])
    is_fp = np.zeros(start.shape, dtype=bool)
    is_fp[:, 4:] = True
    species = rng.integers(0, n_species, start.shape)
    return FoldData(
        frames=rng.integers(0, 256, (n_frames.sum(), 3), dtype=np.uint8),
        first_frame=np.cumsum(n_frames) - n_frames,
        n_frames=n_frames,
        annotations=Annotations(
            start, stop, species, is_fp, np.full(n_recordings, 4), np.full(n_recordings, 4)
        ),
        n_tp_annotations=np.ones(n_species, dtype=np.int64),
        validation=np.arange(0),
        is_present=np.zeros((0, n_species), dtype=bool),
    )


def select(root, clips, folds=None, fold=0, species=SPECIES):
    folds = read_folds(root / "folds.csv") if folds is None else folds
    return select_fold(MelCache.open(root / "mel"), clips, folds, fold, species)


def test_no_recording_of_the_validation_part_is_trained_on(root):
    fold_of = dict(read_folds(root / "folds.csv").to_numpy())
    cache = MelCache.open(root / "mel")
    for fold in range(3):
        data = load_fold(root, fold)
        annotated = np.flatnonzero((data.annotations.stop > 0).any(axis=1))
        for epoch in range(5):
            items = draw_items(data.annotations, 99, np.random.default_rng(epoch))
            assert set(items.recording) == set(annotated)
        assert all(fold_of[cache.recording_ids[row]] != fold for row in annotated)
        assert all(fold_of[cache.recording_ids[row]] == fold for row in data.validation)


def test_every_tp_recording_is_in_some_validation_part_with_its_species(root):
    rows = np.concatenate([load_fold(root, fold).validation for fold in range(3)])
    is_present = np.concatenate([load_fold(root, fold).is_present for fold in range(3)])
    assert sorted(rows) == list(range(12))
    assert [SPECIES[i] for i in is_present.argmax(axis=1)] == [SPECIES[row % 3] for row in rows]
    assert (is_present.sum(axis=1) == 1).all()


def test_class_counts_are_of_the_tp_rows_of_the_training_part(root):
    clips, folds = read_clips(root / "clips.csv"), read_folds(root / "folds.csv")
    training = folds.loc[folds["fold"] != 1, "recording_id"]
    tp = clips[(clips["label_type"] == "tp") & clips["recording_id"].isin(training)]
    expected = [int((tp["species_id"] == name).sum()) for name in SPECIES]
    assert load_fold(root, 1).n_tp_annotations.tolist() == expected


def test_annotations_are_kept_tp_first_then_fp_then_pseudo(root):
    clips = clips_table(
        annotation("r01", "pseudo", "07", 30, 40),
        annotation("r01", "fp", "a", 20, 30),
        annotation("r02", "tp", "a", 0, 5),
        annotation("r01", "tp", "2e1", 10, 20),
    )
    kept = select(root, clips).annotations
    assert kept.start[1].tolist() == [10, 20, 30]
    assert kept.stop[1].tolist() == [20, 30, 40]
    assert kept.species[1].tolist() == [2, 0, 1]
    assert kept.is_fp[1].tolist() == [False, True, False]
    assert (kept.n_tp[1], kept.n_fp[1]) == (1, 1)
    assert kept.stop[2].tolist() == [5, 0, 0]


def test_a_fold_that_does_not_exist_is_refused(root):
    with pytest.raises(UserError, match=r"fold 7 is not in the folds table, which has \[0, 1, 2\]"):
        load_fold(root, 7)


def test_a_training_part_without_tp_is_refused(root):
    clips = clips_table(annotation("r00", "tp", "a", 0, 5), annotation("r01", "fp", "a", 0, 5))
    with pytest.raises(UserError, match="fold 0: its training part has no TP annotation"):
        select(root, clips)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (annotation("r99", "tp", "a", 0, 5), "1 annotation.* recording_id that the folds table lacks.*r99"),
        (
            annotation("r01", "tp", "7", 0, 5),
            "species_id that the species table lacks, first: tp of species 7",
        ),
        (annotation("r01", "maybe", "a", 0, 5), "label_type must be one of tp, fp, pseudo, found maybe"),
    ],
)
def test_annotations_of_something_unknown_are_refused(root, row, message):
    with pytest.raises(UserError, match=message):
        select(root, clips_table(annotation("r02", "tp", "a", 0, 5), row))


def test_a_recording_that_the_cache_lacks_is_refused(root):
    folds = pd.DataFrame({"recording_id": ["r00", "r01", "ghost"], "fold": [0, 1, 1]})
    with pytest.raises(UserError, match="no recording 'ghost'"):
        select(root, clips_table(annotation("ghost", "tp", "a", 0, 5)), folds)


def test_an_epoch_shows_every_tp_recording_once_and_some_fp_ones(data):
    n_tp = int((data.annotations.n_tp > 0).sum())
    seen = []
    for epoch in range(40):
        items = draw_items(data.annotations, 2, np.random.default_rng(epoch))
        assert sorted(items.recording[~items.is_fp]) == np.flatnonzero(data.annotations.n_tp).tolist()
        fp = items.recording[items.is_fp]
        assert len(items.recording) == n_tp + 2
        assert len(set(fp)) == 2
        seen.extend(fp)
    assert set(seen) == set(np.flatnonzero(data.annotations.n_fp))


def test_more_fp_recordings_than_there_are_means_all(data):
    items = draw_items(data.annotations, 1000, np.random.default_rng(0))
    assert items.is_fp.sum() == (data.annotations.n_fp > 0).sum()
    assert len(items.is_fp) == data.count_items(1000)


@pytest.mark.parametrize(
    ("n_items", "sizes"), [(8, [4, 4]), (10, [4, 4, 2]), (9, [4, 5]), (3, [3]), (1, [1]), (5, [5])]
)
def test_the_last_batch_is_kept_and_never_a_single_clip(n_items, sizes):
    bounds = batch_bounds(n_items, 4)
    assert [bound.stop - bound.start for bound in bounds] == sizes
    assert np.concatenate([np.arange(n_items)[bound] for bound in bounds]).tolist() == list(range(n_items))


def possible_starts(data, recording, is_fp, clip):
    """The crop rule of the experiment table, one annotation and one offset at a time."""
    annotations, length = data.annotations, int(data.n_frames[recording])
    starts = set()
    for start, stop, fp in zip(
        annotations.start[recording], annotations.stop[recording], annotations.is_fp[recording], strict=True
    ):
        if stop == 0 or fp != is_fp:
            continue
        centre = (start + stop) // 2
        for offset in [o for o in clip.offsets if centre - o > 0] or [centre]:
            starts.add(min(int(centre - offset), max(length - clip.n_frames, 0)))
    return starts


@pytest.mark.parametrize("seed", range(4))
def test_clips_start_where_the_naive_rule_may_start_them(seed):
    data = random_data(seed)
    clip = ClipParams(mode="event", n_frames=50, offsets=[40, 8, 16])
    items = Items(np.repeat(np.arange(6), 2), np.tile([False, True], 6))
    drawn = [set() for _ in items.recording]
    for draw in range(300):
        for k, start in enumerate(event_starts(data, items, clip, np.random.default_rng(draw))):
            drawn[k].add(int(start))
    for k, (recording, is_fp) in enumerate(zip(*items, strict=True)):
        assert drawn[k] == possible_starts(data, recording, is_fp, clip)


def test_the_event_lies_in_its_clip(data):
    items = draw_items(data.annotations, 2, np.random.default_rng(0))
    start = event_starts(data, items, fit_params().clip, np.random.default_rng(1))
    targets = build_targets(data, items.recording, start, 64, CPU)
    assert (targets.clip.sum(dim=1) >= 1)[torch.from_numpy(~items.is_fp)].all()
    assert (targets.clip_labeled.sum(dim=1) >= 1).all()


def test_gathered_clips_are_slices_of_the_recording(root):
    cache = MelCache.open(root / "mel")
    start = np.array([0, 17, 86])
    clips = gather_clips(cache.frames, cache.offsets[:3] + start, cache.n_frames[:3] - start, 64, CPU)
    for k in range(3):
        recording = cache.read(cache.recording_ids[k])
        assert np.array_equal(clips[k], recording[start[k] : start[k] + 64])


def test_what_lies_behind_the_end_is_zero_and_not_the_next_recording():
    data = random_data(0)
    clips = gather_clips(data.frames, data.first_frame, data.n_frames, 250, CPU).numpy()
    for k, length in enumerate(data.n_frames):
        first = data.first_frame[k]
        assert np.array_equal(clips[k, :length], data.frames[first : first + length])
        assert not clips[k, length:].any()


def test_frames_on_a_device_are_gathered_as_from_disk():
    data = random_data(1)
    arguments = data.first_frame, data.n_frames, 120, CPU
    from_tensor = gather_clips(torch.from_numpy(data.frames), *arguments)
    assert torch.equal(from_tensor, gather_clips(data.frames, *arguments))


def test_frames_are_copied_to_a_device_piece_by_piece(monkeypatch):
    data = random_data(2)
    monkeypatch.setattr(batches, "COPIED_FRAMES", 50)
    assert np.array_equal(copy_frames(data.frames, CPU), data.frames)


def test_frames_stay_on_disk_for_a_cpu_and_where_a_gpu_lacks_the_room(monkeypatch):
    data = random_data(2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (data.frames.nbytes, 10**12))
    assert on_device(data, CPU) is data
    assert on_device(data, torch.device("cuda")) is data


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="asks Linux for resident pages")
def test_a_mapped_cache_keeps_no_resident_pages(root):
    cache = MelCache.open(root / "mel")
    gather_clips(cache.frames, cache.offsets, cache.n_frames, 150, CPU)
    _, _, mapping = Path("/proc/self/smaps").read_text().partition(str(root / "mel" / "mel.npy"))
    assert "Rss:                   0 kB" in mapping.splitlines()[4]


def naive_targets(data, recording, start, n_frames):
    positive = np.zeros((len(recording), n_frames, data.n_species), dtype=bool)
    labeled = positive.copy()
    for k, row in enumerate(recording):
        columns = (column[row] for column in data.annotations[:4])
        for first, stop, species, is_fp in zip(*columns, strict=True):
            for frame in range(first, stop):
                if 0 <= frame - start[k] < n_frames:
                    labeled[k, frame - start[k], species] = True
                    positive[k, frame - start[k], species] |= not is_fp
    return positive.any(axis=1), positive, labeled.any(axis=1), labeled


@pytest.mark.parametrize("seed", range(4))
def test_targets_equal_the_naive_twin(seed):
    data = random_data(seed)
    recording = np.random.default_rng(seed).integers(0, 6, 20)
    start = np.random.default_rng(seed + 1).integers(0, 150, 20)
    targets = build_targets(data, recording, start, 64, CPU)
    for found, expected in zip(targets, naive_targets(data, recording, start, 64), strict=True):
        assert np.array_equal(found, expected.astype(np.float32))


def test_targets_by_hand(root):
    clips = clips_table(
        annotation("r01", "tp", "a", 10, 20),
        annotation("r01", "tp", "a", 15, 25),  # overlaps the one before
        annotation("r01", "fp", "a", 22, 30),  # its first three frames are confirmed above
        annotation("r01", "fp", "07", 0, 12),  # its last two frames are in the clip
        annotation("r01", "pseudo", "2e1", 19, 20),
        annotation("r01", "tp", "2e1", 42, 50),  # begins with the frame after the clip
        annotation("r02", "tp", "a", 0, 5),
    )
    targets = build_targets(select(root, clips), np.array([1]), np.array([10]), 32, CPU)
    assert targets.clip.tolist() == [[1, 0, 1]]
    assert targets.clip_labeled.tolist() == [[1, 1, 1]]
    positive = {name: np.flatnonzero(targets.frame[0, :, k]).tolist() for k, name in enumerate(SPECIES)}
    labeled = {
        name: np.flatnonzero(targets.frame_labeled[0, :, k]).tolist() for k, name in enumerate(SPECIES)
    }
    assert positive == {"a": list(range(15)), "07": [], "2e1": [9]}
    assert labeled == {"a": list(range(20)), "07": [0, 1], "2e1": [9]}


def batches_of(data, n_threads=1, fold=0, epoch=0, **changes):
    return list(BatchSource(data, fit_params(**changes), fold, CPU, n_threads).epoch(epoch))


def tensors_of(batch):
    return [batch.image, *batch.targets, torch.tensor(batch.mixing.share), batch.mixing.partner]


def are_equal(batches, others):
    return all(
        torch.equal(a, b)
        for batch, other in zip(batches, others, strict=True)
        for a, b in zip(tensors_of(batch), tensors_of(other), strict=True)
    )


def test_batches_do_not_depend_on_the_number_of_threads(data):
    assert are_equal(batches_of(data, n_threads=1), batches_of(data, n_threads=3))


def test_batches_depend_on_seed_fold_and_epoch_only(data):
    first = batches_of(data)
    torch.manual_seed(99)
    assert are_equal(first, batches_of(data))
    assert not are_equal(first, batches_of(data, seed=8))
    assert not are_equal(first, batches_of(data, fold=1))
    assert not are_equal(first, batches_of(data, epoch=1))


def test_switching_mixup_leaves_clips_and_augmentation_as_they_were(data):
    pairs = zip(batches_of(data), batches_of(data, mixup__mode="none", mixup__alpha=1.0), strict=True)
    assert all(torch.equal(a.image, b.image) for a, b in pairs)


def test_streams_of_different_moments_and_purposes_differ():
    moments = [Moment(1, fold, epoch, batch) for fold in range(3) for epoch in range(3) for batch in range(3)]
    draws = {moment.rng(purpose).random() for moment in moments for purpose in Purpose}
    assert len(draws) == len(moments) * len(Purpose)


def test_a_batch_has_the_shapes_it_promises(data):
    batch = batches_of(data)[0]
    assert batch.image.shape == (4, 64, 32)
    assert batch.image.dtype == torch.float32
    assert [target.shape for target in batch.targets] == [(4, 3), (4, 64, 3)] * 2
