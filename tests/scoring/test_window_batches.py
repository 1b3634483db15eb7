import numpy as np
import pytest

from callboard.scoring.window_batches import WindowBatches, cut_windows
from tests.toy_models import CLIP, N_MELS, random_cache
from tests.toy_scoring import predict_params


def test_a_short_recording_is_padded_with_quiet():
    frames = np.full((3, 2), 9, dtype=np.uint8)
    windows = cut_windows(frames, np.array([0]), 5)
    np.testing.assert_array_equal(windows[0, :, 0], [9, 9, 9, 0, 0])


@pytest.mark.parametrize("mel_rows", [None, (3, 9)])
def test_batches_hold_every_window_with_its_place(tmp_path, mel_rows):
    cache = random_cache(tmp_path, {"a": 150, "b": 40, "c": 65})
    params = predict_params()
    batches = WindowBatches.plan(cache, ["c", "a"], CLIP.model_copy(update={"mel_rows": mel_rows}), params)
    assert len(batches) == 2
    first, second = batches
    assert (first.rows, second.rows) == (slice(0, 4), slice(4, 8))
    assert [*first.start_frame, *second.start_frame] == [0, 1, 0, 64, 86]
    assert [*first.recording_frames, *second.recording_frames] == [65, 65, 150, 150, 150]
    visible = slice(*(mel_rows or (0, N_MELS)))
    np.testing.assert_array_equal(first.frames[1], cache.read("c")[1:65, visible])
    np.testing.assert_array_equal(second.frames[0], cache.read("a")[86:, visible])
