import numpy as np
import pytest

from callboard.features.windows import windows_from
from callboard.training.sampling import Streams, batch_bounds, draw_items, draw_order, draw_windows
from callboard.training.targets import build_targets
from tests.toy_training import CPU, annotation, choose_fold, clips_table, fit_params, random_fold


def streams(seed):
    return Streams(*(np.random.default_rng((seed, k)) for k in range(3)))


def windows_of(data, seed=0, clip_frames=32, **changes):
    train = fit_params(**{"train__items": "windows"} | {f"train__{k}": v for k, v in changes.items()}).train
    return draw_windows(data, clip_frames, train, streams(seed))


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


@pytest.mark.parametrize(
    ("n_items", "sizes"), [(8, [4, 4]), (10, [4, 4, 2]), (9, [4, 5]), (3, [3]), (1, [1]), (5, [5])]
)
def test_the_last_batch_is_kept_and_never_a_single_clip(n_items, sizes):
    bounds = batch_bounds(n_items, 4)
    assert [bound.stop - bound.start for bound in bounds] == sizes
    assert np.concatenate([np.arange(n_items)[bound] for bound in bounds]).tolist() == list(range(n_items))


@pytest.mark.parametrize("seed", range(5))
def test_windows_cover_every_frame_side_by_side_and_inside_their_recording(seed):
    rng = np.random.default_rng(seed)
    n_frames, clip_frames = rng.integers(1, 400, 30), int(rng.integers(1, 100))
    phase = rng.integers(clip_frames, size=30)
    windows = windows_from(n_frames, clip_frames, phase)
    assert np.array_equal(windows.recording, np.sort(windows.recording))
    for k, length in enumerate(n_frames):
        start = windows.start_frame[windows.recording == k]
        if length <= clip_frames:
            assert start.tolist() == [0]
            continue
        seen = {frame for first in start for frame in range(first, first + clip_frames)}
        assert seen == set(range(length))
        assert (np.diff(start) > 0).all()
        assert np.array_equal(np.diff(start)[1:-1], np.full(max(len(start) - 3, 0), clip_frames))
        if len(start) > 2:
            assert start[1] == clip_frames - phase[k]


def test_windows_by_hand():
    windows = windows_from(np.array([100, 100, 32, 33, 96]), 32, np.array([0, 5, 9, 31, 0]))
    starts = [windows.start_frame[windows.recording == k].tolist() for k in range(5)]
    assert starts == [[0, 32, 64, 68], [0, 27, 59, 68], [0], [0, 1], [0, 32, 64]]


def test_recordings_with_tp_are_shown_whole_in_every_epoch_and_some_with_fp(data):
    annotations = data.annotations
    seen = set()
    for epoch in range(30):
        shown = set(windows_of(data, epoch, skip_unlabeled=False, fp_per_epoch=2).recording)
        fp = shown - set(np.flatnonzero(annotations.n_tp))
        assert shown - fp == set(np.flatnonzero(annotations.n_tp))
        assert len(fp) <= 2
        seen |= fp
    assert seen == set(np.flatnonzero((annotations.n_fp > 0) & (annotations.n_tp == 0)))


def test_a_recording_with_both_kinds_is_shown_once(root):
    rows = annotation("r01", "tp", "a", 0, 5), annotation("r01", "fp", "07", 90, 99)
    recording, start = windows_of(choose_fold(root, clips_table(*rows)), skip_unlabeled=False)
    assert set(recording) == {1}
    assert len(set(start)) == len(start)


def test_phases_differ_between_recordings_and_epochs(data):
    seconds = {
        (seed, row): np.sort(start[recording == row])[1]
        for seed in range(3)
        for recording, start in [windows_of(data, seed, skip_unlabeled=False)]
        for row in set(recording)
    }
    assert len(set(seconds.values())) > 10


@pytest.mark.parametrize("seed", range(4))
def test_windows_left_out_are_those_whose_targets_have_no_label(seed):
    data = random_fold(seed)
    everything, kept = (
        set(zip(*windows_of(data, seed, skip_unlabeled=skip), strict=True)) for skip in (False, True)
    )
    recording, start = (np.array(column) for column in zip(*everything, strict=True))
    labeled = build_targets(data, recording, start, 32, slice(None), CPU).clip_labeled.any(dim=1).numpy()
    assert kept == set(zip(recording[labeled], start[labeled], strict=True))
    assert not labeled.all()


def test_an_event_is_in_a_window_of_every_epoch(data):
    for seed in range(10):
        recording, start = windows_of(data, seed)
        clip = build_targets(data, recording, start, 32, slice(None), CPU).clip
        assert set(recording[clip.any(dim=1).numpy()]) == set(np.flatnonzero(data.annotations.n_tp))


def test_without_a_share_an_order_is_a_permutation():
    has_expert = np.random.default_rng(0).random(50) < 0.3
    orders = [draw_order(has_expert, None, 8, np.random.default_rng(seed)) for seed in range(2)]
    assert all(np.array_equal(np.sort(order), np.arange(50)) for order in orders)
    assert not np.array_equal(*orders)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.72, 0.8, 1.0])
@pytest.mark.parametrize("batch_size", [2, 5, 25])
def test_every_batch_has_its_share_of_windows_with_an_experts_label(share, batch_size):
    rng = np.random.default_rng(0)
    for n_expert, n_others in ((1, 0), (1, 90), (40, 7), (41, 300), (100, 100), (33, 33)):
        has_expert = rng.permutation(np.arange(n_expert + n_others) < n_expert)
        order = draw_order(has_expert, share, batch_size, rng)
        assert len(set(order)) == len(order)
        assert set(order) >= set(np.flatnonzero(has_expert))
        shares = [has_expert[order[part]].mean() for part in batch_bounds(len(order), batch_size)]
        assert min(shares) >= share - 1e-12
        assert len(order) - n_expert <= min(n_others, n_expert * (1 - share) / share + 1e-9)


@pytest.mark.parametrize(("share", "batch_size"), [(0.5, 8), (0.75, 16), (0.28, 25), (0.2, 5)])
def test_as_many_others_are_drawn_as_fit(share, batch_size):
    has_expert = np.arange(5000) < 560
    order = draw_order(has_expert, share, batch_size, np.random.default_rng(0))
    n_others = (~has_expert[order]).sum()
    n_batches = len(batch_bounds(len(order), batch_size))
    assert 560 * (1 - share) / share - n_batches <= n_others <= 560 * (1 - share) / share + 1e-9


def test_few_others_are_spread_evenly_over_batches():
    has_expert = np.arange(100) < 90
    order = draw_order(has_expert, 0.5, 10, np.random.default_rng(0))
    assert [(~has_expert[order[part]]).sum() for part in batch_bounds(100, 10)] == [1] * 10


def test_others_are_drawn_afresh_from_all():
    has_expert = np.arange(100) < 20
    drawn = [
        set(draw_order(has_expert, 0.5, 10, np.random.default_rng(seed))) - set(range(20))
        for seed in range(30)
    ]
    assert all(len(others) == 20 for others in drawn)
    assert set.union(*drawn) == set(range(20, 100))


def test_windows_of_pseudo_labels_alone_are_the_others(root):
    rows = [annotation("r02", "tp", "a", 40, 44), annotation("r13", "fp", "a", 70, 74)]
    rows += [annotation(f"r{i:02d}", "pseudo", "07", 3, 140) for i in (1, 2, 5, 6, 9, 10)]
    data = choose_fold(root, clips_table(*rows))
    for seed in range(10):
        recording, start = windows_of(data, seed, labeled_share=0.5, batch_size=4)
        is_tp = (recording == 2) & (start < 44) & (start + 32 > 40)
        is_fp = (recording == 13) & (start < 74) & (start + 32 > 70)
        n_expert = (is_tp | is_fp).sum()
        assert n_expert >= 2
        assert len(recording) == 2 * n_expert


def test_windows_of_a_recording_with_negatives_alone_are_shown(root):
    rows = annotation("r02", "tp", "a", 40, 44), annotation("r05", "pseudo", "07", 0, 64)
    data = choose_fold(root, clips_table(*rows).assign(target=[np.nan, 0.0]))
    assert not data.annotations.has_positive_clip[5]
    recording, _ = windows_of(data, skip_unlabeled=False, fp_per_epoch=0)
    assert set(recording) == {2, 5}
