import numpy as np
import pandas as pd
import pytest
import torch

from callboard.checkpoint import LoadedModel
from callboard.errors import UserError
from callboard.image import normalise, to_unit
from callboard.mel_cache import EncodedRecording, MelCache, write_cache
from callboard.params.scoring import PredictParams
from callboard.predict import (
    cut_windows,
    load_fold_models,
    score_out_of_fold,
    score_recordings,
    window_starts,
)
from callboard.scores import HEADS
from tests.toy_models import CLIP, N_MELS, SPECIES, loudness_model, random_cache, save_fold, tiny_network

CPU = torch.device("cpu")
PARAMS = PredictParams(overlap_frames=10, batch_size=5)


@pytest.fixture
def cache(tmp_path):
    return random_cache(tmp_path, {"a": 300, "b": 64, "c": 40, "d": 65, "e": 129})


@pytest.mark.parametrize("overlap", [0, 1, 13, 63])
@pytest.mark.parametrize("n_frames", [1, 63, 64, 65, 127, 128, 129, 500])
def test_windows_cover_every_frame_and_never_pass_the_end(n_frames, overlap):
    starts = window_starts(n_frames, 64, overlap)
    seen = np.unique(starts[:, None] + np.arange(64))
    assert set(range(n_frames)) <= set(seen)
    assert starts[-1] == max(n_frames - 64, 0)
    assert (np.diff(starts) > 0).all()


def test_windows_of_a_minute_by_hand():
    assert window_starts(3751, 512, 51).tolist() == [0, 461, 922, 1383, 1844, 2305, 2766, 3227, 3239]


def test_windows_that_fit_exactly_are_not_doubled():
    assert window_starts(184, 64, 4).tolist() == [0, 60, 120]


@pytest.mark.parametrize("overlap", [64, 70, -1])
def test_an_overlap_without_a_step_forward_is_refused(overlap):
    with pytest.raises(ValueError, match="overlap_frames must be in"):
        window_starts(300, 64, overlap)


def test_a_short_recording_is_padded_with_quiet():
    frames = np.full((3, 2), 9, dtype=np.uint8)
    windows = cut_windows(frames, np.array([0]), 5)
    np.testing.assert_array_equal(windows[0, :, 0], [9, 9, 9, 0, 0])


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_scores_equal_a_plain_loop_over_recordings_and_windows(cache, batch_size, monkeypatch):
    monkeypatch.setattr("callboard.device.has_bfloat16", lambda device: False)
    networks = [tiny_network(0), tiny_network(1)]
    models = [LoadedModel(network, SPECIES, fold, CLIP, frozenset()) for fold, network in enumerate(networks)]
    params = PredictParams(overlap_frames=10, batch_size=batch_size)
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


def test_each_recording_is_read_once_for_all_models(cache, monkeypatch):
    read = []
    plain = MelCache.read
    monkeypatch.setattr(MelCache, "read", lambda self, name: read.append(name) or plain(self, name))
    score_recordings([loudness_model(0), loudness_model(1)], cache, cache.recording_ids, PARAMS, CPU)
    assert read == cache.recording_ids


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
    with pytest.raises(UserError, match="no recording 'zz'"):
        score_recordings([loudness_model(0)], cache, ["zz"], PARAMS, CPU)


def test_fold_models_load_in_order_of_folds(tmp_path):
    for fold in (1, 0):
        save_fold(tmp_path, fold)
    models = load_fold_models(tmp_path, [1, 0], CPU)
    assert [loaded.fold for loaded in models] == [0, 1]
    assert not any(loaded.model.training for loaded in models)


def test_a_fold_without_weights_is_refused(tmp_path):
    save_fold(tmp_path, 0)
    with pytest.raises(UserError, match=r"fold1.pt, fold2.pt missing; the folds are \[0, 1, 2\]"):
        load_fold_models(tmp_path, [0, 1, 2], CPU)


def test_weights_of_a_fold_that_does_not_exist_are_refused(tmp_path):
    for fold in range(3):
        save_fold(tmp_path, fold)
    with pytest.raises(UserError, match=r"fold2\.pt left over"):
        load_fold_models(tmp_path, [0, 1], CPU)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"fold": 0, "name": "fold1.pt"}, "fold1.pt: holds the weights of fold 0, not of fold 1"),
        ({"fold": 1, "species": ["3", "x1", "07"]}, "fold1.pt: trained on species"),
        ({"fold": 1, "clip": CLIP.model_copy(update={"n_frames": 128})}, "trained on clips of 128 frames"),
    ],
)
def test_weights_that_do_not_belong_together_are_refused(tmp_path, odd, message):
    save_fold(tmp_path, 0)
    save_fold(tmp_path, **odd)
    with pytest.raises(UserError, match=message):
        load_fold_models(tmp_path, [0, 1], CPU)
