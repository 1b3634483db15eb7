import numpy as np
import pandas as pd
import pytest
import torch

from callboard.core.errors import UserError
from callboard.features.frame_cache import EncodedRecording, MelCache, write_cache
from callboard.features.normalisation import normalise, to_unit
from callboard.model.detector import build_model
from callboard.model.heads import SedOutput
from callboard.model.weights import LoadedModel
from callboard.params.training import AugmentParams
from callboard.scoring.parts import ScoreParams
from callboard.scoring.predict import load_fold_models, score_out_of_fold, score_recordings
from callboard.scoring.window_batches import WindowBatches, cut_windows
from callboard.scoring.window_scores import FREQUENCY_HEADS, HEADS
from tests.toy_models import (
    CLIP,
    MODEL,
    N_MELS,
    SPECIES,
    BandLoudness,
    loudness_model,
    random_cache,
    save_fold,
    tiny_network,
)
from tests.toy_scoring import predict_params

CPU = torch.device("cpu")
MASKS = AugmentParams(
    p=0.5,
    stage="before_norm",
    time_mask=60,
    freq_mask=20,
    gamma=2.0,
    brightness_contrast=1.0,
    freq_crop=None,
    freq_crop_p=0.0,
)


def score_params(seed=1, batch_size=5, tta=0, **augment):
    predict = predict_params(overlap_frames=10, batch_size=batch_size, tta=tta)
    return ScoreParams(seed=seed, augment=MASKS.model_copy(update=augment), predict=predict)


PARAMS = score_params()
FULL = CLIP.model_copy(update={"mode": "full"})
LONGER = CLIP.model_copy(update={"n_frames": 128})
LOWER = CLIP.model_copy(update={"mel_rows": (0, 16)})


def loaded(network, fold=0, clip=CLIP):
    return LoadedModel(network.eval(), SPECIES, fold, clip, frozenset())


@pytest.fixture
def in_float32(monkeypatch):
    monkeypatch.setattr("callboard.model.device.has_bfloat16", lambda device: False)


@pytest.fixture
def cache(tmp_path):
    return random_cache(tmp_path, {"a": 300, "b": 64, "c": 40, "d": 65, "e": 129})


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_scores_equal_a_plain_loop_over_recordings_and_windows(cache, batch_size, in_float32):
    networks = [tiny_network(0), tiny_network(1)]
    models = [loaded(network, fold) for fold, network in enumerate(networks)]
    params = score_params(batch_size=batch_size)
    scores = score_recordings(models, cache, ["e", "c", "a"], params, CPU)

    assert scores.recording_ids == ["e", "c", "a"]
    assert scores.recording.tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 2, 2]
    assert scores.start_frame.tolist() == [0, 54, 65, 0, 0, 54, 108, 162, 216, 236]
    for window, (row, start) in enumerate(zip(scores.recording, scores.start_frame, strict=True)):
        frames = np.zeros((64, N_MELS), dtype=np.uint8)
        piece = cache.read(scores.recording_ids[row])[start : start + 64]
        frames[: len(piece)] = piece
        for column, network in enumerate(networks):
            with torch.no_grad():
                output = network(normalise(to_unit(torch.from_numpy(frames[None]))))
            expected = [output.attention[0], output.max[0], output.segment[0].amax(dim=0)]
            for name, logits in zip(HEADS, expected, strict=True):
                np.testing.assert_allclose(scores.heads[name][window, column], logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 12])
def test_in_full_mode_scores_are_those_of_the_whole_recording(cache, batch_size, in_float32):
    network = tiny_network(0)
    params = score_params(batch_size=batch_size)
    scores = score_recordings([loaded(network, clip=FULL)], cache, ["e", "a", "b"], params, CPU)
    assert scores.recording.tolist() == [0, 1, 2]
    assert scores.start_frame.tolist() == [0, 0, 0]
    for row, name in enumerate(scores.recording_ids):
        frames = np.zeros((300, N_MELS), dtype=np.uint8)  # the longest of the cache
        frames[: len(cache.read(name))] = cache.read(name)
        with torch.no_grad():
            output = network(normalise(to_unit(torch.from_numpy(frames[None]))))
        np.testing.assert_allclose(scores.heads["attention"][row, 0], output.attention[0], rtol=1e-4)
        np.testing.assert_allclose(scores.heads["max"][row, 0], output.max[0], rtol=1e-4)


def test_in_full_mode_a_score_does_not_depend_on_which_recordings_are_asked_for(cache, in_float32):
    alone, together = (
        score_recordings([loaded(tiny_network(0), clip=FULL)], cache, names, PARAMS, CPU)
        for names in (["b"], ["b", "a"])
    )
    np.testing.assert_allclose(alone.heads["max"][0], together.heads["max"][0], rtol=1e-4)


class Witness(BandLoudness):
    """Remembers the shape of what it was shown."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, image):
        self.shapes.append(tuple(image.shape))
        return super().forward(image[:, :16])


def test_a_pass_over_whole_recordings_takes_no_more_frames_than_one_over_clips(cache):
    witness = Witness()
    models = [loaded(witness, clip=FULL)]
    score_recordings(models, cache, cache.recording_ids, score_params(batch_size=10), CPU)
    shapes = sorted(witness.shapes)  # threads share the batches
    assert shapes == [(1, 300, N_MELS), (2, 300, N_MELS), (2, 300, N_MELS)]  # 600 of 640 frames
    witness.shapes.clear()
    score_recordings(models, cache, ["a", "b"], score_params(batch_size=1), CPU)
    assert witness.shapes == [(1, 300, N_MELS)] * 2  # one recording at least


def test_mel_rows_outside_the_clip_have_no_influence(cache, tmp_path):
    (tmp_path / "other").mkdir()
    rows = CLIP.model_copy(update={"mel_rows": (4, 20)})
    altered = []
    for name in cache.recording_ids:
        frames = cache.read(name).copy()
        frames[:, :4] = 255 - frames[:, :4]
        frames[:, 20:] = 7
        altered.append(EncodedRecording(name, frames, -80.0, 0.0))
    write_cache(tmp_path / "other", altered, N_MELS)
    witness = Witness()
    plain = score_recordings([loaded(witness, clip=rows)], cache, ["a", "c"], PARAMS, CPU)
    other = score_recordings(
        [loaded(witness, clip=rows)], MelCache.open(tmp_path / "other"), ["a", "c"], PARAMS, CPU
    )
    assert {shape[2] for shape in witness.shapes} == {16}
    np.testing.assert_array_equal(plain.heads["max"], other.heads["max"])
    short = cache.read("c")[:16, 4:7].mean(axis=0)  # BandLoudness takes its species from the lowest rows
    expected = normalise(to_unit(torch.from_numpy(short)))
    np.testing.assert_allclose(plain.heads["max"][-1, 0], expected, rtol=1e-4)


def test_masked_looks_that_no_coin_chooses_equal_no_looks(cache):
    plain = score_recordings([loaded(tiny_network(0))], cache, ["a", "b"], score_params(), CPU)
    looks = score_recordings([loaded(tiny_network(0))], cache, ["a", "b"], score_params(tta=3, p=0.0), CPU)
    for name in HEADS:
        np.testing.assert_allclose(looks.heads[name], plain.heads[name], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(looks.peak_frame, plain.peak_frame)


def test_masked_looks_are_the_same_for_a_seed_and_others_for_another(cache):
    first, again, other = (
        score_recordings([loaded(tiny_network(0))], cache, ["a"], score_params(seed, tta=2, p=1.0), CPU)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.heads["max"], again.heads["max"])
    assert (first.heads["max"] != other.heads["max"]).any()


class Recorder(torch.nn.Module):
    """A network whose attention logits are numbers of its own choice, one per look; it keeps what it sees."""

    def __init__(self):
        super().__init__()
        self.images = []

    def forward(self, image):
        self.images.append(image.clone())
        look = float(len(self.images))
        clipwise = torch.full((len(image), 3), look)
        segments = torch.full((len(image), 4, 3), 0.0)
        segments[:, 0], segments[:, 1], segments[:, 2] = 10 * (look == 1), 10 * (look == 2), 8.0
        return SedOutput(clipwise, 2 * clipwise, segments, segments, segments)


def test_logits_are_averaged_over_looks_and_those_of_segments_before_the_peak(cache):
    recorder = Recorder()
    scores = score_recordings([loaded(recorder)], cache, ["b"], score_params(tta=2, p=1.0), CPU)
    assert len(recorder.images) == 2
    assert (scores.heads["attention"] == 1.5).all()
    assert (scores.heads["max"] == 3.0).all()
    assert (scores.heads["segment_max"] == 8.0).all()  # not 10: no segment is that loud in both looks
    assert (scores.peak_frame == 2.5 * 16).all()


@pytest.mark.parametrize(
    ("stage", "mask_value"), [("before_norm", normalise(torch.zeros(()))), ("after_norm", 0.0)]
)
def test_looks_differ_from_the_window_only_by_masks(cache, stage, mask_value):
    recorder = Recorder()
    params = score_params(tta=6, p=0.5, stage=stage, batch_size=100)
    score_recordings([loaded(recorder)], cache, ["a"], params, CPU)
    windows = cut_windows(cache.read("a"), np.array([0, 54, 108, 162, 216, 236]), 64)
    plain = normalise(to_unit(torch.from_numpy(windows)))
    masked = torch.stack([image != plain for image in recorder.images])  # (looks, windows, frames, mels)
    changed = torch.stack(recorder.images)[masked]
    assert (changed == mask_value).all()
    assert masked.all(dim=2).any()  # whole mel rows
    assert masked.all(dim=3).any()  # whole frames
    assert not masked.flatten(2).any(dim=2).all()  # and windows without any


def test_a_look_does_not_have_the_masks_of_the_look_before(cache):
    recorder = Recorder()
    params = score_params(tta=6, p=1.0, time_mask=0, batch_size=100)
    score_recordings([loaded(recorder)], cache, ["a"], params, CPU)
    black = torch.stack(recorder.images) == normalise(torch.zeros(()))  # (looks, windows, frames, mels)
    is_masked = black.float().mean(dim=2) > 0.5
    n_spans = (is_masked[..., 1:] & ~is_masked[..., :-1]).sum(dim=2) + is_masked[..., 0]
    assert n_spans.max() == 1


def test_the_frequency_head_is_scored_where_the_models_have_one(cache, in_float32):
    torch.manual_seed(0)
    network = build_model(MODEL.model_copy(update={"frequency_head": True}), 3)
    scores = score_recordings([loaded(network)], cache, ["b"], PARAMS, CPU)
    with torch.no_grad():
        output = network(normalise(to_unit(torch.from_numpy(cache.read("b")[None]))))
    assert tuple(scores.heads) == HEADS + FREQUENCY_HEADS
    np.testing.assert_allclose(
        scores.heads["frequency_attention"][0], output.frequency.attention, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(scores.heads["frequency_max"][0], output.frequency.max, rtol=1e-4, atol=1e-5)


def reads(monkeypatch, work):
    """Return (recording, frames) of each read that some work does."""
    found = []
    plain = MelCache.read

    def read(self, name, span):
        frames = plain(self, name, span)
        found.append((name, len(frames)))
        return frames

    with monkeypatch.context() as patched:
        patched.setattr(MelCache, "read", read)
        work()
    return found


def test_each_window_is_read_once_for_all_models(cache, monkeypatch):
    params = score_params(batch_size=100)
    models = [loudness_model(0), loudness_model(1)]
    found = reads(monkeypatch, lambda: score_recordings(models, cache, cache.recording_ids, params, CPU))
    assert found == list(zip(cache.recording_ids, cache.n_frames.tolist(), strict=True))


def test_a_batch_reads_only_the_part_of_a_recording_that_its_windows_cover(tmp_path, monkeypatch):
    cache = random_cache(tmp_path, {"a": 5000, "b": 30})
    batches = WindowBatches.plan(cache, ["a", "b"], CLIP, score_params(batch_size=8).predict)
    found = np.concatenate([batch.frames for batch in batches])
    assert max(n for _, n in reads(monkeypatch, lambda: list(batches))) <= 8 * CLIP.n_frames
    expected = np.zeros_like(found)
    for row, start, window in zip(batches.recording, batches.start_frame, expected, strict=True):
        piece = cache.read("ab"[row])[start : start + CLIP.n_frames]
        window[: len(piece)] = piece
    np.testing.assert_array_equal(found, expected)


def test_every_recording_is_scored_by_the_model_of_its_own_fold(cache):
    folds = pd.DataFrame({"recording_id": ["a", "b", "c", "d", "e"], "fold": [1, 0, 1, 2, 0]})
    constant = [loudness_model(fold, offset=100.0 * (fold + 1)) for fold in range(3)]
    scores = score_out_of_fold(constant, cache, folds, PARAMS, CPU)
    assert dict(zip(scores.recording_ids, scores.fold, strict=True)) == {
        "a": 1,
        "b": 0,
        "c": 1,
        "d": 2,
        "e": 0,
    }
    by_model = scores.heads["max"][:, 0, 0] // 90
    np.testing.assert_array_equal(by_model, scores.fold[scores.recording] + 1)


def test_a_model_that_has_seen_a_recording_of_its_fold_is_refused(cache):
    folds = pd.DataFrame({"recording_id": ["a", "b"], "fold": [0, 1]})
    honest = loudness_model(0)
    leaking = loudness_model(1)._replace(held_out=frozenset("acde"))
    with pytest.raises(UserError, match=r"fold 1 has trained on 1 recordings .* first b; train again"):
        score_out_of_fold([honest, leaking], cache, folds, PARAMS, CPU)


def test_models_keep_their_order_on_the_model_axis(cache):
    models = [loudness_model(fold, offset=100.0 * fold) for fold in range(3)]
    scores = score_recordings(models, cache, ["a"], PARAMS, CPU)
    heads = scores.heads["attention"].astype(float)
    assert heads.shape == (6, 3, 3)
    np.testing.assert_allclose(heads[:, 1] - heads[:, 0], 100, atol=0.1)
    np.testing.assert_allclose(heads[:, 2] - heads[:, 1], 100, atol=0.2)


def test_the_peak_is_the_centre_of_the_loudest_segment_in_the_recording(tmp_path):
    frames = np.zeros((300, N_MELS), dtype=np.uint8)
    frames[136:140, 1] = 255
    write_cache(tmp_path, [EncodedRecording("a", frames, -80.0, 0.0)], N_MELS)
    scores = score_recordings([loudness_model(0)], MelCache.open(tmp_path), ["a"], PARAMS, CPU)
    in_window = (scores.start_frame <= 136) & (scores.start_frame + 64 >= 140)
    assert scores.start_frame[in_window].tolist() == [108]
    assert scores.peak_frame[in_window, 0, 1].tolist() == [108 + 24]  # second segment of 16 frames


def test_no_recordings_give_no_windows(tmp_path):
    cache = random_cache(tmp_path, {})
    scores = score_recordings([loudness_model(0), loudness_model(1)], cache, [], PARAMS, CPU)
    assert scores.heads["max"].shape == (0, 2, 3)


def test_a_recording_that_is_not_in_the_cache_is_refused(cache):
    with pytest.raises(UserError, match="recording 'zz' is not among"):
        score_recordings([loudness_model(0)], cache, ["zz"], PARAMS, CPU)


def test_fold_models_load_in_order_of_folds(tmp_path):
    for fold in (1, 0):
        save_fold(tmp_path, fold)
    models = load_fold_models(tmp_path, [1, 0], CPU)
    assert [loaded.fold for loaded in models] == [0, 1]
    assert not any(loaded.model.training for loaded in models)


def test_fold_models_without_averaged_weights_are_refused_where_those_are_asked_for(tmp_path):
    save_fold(tmp_path, 0)
    with pytest.raises(UserError, match=r"fold0\.pt: no ema weights"):
        load_fold_models(tmp_path, [0], CPU, "ema")


def test_a_fold_without_weights_is_refused(tmp_path):
    save_fold(tmp_path, 0)
    with pytest.raises(UserError, match=r"fold1.pt, fold2.pt missing; the folds are \[0, 1, 2\]"):
        load_fold_models(tmp_path, [0, 1, 2], CPU)


def test_weights_left_over_from_more_folds_are_named_and_not_used(tmp_path, capsys):
    for fold in range(3):
        save_fold(tmp_path, fold)
    assert [loaded.fold for loaded in load_fold_models(tmp_path, [0, 1], CPU)] == [0, 1]
    assert "fold2.pt left over from other folds than [0, 1], not used" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"fold": 0, "name": "fold1.pt"}, "fold1.pt: holds the weights of fold 0, not of fold 1"),
        ({"fold": 1, "species": ["3", "x1", "07"]}, "fold1.pt: trained on species"),
        ({"fold": 1, "clip": LONGER}, r"trained on clips of .*n_frames=128.* but fold 0 of .*n_frames=64"),
        ({"fold": 1, "clip": LOWER}, r"trained on clips of .*mel_rows=\(0, 16\)"),
    ],
)
def test_weights_that_do_not_belong_together_are_refused(tmp_path, odd, message):
    save_fold(tmp_path, 0)
    save_fold(tmp_path, **odd)
    with pytest.raises(UserError, match=message):
        load_fold_models(tmp_path, [0, 1], CPU)


def test_scores_that_are_nan_name_the_network(cache):
    ruined = tiny_network(1)
    with torch.no_grad():
        next(ruined.parameters()).fill_(torch.nan)
    models = [loaded(tiny_network(0), 0), loaded(ruined, 3)]
    with pytest.raises(UserError, match=r"the network of fold 3 gives scores that are NaN; lower optim.lr"):
        score_recordings(models, cache, ["a"], PARAMS, CPU)
