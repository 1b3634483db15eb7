"""Positions and lengths of the windows of recordings that a network sees: pure arithmetic, in frames."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from callboard.params.training import ClipParams

Integers = NDArray[np.int64]


CLIP_LENGTHS: dict[str, Callable[[ClipParams, Integers], int]] = {
    "event": lambda clip, n_frames: clip.n_frames,
    "full": lambda clip, n_frames: int(n_frames.max(initial=1)),
}
"""By clip.mode, the function from the section and the lengths of a set's recordings to its clips' length."""


def clip_length(clip: ClipParams, n_frames: Integers) -> int:
    """Return the length of a clip in frames, at least 1.

    Args:
        clip: The `clip` section.
        n_frames: (recordings,) lengths of the whole set, not a part: in mode full a network's output depends
            on the padding, which must not depend on the other recordings of a batch or fold.
    """
    return CLIP_LENGTHS[clip.mode](clip, n_frames)


class Windows(NamedTuple):
    """Windows of recordings: in order if planned, shuffled in a training epoch."""

    recording: Integers
    """(windows,) index of the recording."""
    start_frame: Integers
    """(windows,) first frame in the recording."""


def plan_windows(n_frames: Integers, clip_frames: int, overlap_frames: int) -> Windows:
    """Return windows that together cover each recording.

    Neighbours share `overlap_frames`; the last window is moved back to end with the recording, so that every
    frame is seen and none is padded. A recording shorter than a clip gets one window, to be padded.

    Args:
        n_frames: (recordings,) their lengths.
        clip_frames: Length of a window.
        overlap_frames: Has no effect if no recording is longer than a window.

    Raises:
        ValueError: A recording needs several windows, but the overlap is negative or leaves no step forward.
    """
    last = np.maximum(n_frames - clip_frames, 0)  # (recordings,) start of the last window
    if last.any() and not 0 <= overlap_frames < clip_frames:
        raise ValueError(f"overlap_frames must be in [0, clip_frames {clip_frames}), found {overlap_frames}")
    step = max(clip_frames - overlap_frames, 1)
    n_windows = -(-last // step) + 1
    recording = np.repeat(np.arange(len(n_frames)), n_windows)
    position = np.arange(len(recording)) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
    return Windows(recording, np.minimum(position * step, last[recording]))


def windows_from(n_frames: Integers, clip_frames: int, phase: Integers) -> Windows:
    """Return adjacent windows that together cover each recording; the first starts `phase` frames before it.

    The first and the last are then moved inside the recording, so that no frame is padded. A recording no
    longer than a window gets one window, to be padded.

    Args:
        n_frames: (recordings,) their lengths.
        clip_frames: Length of a window.
        phase: (recordings,) in [0, clip_frames).
    """
    last = np.maximum(n_frames - clip_frames, 0)
    n_windows = np.where(last > 0, -(-(n_frames + phase) // clip_frames), 1)
    recording = np.repeat(np.arange(len(n_frames)), n_windows)
    position = np.arange(len(recording)) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
    return Windows(recording, np.clip(position * clip_frames - phase[recording], 0, last[recording]))
