from pathlib import Path

import numpy as np
import pytest
import torch

from callboard import batches
from callboard.batches import (
    BatchSource,
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
)
from callboard.fold_data import Annotations, FoldData
from callboard.image import normalise, to_unit
from callboard.mel_cache import JoinedFrames, MelCache
from callboard.params.training import ClipParams
from tests.toy_training import CPU, SPECIES, annotation, choose_fold, clips_table, fit_params

N_MELS = 12
ALL = slice(None)


def random_data(seed, n_recordings=6, n_species=4):
    """Recordings of 20 to 200 frames with random annotations: 3 TP, 4 FP, a pseudo one without rows."""
    rng = np.random.default_rng(seed)
    n_frames = rng.integers(20, 200, n_recordings)
    start = rng.integers(0, n_frames[:, None], (n_recordings, 8))
    stop = np.minimum(start + rng.integers(1, 60, start.shape), n_frames[:, None])
    is_fp = np.zeros(start.shape, dtype=bool)
    is_fp[:, 3:7] = True
    low = rng.integers(0, N_MELS, start.shape)
    high = np.minimum(low + rng.integers(1, 5, start.shape), N_MELS)
    low[:, 7] = high[:, 7] = 0
    species = rng.integers(0, n_species, start.shape)
    return FoldData(
        frames=rng.integers(0, 256, (n_frames.sum(), N_MELS), dtype=np.uint8),
        first_frame=np.cumsum(n_frames) - n_frames,
        n_frames=n_frames,
        annotations=Annotations(
            start, stop, low, high, species, is_fp, *(np.full(n_recordings, n) for n in (3, 4, 1))
        ),
        n_tp_annotations=np.ones(n_species, dtype=np.int64),
        class_species=np.arange(n_species),
        validation=np.arange(0),
        is_present=np.zeros((0, n_species), dtype=bool),
    )


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
    chosen = range(3, 7) if is_fp else range(3)
    for start, stop in zip(
        annotations.start[recording, chosen], annotations.stop[recording, chosen], strict=True
    ):
        centre = (start + stop) // 2
        for offset in [o for o in clip.offsets if centre - o > 0] or [centre]:
            starts.add(min(int(centre - offset), max(length - clip.n_frames, 0)))
    return starts


@pytest.mark.parametrize("seed", range(4))
def test_clips_start_where_the_naive_rule_may_start_them(seed):
    data = random_data(seed)
    clip = ClipParams(mode="event", n_frames=50, offsets=[40, 8, 16], mel_rows=None)
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
    targets = build_targets(data, items.recording, start, 64, ALL, CPU)
    assert (targets.clip.sum(dim=1) >= 1)[torch.from_numpy(~items.is_fp)].all()
    assert (targets.clip_labeled.sum(dim=1) >= 1).all()


def test_a_recording_with_pseudo_labels_alone_is_shown_once_an_epoch_around_one_of_them(root):
    clips = clips_table(
        annotation("r01", "pseudo", "07", 40, 60),
        annotation("r01", "pseudo", "a", 100, 120),
        annotation("r02", "tp", "a", 0, 5),
        annotation("r02", "pseudo", "a", 90, 99),
        annotation("r13", "fp", "a", 0, 5),
        annotation("r13", "pseudo", "a", 70, 75),
    )
    data, clip = choose_fold(root, clips), ClipParams(mode="event", n_frames=32, offsets=[16], mel_rows=None)
    drawn = {1: set(), 2: set(), 13: set()}
    for epoch in range(50):
        items = draw_items(data.annotations, 5, np.random.default_rng(epoch))
        assert sorted(items.recording) == [1, 2, 13]
        assert set(items.recording[items.is_fp]) == {13}
        for row, start in zip(
            items.recording, event_starts(data, items, clip, np.random.default_rng(epoch)), strict=True
        ):
            drawn[row].add(int(start))
    assert drawn == {1: {34, 94}, 2: {0}, 13: {0}}
    assert data.count_items(5) == 3


def test_mode_full_shows_whole_recordings(data):
    batch = batches_of(
        data,
        clip__mode="full",
        augment__p=0.0,
        augment__brightness_contrast=0.0,
        train__batch_size=100,
    )[0]
    items = draw_items(data.annotations, 2, Moment(7, 0).rng(Purpose.ITEMS))
    rows = data.first_frame[items.recording][:, None] + np.arange(150)
    expected = normalise(to_unit(torch.from_numpy(np.asarray(data.frames[rows]))))
    assert torch.equal(batch.image, expected)
    whole = build_targets(data, items.recording, np.zeros_like(items.recording), 150, ALL, CPU)
    assert all(torch.equal(a, b) for a, b in zip(batch.targets, whole, strict=True))
    assert (batch.targets.frame.sum(dim=1) == 20).any(dim=1).tolist() == (~items.is_fp).tolist()


def test_mel_rows_cut_images_and_bands(data):
    plain = {"augment__p": 0.0, "augment__brightness_contrast": 0.0}
    for whole, cut in zip(
        batches_of(data, **plain), batches_of(data, **plain, clip__mel_rows=[4, 21]), strict=True
    ):
        assert torch.equal(cut.image, whole.image[:, :, 4:21])
        assert torch.equal(cut.targets.band, whole.targets.band[:, 4:21])
        assert torch.equal(cut.targets.band_labeled, whole.targets.band_labeled[:, 4:21])
        assert torch.equal(cut.targets.frame, whole.targets.frame)


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


def test_frames_of_two_caches_are_gathered_and_copied_as_if_they_were_one(monkeypatch):
    data = random_data(3)
    joined = JoinedFrames(data.frames[:70], data.frames[70:])
    arguments = data.first_frame, data.n_frames, 120, CPU
    assert torch.equal(gather_clips(joined, *arguments), gather_clips(data.frames, *arguments))
    monkeypatch.setattr(batches, "COPIED_FRAMES", 50)
    assert np.array_equal(copy_frames(joined, CPU), data.frames)


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


def naive_targets(data, recording, start, n_frames, mels):
    """Cell by cell, as sets of (clip, species), (clip, frame, species), (clip, row of the clip, species)."""
    positive, labeled = ({"clip": set(), "frame": set(), "band": set()} for _ in range(2))
    for k, row in enumerate(recording):
        columns = (column[row] for column in data.annotations[:6])
        for first, stop, low, high, species, is_fp in zip(*columns, strict=True):
            frames = {frame - start[k] for frame in range(first, stop)} & set(range(n_frames))
            bands = {mel - mels.start for mel in range(low, high) if mels.start <= mel < mels.stop}
            for marked in [labeled] if is_fp else [labeled, positive]:
                marked["clip"] |= {(k, species) for _ in frames}
                marked["frame"] |= {(k, frame, species) for frame in frames}
                marked["band"] |= {(k, band, species) for band in bands if frames}
    return positive | {f"{name}_labeled": cells for name, cells in labeled.items()}


@pytest.mark.parametrize("seed", range(4))
def test_targets_equal_the_naive_twin(seed):
    data, mels = random_data(seed), slice(2, 9)
    recording = np.random.default_rng(seed).integers(0, 6, 20)
    start = np.random.default_rng(seed + 1).integers(0, 150, 20)
    targets = build_targets(data, recording, start, 64, mels, CPU)
    naive = naive_targets(data, recording, start, 64, mels)
    assert set(naive) == set(targets._fields)
    for name, cells in targets._asdict().items():
        assert {tuple(cell) for cell in cells.nonzero().tolist()} == naive[name]
        assert set(cells.unique().tolist()) <= {0.0, 1.0}
    assert targets.band.shape == targets.band_labeled.shape == (20, 7, 4)
    assert targets.frame.shape == targets.frame_labeled.shape == (20, 64, 4)
    assert targets.clip.shape == targets.clip_labeled.shape == (20, 4)


def marked(cells):
    return {name: np.flatnonzero(cells[0, :, k]).tolist() for k, name in enumerate(SPECIES)}


def test_targets_by_hand(root):
    clips = clips_table(
        annotation("r01", "tp", "a", 10, 20, (4, 6)),
        annotation("r01", "tp", "a", 15, 25, (5, 7)),  # overlaps the one before
        annotation("r01", "fp", "a", 22, 30, (6, 9)),  # its first three frames are confirmed above
        annotation("r01", "fp", "07", 0, 12, (0, 3)),  # its last two frames are in the clip
        annotation("r01", "pseudo", "2e1", 19, 20),
        annotation("r01", "tp", "2e1", 42, 50, (8, 9)),  # begins with the frame after the clip
        annotation("r02", "tp", "a", 0, 5, (9, 10)),
    )
    data = choose_fold(root, clips)
    targets = build_targets(data, np.array([1]), np.array([10]), 32, slice(2, 10), CPU)
    assert targets.clip.tolist() == [[1, 0, 1]]
    assert targets.clip_labeled.tolist() == [[1, 1, 1]]
    assert marked(targets.frame) == {"a": list(range(15)), "07": [], "2e1": [9]}
    assert marked(targets.frame_labeled) == {"a": list(range(20)), "07": [0, 1], "2e1": [9]}
    assert marked(targets.band) == {"a": [2, 3, 4], "07": [], "2e1": []}
    assert marked(targets.band_labeled) == {"a": [2, 3, 4, 5, 6], "07": [0], "2e1": []}


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
    assert [target.shape for target in batch.targets] == [(4, 3), (4, 64, 3)] * 2 + [(4, 32, 3)] * 2
