from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from callboard.features.frame_cache import JoinedFrames, MelCache
from callboard.features.normalisation import normalise, to_unit
from callboard.params.training import ClipParams, TrainParams
from callboard.training import batches
from callboard.training.batches import (
    EPOCH_PLANS,
    BatchSource,
    copy_frames,
    event_starts,
    gather_clips,
    on_device,
)
from callboard.training.randomness import Purpose, RngKey
from callboard.training.sampling import Items, Streams, draw_items, draw_windows
from callboard.training.targets import build_targets
from tests.toy_training import CPU, annotation, choose_fold, clips_table, fit_params, random_fold

ALL = slice(None)


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
    data = random_fold(seed)
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


def test_an_absence_from_a_whole_recording_is_shown_in_all_its_parts(root):
    """A call that is longer than a clip is shown around its centre."""
    clips = clips_table(annotation("r01", "tp", "a", 60, 100), annotation("r13", "fp", "07", 0, 150))
    data, clip = choose_fold(root, clips), ClipParams(mode="event", n_frames=32, offsets=[16], mel_rows=None)
    for row, is_fp, starts in ((13, True, range(150 - 32 + 1)), (1, False, [80 - 16])):
        items = Items(np.full(5000, row), np.full(5000, is_fp))
        assert set(event_starts(data, items, clip, np.random.default_rng(0))) == set(starts)


def test_mode_full_shows_whole_recordings(data):
    batch = batches_of(
        data,
        clip__mode="full",
        augment__p=0.0,
        augment__brightness_contrast=0.0,
        train__batch_size=100,
    )[0]
    items = draw_items(data.annotations, 2, RngKey(7, 0).rng(Purpose.ITEMS))
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
    data = random_fold(0)
    clips = gather_clips(data.frames, data.first_frame, data.n_frames, 510, CPU).numpy()
    for k, length in enumerate(data.n_frames):
        first = data.first_frame[k]
        assert np.array_equal(clips[k, :length], data.frames[first : first + length])
        assert not clips[k, length:].any()


def test_frames_on_a_device_are_gathered_as_from_disk():
    data = random_fold(1)
    arguments = data.first_frame, data.n_frames, 120, CPU
    from_tensor = gather_clips(torch.from_numpy(data.frames), *arguments)
    assert torch.equal(from_tensor, gather_clips(data.frames, *arguments))


def test_frames_of_two_caches_are_gathered_and_copied_as_if_they_were_one(monkeypatch):
    data = random_fold(3)
    joined = JoinedFrames(data.frames[:70], data.frames[70:])
    arguments = data.first_frame, data.n_frames, 120, CPU
    assert torch.equal(gather_clips(joined, *arguments), gather_clips(data.frames, *arguments))
    monkeypatch.setattr(batches, "COPIED_FRAMES", 50)
    assert np.array_equal(copy_frames(joined, CPU), data.frames)


def test_frames_are_copied_to_a_device_piece_by_piece(monkeypatch):
    data = random_fold(2)
    monkeypatch.setattr(batches, "COPIED_FRAMES", 50)
    assert np.array_equal(copy_frames(data.frames, CPU), data.frames)


def test_frames_stay_on_disk_for_a_cpu_and_where_a_gpu_lacks_the_room(monkeypatch):
    data = random_fold(2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (data.frames.nbytes, 10**12))
    assert on_device(data, CPU) is data
    assert on_device(data, torch.device("cuda")) is data


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="asks Linux for resident pages")
def test_a_mapped_cache_keeps_no_resident_pages(root):
    cache = MelCache.open(root / "mel")
    gather_clips(cache.frames, cache.offsets, cache.n_frames, 150, CPU)
    _, _, mapping = Path("/proc/self/smaps").read_text().partition(str(root / "mel" / "0000.npy"))
    assert "Rss:                   0 kB" in mapping.splitlines()[4]


def epoch_of(data, n_threads=1, fold=0, epoch=0, **changes):
    return BatchSource(data, fit_params(**changes), fold, CPU, n_threads).epoch(epoch)


def batches_of(data, **changes):
    return list(epoch_of(data, **changes))


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


class WatchedKey(RngKey):
    """A moment whose streams are noted as they are drawn from."""

    drawn: ClassVar[list[tuple[RngKey, Purpose]]] = []

    def rng(self, purpose):
        self.drawn.append((self, purpose))
        return super().rng(purpose)


@pytest.mark.parametrize("items", EPOCH_PLANS)
def test_no_two_draws_of_an_epoch_share_a_stream(data, items):
    WatchedKey.drawn.clear()
    source = BatchSource(data, fit_params(train__items=items), 0, CPU, n_threads=1)
    source.moment = WatchedKey(*source.moment)
    n_batches = len(list(source.epoch(0)))
    assert len(WatchedKey.drawn) == len(set(WatchedKey.drawn)) >= 2 * n_batches + 1


def test_a_batch_has_the_shapes_it_promises(data):
    batch = batches_of(data)[0]
    assert batch.image.shape == (4, 64, 32)
    assert batch.image.dtype == torch.float32
    assert [target.shape for target in batch.targets] == [(4, 3), (4, 64, 3)] * 2 + [(4, 32, 3)] * 2


WINDOWS = {"train__items": "windows"}


def test_an_epoch_says_how_many_clips_and_batches_it_has(data):
    for changes in ({}, WINDOWS, WINDOWS | {"train__skip_unlabeled": False}):
        shown = epoch_of(data, **changes)
        made = list(shown)
        assert shown.n_batches == len(made)
        assert shown.n_items == sum(len(batch.image) for batch in made)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_batches_of_windows_depend_on_seed_fold_and_epoch_only(data, n_threads):
    first = batches_of(data, **WINDOWS)
    torch.manual_seed(99)
    assert are_equal(first, batches_of(data, n_threads=n_threads, **WINDOWS))
    for change in ({"seed": 8}, {"fold": 1}, {"epoch": 1}):
        other = batches_of(data, **WINDOWS, **change)
        assert len(first) != len(other) or not are_equal(first, other)


def test_windows_have_a_label_each_unless_the_others_are_shown_too(data):
    kept, everything = (
        batches_of(data, **WINDOWS, train__skip_unlabeled=skip, mixup__mode="none") for skip in (True, False)
    )
    n_labeled = [
        torch.cat([batch.targets.clip_labeled.amax(dim=1) for batch in made]).gt(0).sum().item()
        for made in (kept, everything)
    ]
    assert n_labeled[0] == n_labeled[1] == sum(len(batch.image) for batch in kept)
    assert sum(len(batch.image) for batch in everything) > n_labeled[1]


def test_a_batch_of_windows_shows_the_windows_that_were_drawn(data):
    plain = {"augment__p": 0.0, "augment__brightness_contrast": 0.0}
    made = batches_of(data, **WINDOWS, **plain)
    streams = Streams(*map(RngKey(7, 0).rng, (Purpose.ITEMS, Purpose.PHASES, Purpose.ORDER)))
    recording, start = draw_windows(data, 64, fit_params(**WINDOWS).train, streams)
    rows = (data.first_frame[recording] + start)[:, None] + np.arange(64)
    expected = normalise(to_unit(torch.from_numpy(np.asarray(data.frames[rows]))))
    assert torch.equal(torch.cat([batch.image for batch in made]), expected)
    targets = build_targets(data, recording, start, 64, ALL, CPU)
    for name, cells in targets._asdict().items():
        assert torch.equal(torch.cat([getattr(batch.targets, name) for batch in made]), cells)


def test_windows_of_whole_recordings_are_the_recordings_once_each(data):
    made = batches_of(data, **WINDOWS, clip__mode="full", train__fp_per_epoch=99)
    n_shown = int((data.annotations.n_tp + data.annotations.n_fp > 0).sum())
    assert sum(len(batch.image) for batch in made) == n_shown
    assert all(batch.image.shape[1] == 150 for batch in made)


def test_the_weight_of_pseudo_labels_reaches_the_targets(root):
    clips = clips_table(annotation("r02", "tp", "a", 0, 5), annotation("r01", "pseudo", "07", 40, 60))
    made = batches_of(choose_fold(root, clips), train__pseudo_weight=0.25, **WINDOWS)
    values = torch.cat([batch.targets.clip_labeled for batch in made]).unique()
    assert values.tolist() == [0.0, 0.25, 1.0]


def test_every_kind_of_items_of_the_params_is_in_its_table():
    assert set(EPOCH_PLANS) == set(TrainParams.model_fields["items"].annotation.__args__)
