"""Checks of recordings on disk by their headers alone: thousands per second, before anything is decoded."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import soundfile

from callboard.core.errors import UnreadableFileError, UserError, nearest
from callboard.core.reading import reading
from callboard.core.threads import map_threaded
from callboard.data.audio import LONGEST_SAMPLES, PLAUSIBLE_HZ, SKIPPED_COLUMNS, channel_complaint
from callboard.data.content_digests import content_digests
from callboard.data.recording_folders import FolderOfRecordings
from callboard.data.recordings import RECORDING_COLUMNS
from callboard.data.wav_chunks import wav_damage
from callboard.params.features import AudioParams


@dataclass(frozen=True)
class Header:
    """Contents of a recording's header; `reason` says why the recording cannot be used, "" if it can."""

    recording_id: str
    subset: str
    path: Path | None = None
    n_samples: int = 0
    sample_rate: int = 0
    reason: str = ""


def check_recordings(
    folders: dict[str, FolderOfRecordings],
    wanted: list[tuple[str, list[str]]],
    audio: AudioParams,
    on_bad_recording: str,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the usable recordings (RECORDING_COLUMNS) and the others (SKIPPED_COLUMNS), ordered as `wanted`.

    Args:
        folders: Folder of each subset.
        wanted: Each subset with its ids.
        audio: Expected sample rate.
        on_bad_recording: "error" or "skip".

    Raises:
        UserError: A recording cannot be used and `on_bad_recording` is "error"; names the first, counts all.
            Or two ids are of one recording.
    """
    jobs = [(folders[subset], recording_id) for subset, ids in wanted for recording_id in ids]
    look = _looker(audio)
    headers = list(map_threaded(look, jobs, label="recordings", unit="headers"))
    _refuse_two_ids(headers)
    bad = [header for header in headers if header.reason]
    if bad and on_bad_recording == "error":
        first = bad[0]
        near = "" if first.path else nearest(first.recording_id, folders[first.subset].files)
        raise UserError(_complaint(bad, wanted, near) + _proposed_rate(headers, audio))
    good = [header for header in headers if not header.reason]
    digests = content_digests([header.path for header in good if header.path])
    rows = [
        (
            one.recording_id,
            one.subset,
            folders[one.subset].name_of(one.path),
            one.n_samples,
            one.sample_rate,
            digest,
        )
        for one, digest in zip(good, digests, strict=True)
        if one.path
    ]
    skipped = [(h.recording_id, h.subset, h.reason) for h in bad]
    return pd.DataFrame(rows, columns=RECORDING_COLUMNS), pd.DataFrame(skipped, columns=SKIPPED_COLUMNS)


def _looker(audio: AudioParams) -> Callable[[tuple[FolderOfRecordings, str]], Header]:
    def look(job: tuple[FolderOfRecordings, str]) -> Header:
        folder, recording_id = job
        path = folder.file_of(recording_id)
        if path is None:
            return Header(recording_id, folder.subset, reason=folder.why_missing(recording_id))
        return read_header(recording_id, folder.subset, path, audio)

    return look


def read_header(recording_id: str, subset: str, path: Path, audio: AudioParams) -> Header:
    """Read a file's header; `reason` is set if the recording cannot be used."""
    name = f"{subset}/{path.name}"
    try:
        with reading(name, "a recording"):
            info = soundfile.info(path)
    except UnreadableFileError as error:
        return Header(recording_id, subset, path, reason=f"{name} is unreadable: {error}")
    reason = ""
    if damage := wav_damage(path):
        reason = f"{name} {damage}"
    elif complaint := channel_complaint(info.channels, audio.channel):
        reason = f"{name} has {complaint}"
    elif info.frames == 0:
        reason = f"{name} is empty"
    elif info.frames > LONGEST_SAMPLES:
        reason = f"{name} does not state its length in its header; encode it again"
    elif info.samplerate not in PLAUSIBLE_HZ:
        reason = f"{name} states an implausible sample rate in its header, {info.samplerate} Hz"
    elif info.samplerate != audio.sample_rate and audio.on_other_rate == "error":
        reason = (
            f"{name} has sample rate {info.samplerate} Hz, expected audio.sample_rate "
            f"{audio.sample_rate} Hz; audio.on_other_rate=resample converts such recordings"
        )
    return Header(recording_id, subset, path, info.frames, info.samplerate, reason)


def _refuse_two_ids(headers: list[Header]) -> None:
    by_path: dict[Path, str] = {}
    for header in headers:
        if (
            header.path
            and (other := by_path.setdefault(header.path, header.recording_id)) != header.recording_id
        ):
            raise UserError(
                f"recordings {other!r} and {header.recording_id!r}: both ids match {header.subset}/"
                f"{header.path.name}; write one id everywhere"
            )


def _proposed_rate(headers: list[Header], audio: AudioParams) -> str:
    """Return the rate that most recordings share, as a setting; empty if it is set, or all are converted."""
    rates = Counter(header.sample_rate for header in headers if header.sample_rate in PLAUSIBLE_HZ)
    if audio.on_other_rate != "error" or not rates:
        return ""
    rate, n_recordings = max(rates.items(), key=lambda item: item[::-1])
    if rate == audio.sample_rate:
        return ""
    share = "all" if n_recordings == len(headers) else f"{n_recordings} of {len(headers)}"
    return f"; {share} recordings have {rate} Hz: audio.sample_rate={rate} takes them as they are"


def _complaint(bad: list[Header], wanted: list[tuple[str, list[str]]], near: str) -> str:
    counts = " and ".join(
        f"{sum(header.subset == subset for header in bad)} of {len(ids)} {subset} recordings"
        for subset, ids in wanted
        if ids
    )
    first = bad[0]
    return (
        f"recording {first.recording_id} ({first.subset}): {first.reason}{near}; {counts} cannot be used; "
        "data.on_bad_recording=skip leaves them out"
    )
