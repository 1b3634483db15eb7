"""Windows of whole recordings, cut from the cache a batch at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from callboard.features.frame_cache import MelCache
from callboard.features.windows import clip_length, plan_windows
from callboard.params.scoring import PredictParams
from callboard.params.training import ClipParams


class WindowBatch(NamedTuple):
    """Windows of one forward pass."""

    rows: slice
    """Positions among all windows."""
    frames: NDArray[np.uint8]
    """(batch, frames, visible mels)."""
    start_frame: NDArray[np.int32]
    """(batch,) first frame of each window in its recording."""
    recording_frames: NDArray[np.int64]
    """(batch,) length of each window's recording."""


@dataclass(frozen=True)
class WindowBatches:
    """The N windows of some recordings; windows of a recording are adjacent, and recordings are in order."""

    cache: MelCache
    recording_ids: list[str]
    n_frames: NDArray[np.int64]
    """(recordings,) their lengths."""
    recording: NDArray[np.int32]
    """(N,) index into recording_ids."""
    start_frame: NDArray[np.int32]
    """(N,) first frame in the recording."""
    clip_frames: int
    """Length of a window."""
    visible_mels: slice
    """The mel rows that the network sees."""
    n_together: int
    """Number of windows in a batch."""

    @classmethod
    def plan(
        cls, cache: MelCache, recording_ids: Sequence[str], clip: ClipParams, params: PredictParams
    ) -> Self:
        """Plan the windows of some recordings of a cache, for networks trained with the `clip` section.

        Raises:
            UserError: A recording is not in the cache.
        """
        n_frames = cache.n_frames[np.array([cache.row(name) for name in recording_ids], dtype=np.int64)]
        clip_frames = clip_length(clip, cache.n_frames)
        windows = plan_windows(n_frames, clip_frames, params.overlap_frames)
        return cls(
            cache=cache,
            recording_ids=list(recording_ids),
            n_frames=n_frames,
            recording=windows.recording.astype(np.int32),
            start_frame=windows.start_frame.astype(np.int32),
            clip_frames=clip_frames,
            visible_mels=clip.visible_mels,
            # longer windows, such as whole recordings, must not need more memory
            n_together=max(params.batch_size * clip.n_frames // clip_frames, 1),
        )

    def __len__(self) -> int:
        return -(-len(self.recording) // self.n_together)

    def __iter__(self) -> Iterator[WindowBatch]:
        """Yield batches, which can span recordings; of a long recording only a batch's windows are read."""
        for first in range(0, len(self.recording), self.n_together):
            rows = slice(first, first + self.n_together)
            recording, start_frame = self.recording[rows], self.start_frame[rows]
            pieces = [self._read(row, start_frame[recording == row]) for row in np.unique(recording)]
            frames = np.concatenate(pieces)[:, :, self.visible_mels]
            yield WindowBatch(rows, frames, start_frame, self.n_frames[recording])

    def _read(self, row: int, start_frames: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Read windows of a recording, in ascending order."""
        first = int(start_frames[0])
        span = slice(first, int(start_frames[-1]) + self.clip_frames)
        frames = self.cache.read(self.recording_ids[row], span)
        return cut_windows(frames, start_frames - first, self.clip_frames)


def cut_windows(
    frames: NDArray[np.uint8], start_frames: NDArray[np.integer], clip_frames: int
) -> NDArray[np.uint8]:
    """Cut (windows, clip_frames, mels) from (frames, mels), padded at the end with 0, the lowest level."""
    beyond_end = max(clip_frames - len(frames), 0)
    padded = np.pad(frames, ((0, beyond_end), (0, 0))) if beyond_end else frames
    windows: NDArray[np.uint8] = padded[start_frames[:, None] + np.arange(clip_frames)]
    return windows
