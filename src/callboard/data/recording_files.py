"""Checks of recordings on disk by their headers alone: thousands per second, before anything is decoded."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import soundfile

from callboard.core.errors import UserError, nearest, one_line
from callboard.core.threads import map_threaded
from callboard.data.audio import LONGEST_SAMPLES, SKIPPED_COLUMNS
from callboard.data.source_tables import RECORDING_COLUMNS
from callboard.data.wav_chunks import wav_damage
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
            UserError: Two files have the same recording_id, or a name is not printable UTF-8.
        """
        files: dict[str, Path] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.suffix.lower() in suffixes and not path.name.startswith("."):
                if any(unicodedata.category(character) in ("Cc", "Cs") for character in path.name):
                    raise UserError(f"{folder}: file name {path.name!r} is not printable UTF-8; rename it")
                if path.stem in files:
                    raise UserError(
                        f"{folder}: {files[path.stem].name} and {path.name} are one recording_id; keep one"
                    )
                files[path.stem] = path
        return cls(subset, folder, suffixes, files)

    def file_of(self, recording_id: str) -> Path | None:
        """Return the file of a recording; None if there is none, or several.

        Without a file of exactly this name, the id can end with a suffix and differ in case and Unicode form.
        """
        matching = self._similar(recording_id)
        return self.files.get(recording_id) or (matching[0] if len(matching) == 1 else None)

    def _similar(self, recording_id: str) -> tuple[Path, ...]:
        name = Path(recording_id)
        stem = recording_id[: -len(name.suffix)] if name.suffix.lower() in self.suffixes else recording_id
        return self._by_plain_name.get(_plain(stem), ())

    @cached_property
    def _by_plain_name(self) -> dict[str, tuple[Path, ...]]:
        found: dict[str, tuple[Path, ...]] = {}
        for name, path in self.files.items():
            found[_plain(name)] = (*found.get(_plain(name), ()), path)
        return found

    @cached_property
    def _in_subfolders(self) -> dict[str, Path]:
        paths = self.path.glob("*/**/*") if self.path.is_dir() else []
        return {path.stem: path for path in paths if path.suffix.lower() in self.suffixes}

    def why_missing(self, recording_id: str) -> str:
        """Return why no file was found, with a guess at how the id was altered."""
        names = " or ".join(f"{self.subset}/{recording_id}{suffix}" for suffix in self.suffixes)
        if similar := self._similar(recording_id):
            found = " and ".join(path.name for path in similar)
            return f"no file {names}, and several that differ only in case or Unicode form: {found}"
        if path := self._in_subfolders.get(Path(recording_id).stem):
            found = path.relative_to(self.path.parent).as_posix()
            return f"no file {names}, but there is {found}: recordings must not be in subfolders"
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


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


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
        raise UserError(_complaint(bad, wanted, near))
    good = [header for header in headers if not header.reason]
    rows = [(h.recording_id, h.subset, h.path, h.n_samples, h.sample_rate, h.n_bytes) for h in good]
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
        info = soundfile.info(path)
    except soundfile.SoundFileError as error:
        return Header(recording_id, subset, path, reason=f"{name} is unreadable: {one_line(error)}")
    reason = ""
    if damage := wav_damage(path):
        reason = f"{name} {damage}"
    elif info.channels != 1:
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
