"""Encoding of recordings as uint8 frames."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from threadpoolctl import threadpool_limits

from callboard.core.console import warn
from callboard.core.errors import UserError
from callboard.core.machine import in_gb, memory_limit, named_if_out_of_memory, refuse_more_memory
from callboard.core.threads import VARIABLE, ahead
from callboard.data.audio import BadRecording, read_recording, resampled_length
from callboard.data.content_digests import content_digest
from callboard.data.recordings import Recording
from callboard.features.frame_cache import EncodedRecording
from callboard.features.front_ends import frames_of
from callboard.params.features import FrontEndParams

FLOAT32 = 4
"""Bytes of a sample or level."""

SHORTER_RECORDINGS = f"set {VARIABLE}=1 or cut the recording into shorter files"
"""Remedy for a recording that needs too much memory."""


def frames_in(recording: Recording, front_end: FrontEndParams) -> int:
    """Return the number of frames of a recording, after resampling if needed."""
    n_samples = resampled_length(recording.n_samples, recording.sample_rate, front_end.audio.sample_rate)
    return frames_of(front_end).count(n_samples)


def memory_of(recording: Recording, front_end: FrontEndParams) -> int:
    """Return the bytes at the peak of encoding a recording, which is held as a whole, within 2 %.

    The largest of three moments: resampling; the padded copy beside the log-mel frames; their quantisation.
    Of embeddings only the first is known.
    """
    n_samples, rate = recording.n_samples, front_end.audio.sample_rate
    n_resampled = resampled_length(n_samples, recording.sample_rate, rate)
    resampling = FLOAT32 * (n_samples + n_resampled * (recording.sample_rate != rate))
    if front_end.features.kind != "log_mel":
        return resampling
    n_levels = frames_in(recording, front_end) * frames_of(front_end).n_rows
    transform = FLOAT32 * (2 * n_resampled + n_levels)
    quantisation = FLOAT32 * (n_resampled + 2 * n_levels) + n_levels
    return max(resampling, transform, quantisation)


def refuse_too_long(recordings: Sequence[Recording], front_end: FrontEndParams, n_workers: int) -> None:
    """Refuse a recording that needs more memory than there is; warn if the longest do, side by side.

    Raises:
        UserError: It names the longest recording.
    """
    needed = sorted((memory_of(recording, front_end), recording) for recording in recordings)[-n_workers:]
    for n_bytes, longest in needed[-1:]:
        refuse_more_memory(f"recording {longest.recording_id}", n_bytes, "cut it into shorter files")
    if (total := sum(n_bytes for n_bytes, _ in needed)) > memory_limit():
        warn(
            f"the {len(needed)} longest recordings need {in_gb(total)} of memory side by side, of "
            f"{in_gb(memory_limit())} in all; if this is killed, {SHORTER_RECORDINGS}"
        )


def encode_recording(recording: Recording, front_end: FrontEndParams) -> EncodedRecording | BadRecording:
    """Decode a recording and make its frames; return a BadRecording if it cannot be used.

    Raises:
        UserError: The file has changed since prepare read it.
    """
    _refuse_changed(recording)
    audio, frames = front_end.audio, frames_of(front_end)
    hours = recording.n_samples / recording.sample_rate / 3600
    with named_if_out_of_memory(f"recording {recording.recording_id} of {hours:.1f} h", SHORTER_RECORDINGS):
        try:
            waveform = read_recording(recording.path, audio.sample_rate, audio.on_other_rate, frames.f_max)
        except BadRecording as bad:
            return BadRecording(recording.recording_id, bad.reason)
        if reason := frames.refusal(len(waveform)):
            return BadRecording(recording.recording_id, reason)
        return EncodedRecording(recording.recording_id, *frames.encode(waveform))


def encode_recordings(
    recordings: Sequence[Recording], front_end: FrontEndParams, n_workers: int
) -> Iterator[EncodedRecording | BadRecording]:
    """Encode recordings, in order, on `n_workers` threads, at most two recordings ahead per thread.

    Decoding, FFT, matrix product and embedding release the GIL. BLAS gets one thread per worker, so that
    workers do not compete for cores and the results do not depend on the number of workers.
    """
    encode = partial(encode_recording, front_end=front_end)
    with threadpool_limits(1, user_api="blas"):
        yield from ahead(encode, recordings, n_workers, n_ahead=2 * n_workers)


def encode_files(
    files: Sequence[tuple[str, Path]], front_end: FrontEndParams, n_workers: int
) -> Iterator[tuple[EncodedRecording | BadRecording, float]]:
    """Encode files by name, in order, each with its length in seconds; see `encode_recordings`.

    What they contain is not compared with an earlier look at them, as it is for recordings of the pipeline.
    """
    encode = partial(_encode_file, front_end=front_end)
    with threadpool_limits(1, user_api="blas"):
        yield from ahead(encode, files, n_workers, n_ahead=2 * n_workers)


def _encode_file(
    file: tuple[str, Path], front_end: FrontEndParams
) -> tuple[EncodedRecording | BadRecording, float]:
    name, path = file
    audio, frames = front_end.audio, frames_of(front_end)
    with named_if_out_of_memory(f"recording {name}", SHORTER_RECORDINGS):
        try:
            waveform = read_recording(path, audio.sample_rate, audio.on_other_rate, frames.f_max)
        except BadRecording as bad:
            return BadRecording(name, bad.reason), 0.0
        if reason := frames.refusal(len(waveform)):
            return BadRecording(name, reason), 0.0
        return EncodedRecording(name, *frames.encode(waveform)), len(waveform) / audio.sample_rate


def _refuse_changed(recording: Recording) -> None:
    is_there = recording.path.is_file()
    if not is_there or content_digest(recording.path) != recording.digest:
        found = "has other content" if is_there else "is missing"
        raise UserError(
            f"recording {recording.recording_id} changed since prepare: {recording.path} {found}; "
            "run `dvc repro` again"
        )
