import numpy as np
import pytest

from callboard.features.windows import CLIP_LENGTHS, clip_length, plan_windows
from callboard.params.training import ClipParams
from tests.toy_models import CLIP


def window_starts(n_frames, clip_frames, overlap_frames):
    """Of one recording."""
    return plan_windows(np.array([n_frames]), clip_frames, overlap_frames).start_frame


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


def naive_windows(n_frames, clip_frames, overlap_frames):
    """One recording and one window at a time."""
    windows = []
    for recording, length in enumerate(n_frames):
        start = 0
        while start + clip_frames < length:
            windows.append((recording, start))
            start += clip_frames - overlap_frames
        windows.append((recording, max(length - clip_frames, 0)))
    return windows


@pytest.mark.parametrize("overlap", [0, 9, 63])
def test_windows_of_many_recordings_equal_the_naive_twin(overlap):
    n_frames = np.array([64, 1, 500, 63, 128, 129, 65])
    windows = plan_windows(n_frames, 64, overlap)
    assert list(zip(*map(np.ndarray.tolist, windows), strict=True)) == naive_windows(n_frames, 64, overlap)


def test_no_recordings_have_no_windows():
    windows = plan_windows(np.empty(0, dtype=np.int64), 64, 10)
    assert windows.recording.shape == windows.start_frame.shape == (0,)


@pytest.mark.parametrize("overlap", [64, 70, -1])
def test_an_overlap_without_a_step_forward_is_refused(overlap):
    with pytest.raises(ValueError, match="overlap_frames must be in"):
        window_starts(300, 64, overlap)


@pytest.mark.parametrize("overlap", [0, 64, 500])
def test_recordings_no_longer_than_a_window_have_one_whatever_the_overlap(overlap):
    assert plan_windows(np.array([64, 20]), 64, overlap).start_frame.tolist() == [0, 0]


def test_clips_are_as_long_as_set_or_as_the_longest_recording():
    n_frames = np.array([100, 300, 20])
    assert clip_length(CLIP, n_frames) == CLIP.n_frames
    assert clip_length(CLIP.model_copy(update={"mode": "full"}), n_frames) == 300


def test_every_clip_mode_of_the_params_has_a_length():
    assert set(CLIP_LENGTHS) == set(ClipParams.model_fields["mode"].annotation.__args__)
