"""Frames of one recording while they are made: in memory as long as they are few, then in a file."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

SPOOL_BYTES = 64_000_000
"""Bytes of a recording's frames up to which they stay in memory: an hour of log-mel at default settings."""

ToLevels = Callable[[NDArray[Any]], NDArray[np.uint8]]
"""Function from frames as they are spooled to levels of the same shape."""


class EncodedFrames(Protocol):
    """The frames (n_frames, n_rows) of a recording: an array, or rows of a file."""

    def __len__(self) -> int:
        """Return the number of frames."""

    def __getitem__(self, span: slice, /) -> NDArray[np.uint8]:
        """Return successive frames."""


class FrameSpool:
    """Blocks (n, n_rows) of frames, all of the same type and number of rows, in order."""

    def __init__(self, folder: Path) -> None:
        """Start without frames.

        Args:
            folder: Folder for the file, which has no name, so that even a killed process leaves none behind.
        """
        self._folder = folder
        self._blocks: list[NDArray[Any]] = []
        self._n_frames = self._n_bytes = 0
        self._file: IO[bytes] | None = None

    def append(self, block: NDArray[Any]) -> None:
        """Add a block of frames; from SPOOL_BYTES on, move all to the file.

        Raises:
            OSError: The disk is full.
        """
        self._blocks.append(block)
        self._n_frames += len(block)
        self._n_bytes += block.nbytes
        if self._n_bytes > SPOOL_BYTES:
            self._write()

    def levels(self, to_levels: ToLevels) -> EncodedFrames:
        """Return all frames as levels; those in the file become levels only when they are read."""
        if self._file is None:
            return np.concatenate([to_levels(block) for block in self._blocks])
        return _SpooledFrames(self, to_levels)

    def __len__(self) -> int:
        return self._n_frames

    def read(self, span: slice) -> NDArray[Any]:
        """Read successive frames from the file."""
        start, stop, _ = span.indices(self._n_frames)
        sample, file = self._blocks[0], self._file
        assert file is not None
        frame_bytes = sample.itemsize * sample.shape[1]
        file.seek(start * frame_bytes)
        content = file.read(max(stop - start, 0) * frame_bytes)
        return np.frombuffer(content, sample.dtype).reshape(-1, sample.shape[1])

    def _write(self) -> None:
        if self._file is None:
            self._file = TemporaryFile(dir=self._folder)  # noqa: SIM115 - open as long as the frames are needed
            weakref.finalize(self, self._file.close)
        for block in self._blocks:
            self._file.write(np.ascontiguousarray(block).data)
        self._blocks = [self._blocks[0][:0]]  # for type and rows


@dataclass(frozen=True)
class _SpooledFrames:
    spool: FrameSpool
    to_levels: ToLevels

    def __len__(self) -> int:
        return len(self.spool)

    def __getitem__(self, span: slice, /) -> NDArray[np.uint8]:
        return self.to_levels(self.spool.read(span))
