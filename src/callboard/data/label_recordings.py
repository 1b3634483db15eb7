"""The recordings that labels are about: their ids by the names in tables, and what their files say."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import soundfile

from callboard.core.errors import UserError
from callboard.core.reading import reading
from callboard.core.threads import map_threaded
from callboard.data.label_formats.form import recording_name
from callboard.data.recording_folders import FolderOfRecordings


class Sound(NamedTuple):
    """Length and bandwidth of a recording, from its header."""

    length_s: float
    nyquist_hz: float


@dataclass(frozen=True)
class LabelledRecordings:
    """The training recordings of a folder."""

    folder: Path
    files: dict[str, Path]
    """Path of each recording, by recording_id."""

    @classmethod
    def list(cls, folder: Path) -> "LabelledRecordings":
        """List the recordings in `folder`/train, none if it does not exist.

        Raises:
            UserError: Two files have the same recording_id.
        """
        train = folder / "train"
        return cls(train, FolderOfRecordings.list(train, "train").files)

    def sounds(self, recording_ids: Sequence[str]) -> dict[str, Sound]:
        """Read the headers of recordings.

        Raises:
            UserError: A header cannot be read.
        """
        paths = [self.files[name] for name in recording_ids]
        found = map_threaded(_read_sound, paths, label="recordings", unit="headers")
        return dict(zip(recording_ids, found, strict=True))


def _read_sound(path: Path) -> Sound:
    with reading(path, "a recording"):
        info = soundfile.info(path)
        return Sound(info.frames / info.samplerate, info.samplerate / 2)


def ids_of(names: Iterable[str], known: Iterable[str] = ()) -> dict[str, str]:
    """Return the recording_id of each name or path in a table.

    It is the file name without its suffix or, if a known id with folders is the end of the path, that id.

    Args:
        names: Names and paths.
        known: Ids of the recordings on disk.

    Raises:
        UserError: Files of different folders would have one id.
    """
    ids: dict[str, str] = {}
    longest: dict[str, str] = {}
    with_folder = {recording_id for recording_id in known if "/" in recording_id}
    for name in sorted(names):
        plain = PurePosixPath(name.replace("\\", "/")).parent / recording_name(name)
        endings = ("/".join(plain.parts[first:]) for first in range(len(plain.parts)))
        ids[name] = recording_id = next((one for one in endings if one in with_folder), recording_name(name))
        path = str(plain)
        other = longest.setdefault(recording_id, path)
        if not (f"/{other}".endswith(f"/{path}") or f"/{path}".endswith(f"/{other}")):
            raise UserError(
                f"{other} and {path} would both be recording {recording_id}; give the files different names, "
                "in train/ and in the labels"
            )
        longest[recording_id] = max(path, other, key=len)
    return ids
