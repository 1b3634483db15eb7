"""A list of the content of a folder of recordings, by which DVC sees that something there has changed.

DVC cannot watch the folder itself, which can be anywhere, relative to the main workspace, or absent where a
result is only used.
"""

from collections.abc import Mapping
from pathlib import Path

from callboard.core.console import warn
from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.data.content_digests import content_digests
from callboard.data.groups import METADATA
from callboard.data.known_truth import TEST_LABELS
from callboard.data.recording_folders import FolderOfRecordings, recording_folders
from callboard.params.data import DataParams
from callboard.results.dvc_cache import cached_file
from callboard.results.dvc_lock import all_outs, stages_in
from callboard.results.git import files_in

SOURCE_TABLES = (
    "train_tp.csv",
    "train_fp.csv",
    "species.csv",
    "sample_submission.csv",
    METADATA,
    TEST_LABELS,
)
"""Files of `data.root`, other than recordings, that `prepare` reads."""

LISTING_STAGE = "recordings@"
"""Beginning of the name, in dvc.lock, of the stage that lists a folder."""


def write_listing(data: DataParams, path: Path) -> int:
    """List the files of `data.root` and `data.external` with their digests, and return their number.

    Files that are not recordings are listed by name alone, since `prepare` only names them. Soundscapes
    follow from parameters: their list is empty. Without `data.root`, as after `dvc pull` on a different
    machine, the list is that of dvc.lock, with a warning.

    Args:
        data: The `data` section.
        path: The list to write, as dvc.lock names it.

    Raises:
        UserError: A folder does not exist and dvc.lock has no list, or a file cannot be read.
    """
    lines = [] if data.source == "demo" else _lines(data, path)
    with written_whole(path) as unfinished:
        unfinished.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(lines)


def _lines(data: DataParams, path: Path) -> list[str]:
    try:
        folders = recording_folders(data, Path())
    except UserError as error:
        if md5 := _locked_md5(path):
            warn(f"{error}; recordings count as unchanged since dvc.lock was written")
            return cached_file(md5, str(path)).read_text(encoding="utf-8").splitlines()
        raise
    known, others = _files(folders)
    digests = content_digests(list(known.values()))
    return [*(f"{digest}  {name}" for digest, name in zip(digests, known, strict=True)), *others]


def _files(folders: Mapping[str, Path]) -> tuple[dict[str, Path], list[str]]:
    """Return the files that `prepare` reads by name, and the names of others in the same folders."""
    root = folders["train"].parent
    known = {name: root / name for name in SOURCE_TABLES if (root / name).is_file()}
    others: list[str] = []
    for subset, path in folders.items():
        folder = FolderOfRecordings.list(path, subset)
        known |= {f"{subset}/{folder.name_of(file)}": file for file in folder.files.values()}
        others += [f"{subset}/{folder.name_of(file)}" for file in folder.others]
    return known, others


def _locked_md5(path: Path) -> str:
    stages = stages_in(files_in(Path())("dvc.lock"), "dvc.lock")
    listings = {name: stage for name, stage in stages.items() if name.startswith(LISTING_STAGE)}
    return all_outs(listings).get(path.as_posix(), "")
