"""The folders of recordings: where they are, and which file is which recording, by their names alone."""

import re
import unicodedata
from collections import Counter
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
    """The recordings of one subset."""

    subset: str
    path: Path
    files: dict[str, Path]
    """Path of each recording, by recording_id."""
    others: list[Path]
    """Files that are not recordings by their names."""

    @classmethod
    def list(cls, folder: Path, subset: str) -> "FolderOfRecordings":
        """List the files in a folder, without hidden ones; a missing folder counts as empty.

        Raises:
            UserError: Two files have the same recording_id, or a name is not printable UTF-8.
        """
        files: dict[str, Path] = {}
        others: list[Path] = []
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.name.startswith("."):
                continue
            if path.suffix.lower() not in RECORDING_SUFFIXES:
                others += [path] if path.is_file() else []
                continue
            if any(unicodedata.category(character) in ("Cc", "Cs") for character in path.name):
                raise UserError(f"{folder}: file name {path.name!r} is not printable UTF-8; rename it")
            if path.stem in files:
                raise UserError(
                    f"{folder}: {files[path.stem].name} and {path.name} are one recording_id; keep one"
                )
            files[path.stem] = path
        return cls(subset, folder, files, others)

    @property
    def left_out(self) -> str:
        """Count and name the files that are not taken as recordings; empty without any."""
        found = []
        if self.others:
            kinds = Counter(path.suffix.lower() or "no suffix" for path in self.others)
            listed = first_few([f"{kind}: {count}" for kind, count in kinds.most_common()])
            files, first = counted(len(self.others), "file"), self.others[0].name
            found.append(f"{files} of other formats ({listed}), first {first!r}")
        if below := sorted(self._in_subfolders.values()):
            first = below[0].relative_to(self.path).as_posix()
            found.append(f"{counted(len(below), 'recording')} in subfolders, first {first!r}")
        return f"{self.subset}/: left out {' and '.join(found)}" if found else ""

    def file_of(self, recording_id: str) -> Path | None:
        """Return the file of a recording; None if there is none, or several.

        Without a file of exactly this name, the id can end with a suffix and differ in case and Unicode form.
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
        for name, path in self.files.items():
            found[_plain(name)] = (*found.get(_plain(name), ()), path)
        return found

    @cached_property
    def _in_subfolders(self) -> dict[str, Path]:
        paths = self.path.glob("*/**/*") if self.path.is_dir() else []
        return {path.stem: path for path in paths if path.suffix.lower() in RECORDING_SUFFIXES}

    def why_missing(self, recording_id: str) -> str:
        """Return why no file was found, with a guess at how the id was altered."""
        missing = f"no sound file {self.subset}/{recording_id}.*"
        if similar := self._similar(recording_id):
            found = " and ".join(path.name for path in similar)
            return f"{missing}, and several that differ only in case or Unicode form: {found}"
        if path := next((path for path in self.others if recording_id in (path.stem, path.name)), None):
            kinds = ", ".join(RECORDING_SUFFIXES)
            return f"{missing}, but there is {path.name}; formats that can be read are {kinds}"
        if path := self._in_subfolders.get(Path(recording_id).stem):
            found = path.relative_to(self.path.parent).as_posix()
            return f"{missing}, but there is {found}: recordings must not be in subfolders"
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


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
