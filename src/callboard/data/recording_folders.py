"""The folders of recordings: where they are, and which file is which recording, by their names alone."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from callboard.core.console import counted, first_few
from callboard.core.errors import UserError
from callboard.core.workspace import workspace_path
from callboard.params.data import DataParams

RECORDING_SUFFIXES = (
    *(".flac", ".wav", ".ogg", ".mp3", ".aif", ".aiff"),
    *(".aifc", ".au", ".caf", ".oga", ".opus", ".rf64", ".w64"),
)
"""Ends of the names of recordings, in lower case: those of formats that libsndfile reads."""

TEST_SETS = ("test", "external")
"""Sets whose recordings are in no fold; training can use them only with pseudo-labels."""

SUBSETS = ("train", *TEST_SETS)

NUMBER_OF_A_SPREADSHEET = re.compile(r"\d(\.\d+)?[eE]\+\d+|\d+\.0")
"""Form of ids like 838227e71 and 055088446 after a program read them as numbers; intact ids do not match."""


def recording_folders(data: DataParams, source: Path) -> dict[str, Path]:
    """Return the folder of each set that the data has.

    Args:
        data: The `data` section.
        source: The folder that `prepare` writes, in which the soundscapes are.

    Raises:
        UserError: `data.root` or `data.external` does not exist.
    """
    if data.source == "demo":
        return {subset: source / subset for subset in SUBSETS}
    root = existing_folder("data.root", data.root or "")
    folders = {"train": root / "train", "test": root / "test"}
    if data.external:
        folders["external"] = existing_folder("data.external", data.external)
    return folders


def existing_folder(setting: str, value: str) -> Path:
    """Return the folder that a parameter names.

    Raises:
        UserError: it does not exist.
    """
    folder = workspace_path(value)
    if not folder.is_dir():
        raise UserError(f"{setting} {value!r}: folder does not exist: {folder}")
    return folder


@dataclass(frozen=True)
class FolderOfRecordings:
    """The recordings of one subset, also those in subfolders."""

    subset: str
    path: Path
    files: dict[str, Path]
    """Path of each recording, by recording_id: its name without suffix, or, where several folders have
    recordings of this name, its path below the folder of the subset, such as site/name."""
    others: list[Path]
    """Files that are not recordings by their names."""

    @classmethod
    def list(cls, folder: Path, subset: str) -> "FolderOfRecordings":
        """List the files in a folder, without hidden ones; a missing folder counts as empty.

        Raises:
            UserError: Two files in one folder have the same recording_id, or a name is not printable UTF-8.
        """
        recordings: dict[str, Path] = {}
        others: list[Path] = []
        for path in map(Path, files_below(folder)) if folder.is_dir() else []:
            if path.suffix.lower() not in RECORDING_SUFFIXES:
                others.append(path)
                continue
            if any(
                unicodedata.category(character) in ("Cc", "Cs") for character in str(path.relative_to(folder))
            ):
                raise UserError(f"{folder}: file name {path.name!r} is not printable UTF-8; rename it")
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in recordings:
                raise UserError(
                    f"{path.parent}: {recordings[name].name} and {path.name} are one recording_id; keep one"
                )
            recordings[name] = path
        n_of_name = Counter(path.stem for path in recordings.values())
        files = {path.stem if n_of_name[path.stem] == 1 else name: path for name, path in recordings.items()}
        return cls(subset, folder, files, others)

    def name_of(self, path: Path) -> str:
        """Return the path of a file below the folder, with / between names."""
        return path.relative_to(self.path).as_posix()

    @property
    def left_out(self) -> str:
        """Count and name the files that are not taken as recordings; empty without any."""
        if not self.others:
            return ""
        kinds = Counter(path.suffix.lower() or "no suffix" for path in self.others)
        listed = first_few([f"{kind}: {count}" for kind, count in kinds.most_common()])
        files, first = counted(len(self.others), "file"), self.name_of(self.others[0])
        return f"{self.subset}/: left out {files} of other formats ({listed}), first {first!r}"

    def file_of(self, recording_id: str) -> Path | None:
        """Return the file of a recording; None if there is none, or several.

        The id is a key of `files`. Without one of exactly this text, it can be a path below the folder or a
        name alone, end with a suffix, and differ in case and Unicode form.
        """
        matching = self._similar(recording_id)
        return self.files.get(recording_id) or (matching[0] if len(matching) == 1 else None)

    def _similar(self, recording_id: str) -> tuple[Path, ...]:
        name = Path(recording_id)
        is_file_name = name.suffix.lower() in RECORDING_SUFFIXES
        stem = recording_id[: -len(name.suffix)] if is_file_name else recording_id
        return self._by_plain_name.get(_plain(stem), ())

    @cached_property
    def _by_plain_name(self) -> dict[str, tuple[Path, ...]]:
        found: dict[str, tuple[Path, ...]] = {}
        for path in self.files.values():
            for name in {_plain(path.stem), _plain(self.name_of(path.with_suffix("")))}:
                found[name] = (*found.get(name, ()), path)
        return found

    def why_missing(self, recording_id: str) -> str:
        """Return why no file was found, with a guess at how the id was altered."""
        missing = f"no sound file {self.subset}/{recording_id}.*"
        if similar := self._similar(recording_id):
            found = " and ".join(self.name_of(path) for path in similar)
            if len({path.parent for path in similar}) == len(similar):
                example = self.name_of(similar[0].with_suffix(""))
                return f"{missing}, but several of this name: {found}; write the folder too: {example}"
            return f"{missing}, and several that differ only in case or Unicode form: {found}"
        if path := next((path for path in self.others if recording_id in (path.stem, path.name)), None):
            kinds = ", ".join(RECORDING_SUFFIXES)
            found = self.name_of(path)
            return f"{missing}, but there is {found}; formats that can be read are {kinds}"
        padded = [name for name in self.files if name.lstrip("0") == recording_id and recording_id.isdigit()]
        if padded:
            return (
                f"{missing}, but there is {padded[0]}: the id lost its leading zeros, "
                "as when a spreadsheet saved the table; restore the original table"
            )
        if NUMBER_OF_A_SPREADSHEET.fullmatch(recording_id):
            return (
                f"{missing}; the id looks like a number that a spreadsheet made of it; "
                "restore the original table"
            )
        return missing


def files_below(folder: Path, *, links_once: bool = False) -> Iterator[os.DirEntry[str]]:
    """Yield the files of a folder and its subfolders, also linked ones, by name, without hidden ones.

    Args:
        folder: The folder.
        links_once: Whether a folder to which several paths lead is listed by the first of them alone. A link
            back to a folder that contains it is never followed, since it has no end.
    """
    return _walk(str(folder), set(), links_once)


def _walk(place: str, met: set[tuple[int, int]], links_once: bool) -> Iterator[os.DirEntry[str]]:
    status = os.stat(place)
    here = status.st_dev, status.st_ino
    if here in met:
        return
    met.add(here)
    with os.scandir(place) as entries:
        visible = sorted(
            (entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name
        )
    for entry in visible:
        if entry.is_dir():
            yield from _walk(entry.path, met, links_once)
        else:
            yield entry
    if not links_once:
        met.remove(here)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
