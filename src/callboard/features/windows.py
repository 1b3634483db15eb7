"""Which windows of recordings a network looks at, and how long they are: pure arithmetic, in frames."""

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
"""By clip.mode: from the section and the lengths of all recordings of a set to the length of its clips."""


def clip_length(clip: ClipParams, n_frames: Integers) -> int:
    """Frames of a clip, at least 1.

    Args:
        clip: The `clip` section.
        n_frames: (recordings,) lengths of the whole set, not of a part of it: in mode full a network's output
            depends on the padding, which must not depend on what else a batch or a fold holds.
    """
    return CLIP_LENGTHS[clip.mode](clip, n_frames)


class Windows(NamedTuple):
    """Windows of recordings: planned ones in order, those of a training epoch shuffled."""

    recording: Integers
    """(windows,) index of the recording."""
    start_frame: Integers
    """(windows,) first frame in the recording."""


def plan_windows(n_frames: Integers, clip_frames: int, overlap_frames: int) -> Windows:
    """Windows that together cover each recording.

    Neighbours share `overlap_frames`; the last window is moved back to end with the recording, so that no
    frame stays unseen and none is padded. A recording shorter than a clip gets one window, to be padded.

    Args:
        n_frames: (recordings,) their lengths.
        clip_frames: Length of a window.
        overlap_frames: Of no effect where no recording is longer than a window.

    Raises:
        ValueError: a recording needs several windows, and the overlap leaves no step forward.
    """
    last = np.maximum(n_frames - clip_frames, 0)  # (recordings,) where the last window starts
    if last.any() and not 0 <= overlap_frames < clip_frames:
        raise ValueError(f"overlap_frames must be in [0, clip_frames {clip_frames}), found {overlap_frames}")
    step = max(clip_frames - overlap_frames, 1)
    n_windows = -(-last // step) + 1
    recording = np.repeat(np.arange(len(n_frames)), n_windows)
    position = np.arange(len(recording)) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
    return Windows(recording, np.minimum(position * step, last[recording]))


def windows_from(n_frames: Integers, clip_frames: int, phase: Integers) -> Windows:
    """Windows side by side that together cover each recording, `phase` frames of the first lying before it.

    The first and the last are moved inside the recording, so that no frame is padded. A recording no longer
    than a window gets one, to be padded.

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
