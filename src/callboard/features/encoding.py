"""Encoding of recordings as uint8 frames."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from threadpoolctl import threadpool_limits

from callboard.core.console import counted, warn
from callboard.core.errors import UserError
from callboard.core.machine import in_gb, memory_limit, named_if_out_of_memory
from callboard.core.threads import VARIABLE, ahead
from callboard.data.audio import PIECE_SAMPLES, BadRecording, open_recording, resampled_length
from callboard.data.content_digests import content_digest
from callboard.data.recordings import Recording
from callboard.features.frame_cache import EncodedRecording
from callboard.features.frame_spool import SPOOL_BYTES
from callboard.features.front_ends import frames_of
from callboard.params.features import FrontEndParams

FLOAT32 = 4
"""Bytes of a sample or level."""

AHEAD = 2
"""Recordings per thread that are in work, or wait to be written."""

FEWER_AT_ONCE = f"set {VARIABLE}=1"
"""Remedy for recordings that need too much memory side by side."""


def frames_in(recording: Recording, front_end: FrontEndParams) -> int:
    """Return the number of frames of a recording, after resampling if needed."""
    n_samples = resampled_length(recording.n_samples, recording.sample_rate, front_end.audio.sample_rate)
    return frames_of(front_end).count(n_samples)


def memory_of(recording: Recording, front_end: FrontEndParams) -> int:
    """Return the bytes at the peak of encoding a recording: within 15 %, or up to twice of one in pieces.

    The larger of two moments: a piece of the recording before and after resampling, a padded copy of it and
    the frames so far, unless a file has them; all frames and their levels. Of embeddings the network's own
    memory is not known.
    """
    own_rate, rate = recording.sample_rate, front_end.audio.sample_rate
    n_samples = min(recording.n_samples, int(PIECE_SAMPLES * min(own_rate / rate, 1)))
    n_resampled = resampled_length(n_samples, own_rate, rate)
    copies = 2 * n_resampled + n_samples * (own_rate != rate)
    if n_samples < recording.n_samples:  # the next piece meets what is left of the one before
        copies += copies // 2
    spooled = min(_spooled_bytes(recording, front_end), SPOOL_BYTES)
    return max(FLOAT32 * copies + spooled, spooled + spooled // 2)


def file_bytes(recordings: Sequence[Recording], front_end: FrontEndParams, n_workers: int) -> int:
    """Return the bytes on disk that frames take at most while they are made, besides those of the packs."""
    spooled = sorted(_spooled_bytes(recording, front_end) for recording in recordings)
    return sum(n_bytes for n_bytes in spooled[-AHEAD * n_workers :] if n_bytes > SPOOL_BYTES)


def _spooled_bytes(recording: Recording, front_end: FrontEndParams) -> int:
    frames, rate = frames_of(front_end), front_end.audio.sample_rate
    n_frames = frames.count(resampled_length(recording.n_samples, recording.sample_rate, rate))
    return n_frames * frames.n_rows * frames.spooled_bytes


def warn_of_memory(recordings: Sequence[Recording], front_end: FrontEndParams, n_workers: int) -> None:
    """Warn if the recordings that need most memory do not fit side by side."""
    needed = sorted(memory_of(recording, front_end) for recording in recordings)[-n_workers:]
    if (total := sum(needed)) > memory_limit():
        warn(
            f"{counted(len(needed), 'recording')} side by side need {in_gb(total)} of memory, of "
            f"{in_gb(memory_limit())} in all; if this is killed, {FEWER_AT_ONCE}"
        )


def encode_recording(
    recording: Recording, front_end: FrontEndParams, folder: Path
) -> EncodedRecording | BadRecording:
    """Decode a recording and make its frames; return a BadRecording if it cannot be used.

    Args:
        recording: A recording of any length, which is decoded in pieces.
        front_end: The parameters that frames depend on.
        folder: Folder for a file of frames, if they are many, while they are made.

    Raises:
        UserError: The file has changed since prepare read it.
    """
    _refuse_changed(recording)
    hours = recording.n_samples / recording.sample_rate / 3600
    with named_if_out_of_memory(f"recording {recording.recording_id} of {hours:.1f} h", FEWER_AT_ONCE):
        outcome, _ = _encode((recording.recording_id, recording.path), front_end, folder)
        return outcome


def encode_recordings(
    recordings: Sequence[Recording], front_end: FrontEndParams, folder: Path, n_workers: int
) -> Iterator[EncodedRecording | BadRecording]:
    """Encode recordings, in order, on `n_workers` threads, at most AHEAD recordings ahead per thread.

    Decoding, FFT, matrix product and embedding release the GIL. BLAS gets one thread per worker, so that
    workers do not compete for cores and the results do not depend on the number of workers.
    """
    encode = partial(encode_recording, front_end=front_end, folder=folder)
    with threadpool_limits(1, user_api="blas"):
        yield from ahead(encode, recordings, n_workers, n_ahead=AHEAD * n_workers)


def encode_files(
    files: Sequence[tuple[str, Path]], front_end: FrontEndParams, folder: Path, n_workers: int
) -> Iterator[tuple[EncodedRecording | BadRecording, float]]:
    """Encode files by name, in order, and return the length of each in seconds; see `encode_recordings`.

    Unlike recordings of the pipeline, they are not compared with an earlier look at them.
    """
    encode = partial(_encode, front_end=front_end, folder=folder)
    with threadpool_limits(1, user_api="blas"):
        yield from ahead(encode, files, n_workers, n_ahead=AHEAD * n_workers)


def _encode(
    file: tuple[str, Path], front_end: FrontEndParams, folder: Path
) -> tuple[EncodedRecording | BadRecording, float]:
    (name, path), frames = file, frames_of(front_end)
    try:
        with open_recording(path, front_end.audio, frames.f_max) as sound:
            if reason := frames.refusal(sound.n_samples):
                for _ in sound.pieces:  # damage is worse
                    pass
                return BadRecording(name, reason), 0.0
            length_s = sound.n_samples / front_end.audio.sample_rate
            return EncodedRecording(name, *frames.encode(sound, folder)), length_s
    except BadRecording as bad:
        return BadRecording(name, bad.reason), 0.0


def _refuse_changed(recording: Recording) -> None:
    is_there = recording.path.is_file()
    if not is_there or content_digest(recording.path) != recording.digest:
        found = "has other content" if is_there else "is missing"
        raise UserError(
            f"recording {recording.recording_id} changed since prepare: {recording.path} {found}; "
            "run `dvc repro` again"
        )
