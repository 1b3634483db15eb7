"""Checks of recordings on disk by their headers alone: thousands per second, before anything is decoded."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import soundfile

from callboard.core.errors import UserError, one_line
from callboard.core.threads import map_threaded
from callboard.data.audio import LONGEST_SAMPLES, SKIPPED_COLUMNS
from callboard.data.source_tables import RECORDING_COLUMNS
from callboard.params.features import AudioParams

NUMBER_OF_A_SPREADSHEET = re.compile(r"\d(\.\d+)?[eE]\+\d+|\d+\.0")
"""Form of ids like 838227e71 and 055088446 after a program read them as numbers; intact ids do not match."""


@dataclass(frozen=True)
class FolderOfRecordings:
    """The recordings of one subset."""

    subset: str
    path: Path
    suffixes: tuple[str, ...]
    files: dict[str, Path]
    """Path of each recording, by recording_id."""

    @classmethod
    def list(cls, folder: Path, subset: str, suffixes: tuple[str, ...]) -> "FolderOfRecordings":
        """List the recordings in a folder, without hidden files; a missing folder counts as empty.

        Raises:
            UserError: Two files have the same recording_id.
        """
        files: dict[str, Path] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.suffix.lower() in suffixes and not path.name.startswith("."):
                if path.stem in files:
                    raise UserError(
                        f"{folder}: {files[path.stem].name} and {path.name} are one recording_id; keep one"
                    )
                files[path.stem] = path
        return cls(subset, folder, suffixes, files)

    def why_missing(self, recording_id: str) -> str:
        """Return why no file was found, with a guess at how the id was altered."""
        names = " or ".join(f"{self.subset}/{recording_id}{suffix}" for suffix in self.suffixes)
        padded = [name for name in self.files if name.lstrip("0") == recording_id and recording_id.isdigit()]
        if padded:
            return (
                f"no file {names}, but there is {padded[0]}: the id lost its leading zeros, "
                "as when a spreadsheet saved the table; restore the original table"
            )
        if NUMBER_OF_A_SPREADSHEET.fullmatch(recording_id):
            return (
                f"no file {names}; the id looks like a number that a spreadsheet made of it; "
                "restore the original table"
            )
        return f"no file {names}"


@dataclass(frozen=True)
class Header:
    """Contents of a recording's header; `reason` says why the recording cannot be used, "" if it can."""

    recording_id: str
    subset: str
    path: Path | None = None
    n_samples: int = 0
    sample_rate: int = 0
    n_bytes: int = 0
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
    """
    jobs = [(folders[subset], recording_id) for subset, ids in wanted for recording_id in ids]
    look = _looker(audio)
    headers = list(map_threaded(look, jobs, label="recordings", unit="headers"))
    bad = [header for header in headers if header.reason]
    if bad and on_bad_recording == "error":
        raise UserError(_complaint(bad, wanted))
    good = [header for header in headers if not header.reason]
    rows = [(h.recording_id, h.subset, h.path, h.n_samples, h.sample_rate, h.n_bytes) for h in good]
    skipped = [(h.recording_id, h.subset, h.reason) for h in bad]
    return pd.DataFrame(rows, columns=RECORDING_COLUMNS), pd.DataFrame(skipped, columns=SKIPPED_COLUMNS)


def _looker(audio: AudioParams) -> Callable[[tuple[FolderOfRecordings, str]], Header]:
    def look(job: tuple[FolderOfRecordings, str]) -> Header:
        folder, recording_id = job
        path = folder.files.get(recording_id)
        if path is None:
            return Header(recording_id, folder.subset, reason=folder.why_missing(recording_id))
        return read_header(recording_id, folder.subset, path, audio)

    return look


def read_header(recording_id: str, subset: str, path: Path, audio: AudioParams) -> Header:
    """Read a file's header; `reason` is set if the recording cannot be used."""
    name = f"{subset}/{path.name}"
    try:
        info = soundfile.info(path)
    except soundfile.SoundFileError as error:
        return Header(recording_id, subset, path, reason=f"{name} is unreadable: {one_line(error)}")
    reason = ""
    if info.channels != 1:
        reason = f"{name} has {info.channels} channels, expected one (mono)"
    elif info.frames == 0:
        reason = f"{name} is empty"
    elif info.frames > LONGEST_SAMPLES:
        reason = f"{name} does not state its length in its header; encode it again"
    elif info.samplerate != audio.sample_rate and audio.on_other_rate == "error":
        reason = (
            f"{name} has sample rate {info.samplerate} Hz, expected audio.sample_rate "
            f"{audio.sample_rate} Hz; audio.on_other_rate=resample converts such recordings"
        )
    return Header(recording_id, subset, path, info.frames, info.samplerate, path.stat().st_size, reason)


def _complaint(bad: list[Header], wanted: list[tuple[str, list[str]]]) -> str:
    counts = " and ".join(
        f"{sum(header.subset == subset for header in bad)} of {len(ids)} {subset} recordings"
        for subset, ids in wanted
        if ids
    )
    first = bad[0]
    return (
        f"recording {first.recording_id} ({first.subset}): {first.reason}; {counts} cannot be used; "
        "data.on_bad_recording=skip leaves them out"
    )
