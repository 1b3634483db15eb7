"""Predictions of a detector for any number of recordings, kept as Parquet files that are whole or absent.

A folder of predictions has three tables, each a folder with one file per shard: `recordings`, with the score
of every species in every recording; `windows`, with scores above a floor; `skipped`, with recordings that
cannot be used. The file in `recordings` is written last and lists what the shard covers, so the files that
exist are the state of the work.
"""

import json
import os
import platform
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pandas as pd

from callboard.core.errors import UserError
from callboard.core.files import locked, written_whole
from callboard.core.parts import part_key
from callboard.core.reading import reading
from callboard.data.archive import ArchiveFile, ArchiveShard
from callboard.scoring.detector import Detector
from callboard.scoring.set_scores import PREDICTION_TABLES, RECORDING_TABLE, SKIPPED_TABLE, WINDOW_TABLE

ABOUT = "about.json"
"""File that describes the detector of a folder of predictions."""

MANIFEST = b"callboard"
"""Key in the metadata of a shard's file under which it lists what it covers."""


class ShardTotals(NamedTuple):
    """Contents of a finished shard."""

    files: list[ArchiveFile]
    sound_s: float
    """Length of the recordings that were scored."""
    n_skipped: int
    n_windows: int
    """Number of scores in the table of windows."""


@dataclass
class Tally:
    """Sums over finished shards."""

    n_recordings: int = 0
    """Those that were skipped included."""
    sound_s: float = 0.0
    n_skipped: int = 0
    n_windows: int = 0

    def add(self, shard: ShardTotals) -> None:
        """Count a shard."""
        self.n_recordings += len(shard.files)
        self.sound_s += shard.sound_s
        self.n_skipped += shard.n_skipped
        self.n_windows += shard.n_windows

    @classmethod
    def of(cls, shards: Iterable[ShardTotals]) -> "Tally":
        """Count shards."""
        tally = cls()
        for shard in shards:
            tally.add(shard)
        return tally


class Predictions:
    """A folder of predictions of one detector."""

    def __init__(self, folder: Path, detector: Detector, floor: float) -> None:
        """Start a folder, or continue one.

        Args:
            folder: The folder.
            detector: The detector.
            floor: Probability from which a window's score is kept.

        Raises:
            UserError: The folder has predictions of a different detector, or above a different floor.
        """
        self.folder, self.detector, self.floor = folder, detector, floor
        _refuse_other(folder / ABOUT, detector, floor)
        with written_whole(folder / ABOUT) as unfinished:
            unfinished.write_text(json.dumps(_about(detector, floor), indent=2) + "\n", encoding="utf-8")

    def missing(self, files: Sequence[ArchiveFile]) -> list[ArchiveFile]:
        """Return the recordings that no finished shard covers; remove shards with a recording that changed.

        Recordings of finished shards that are not among `files` keep their scores.

        Raises:
            UserError: A finished shard has a recording under a different name, or a different one of this
                name.
        """
        now = {file.name: file for file in files}
        name_at = {_real(file.path): file.name for file in files}
        covered: set[str] = set()
        for path in shard_files(self.folder):
            shard = read_totals(path)
            for file in shard.files:
                self._refuse_confusion(
                    file, now.get(file.name, file), name_at.get(_real(file.path), file.name)
                )
            if any(now.get(file.name, file)[2:] != file[2:] for file in shard.files):
                if gone := [file for file in shard.files if file.name not in now]:
                    self._keep(path.name, gone)
                self._remove(path.name)
            else:
                covered.update(file.name for file in shard.files)
        for table in (WINDOW_TABLE, SKIPPED_TABLE):  # left by a killed command
            for path in (self.folder / table).glob("*.parquet"):
                if not (self.folder / RECORDING_TABLE / path.name).exists():
                    path.unlink()
        return [file for file in files if file.name not in covered]

    def _refuse_confusion(self, scored: ArchiveFile, same_name: ArchiveFile, name_now: str) -> None:
        if name_now != scored.name:
            raise UserError(
                f"{self.folder}: has scores of {scored.path} as {scored.name}, which would count twice as "
                f"{name_now}; give the same folders as before, or use a different --output"
            )
        if same_name.path != scored.path and _is_other_file(scored, same_name):
            raise UserError(
                f"{self.folder}: has scores of {scored.path} as {scored.name}, and {same_name.path} would "
                "have the same name; use a different --output"
            )

    def make(self, shard: Sequence[ArchiveFile]) -> ShardTotals:
        """Score a shard and write its files."""
        return self.write(shard, *score_shard(self.detector, shard, self.floor))

    def write(
        self, shard: Sequence[ArchiveFile], tables: Mapping[str, pd.DataFrame], sound_s: float
    ) -> ShardTotals:
        """Write the files of a shard, given what `score_shard` returned."""
        totals = ShardTotals(list(shard), sound_s, len(tables[SKIPPED_TABLE]), len(tables[WINDOW_TABLE]))
        name = f"{part_key(self.detector.key, *map(repr, shard))}.parquet"
        for table in (SKIPPED_TABLE, WINDOW_TABLE):
            _write_table(tables[table], self.folder / table / name)
        _write_table(
            tables[RECORDING_TABLE], self.folder / RECORDING_TABLE / name, {MANIFEST: json.dumps(totals)}
        )
        return totals

    def _keep(self, name: str, files: Sequence[ArchiveFile]) -> None:
        """Write the part of a shard that is about some of its recordings as a shard of its own."""
        names = [file.name for file in files]
        tables = {}
        for table in PREDICTION_TABLES:
            content = read_shard_table(self.folder / table / name)
            tables[table] = content[content["recording"].isin(names)].reset_index(drop=True)
        lengths = tables[RECORDING_TABLE].drop_duplicates("recording")["length_s"]
        self.write(files, tables, float(lengths.sum()))

    def totals(self) -> Iterator[ShardTotals]:
        """Yield what each finished shard covers."""
        yield from map(read_totals, shard_files(self.folder))

    def _remove(self, name: str) -> None:
        for table in PREDICTION_TABLES:
            (self.folder / table / name).unlink(missing_ok=True)


def score_shard(
    detector: Detector, shard: ArchiveShard, floor: float
) -> tuple[dict[str, pd.DataFrame], float]:
    """Return what `Detector.tables` returns of a shard.

    Raises:
        UserError: This machine does not have a recording that was listed. Skipped, it would never be scored.
    """
    files = [(file.name, Path(file.path)) for file in shard]
    with TemporaryDirectory(prefix="callboard-") as scratch:
        tables, sound_s = detector.tables(files, floor, Path(scratch))
    skipped = set(tables[SKIPPED_TABLE]["recording"])
    if gone := [file.path for file in shard if file.name in skipped and not os.path.exists(file.path)]:
        raise UserError(
            f"{platform.node()} does not have {gone[0]}; if it was removed, the same command continues "
            "without it; all machines of a cluster must share the folders of recordings, under the same paths"
        )
    return tables, sound_s


def shard_files(folder: Path) -> list[Path]:
    """Return the files of the finished shards of a folder of predictions, in the table of recordings."""
    return sorted((folder / RECORDING_TABLE).glob("*.parquet"))


def _is_other_file(before: ArchiveFile, now: ArchiveFile) -> bool:
    """Return whether a file was not moved to a new path: it is still there, or differs in size or time."""
    if os.path.exists(before.path):
        return not os.path.samefile(before.path, now.path)
    return before[2:] != now[2:]


def _real(path: str) -> str:
    """Return a path whose folder is without links."""
    folder, name = os.path.split(path)
    return os.path.join(_real_folder(folder), name)


@lru_cache(maxsize=1024)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Refuse a folder of predictions that another process writes: it would take unfinished shards for waste.

    Raises:
        UserError: Another process writes it, or it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder}: exists and is not a folder")
    busy = (
        f"{folder}: another `callboard predict` is writing it; wait for its end, or use a different --output"
    )
    with locked(folder / ".lock", UserError, busy):
        yield


def _about(detector: Detector, floor: float) -> dict[str, Any]:
    return {
        "detector": detector.reference,
        "key": detector.key,
        "floor": floor,
        "species": detector.species,
        "band_hz": detector.band_hz,
    }


def read_detector(about: Path) -> tuple[str, str, float]:
    """Read reference and key of the detector that made a folder of predictions, and its floor.

    Raises:
        UserError: The description is missing or damaged.
    """
    missing, damaged = "`callboard predict` writes it", "predict again, into a different --output"
    with reading(about, "the description of predictions", missing=missing, damaged=damaged):
        found = json.loads(about.read_text(encoding="utf-8"))
        return str(found["detector"]), str(found["key"]), float(found["floor"])


def _refuse_other(about: Path, detector: Detector, floor: float) -> None:
    if not about.exists():
        return
    reference, key, found_floor = read_detector(about)
    if (key, found_floor) != (detector.key, floor):
        rounded = reference == detector.reference and found_floor == floor
        why = ", as an exported detector rounds differently from its result" * rounded
        raise UserError(
            f"{about.parent}: has predictions of {reference} with windows from {found_floor:g}; those of "
            f"{detector.reference} from {floor:g} must not be mixed with them{why}; choose a different "
            "--output"
        )


def read_totals(path: Path) -> ShardTotals:
    """Read what a shard covers from its file in the table of recordings.

    Raises:
        UserError: The file is damaged.
    """
    import pyarrow.parquet as pq

    with reading(path, "a shard of predictions", damaged="delete it, and run the command again"):
        files, sound_s, n_skipped, n_windows = json.loads(pq.read_schema(path).metadata[MANIFEST])
        return ShardTotals(
            [
                ArchiveFile(str(name), str(place), int(n_bytes), int(time))
                for name, place, n_bytes, time in files
            ],
            float(sound_s),
            int(n_skipped),
            int(n_windows),
        )


def read_shard_table(path: Path) -> pd.DataFrame:
    """Read the part of a table that a shard has.

    Raises:
        UserError: The file is missing or damaged.
    """
    import pyarrow.parquet as pq

    with reading(path, "a shard of predictions", damaged="delete that of recordings, and predict again"):
        content: pd.DataFrame = pq.read_table(path, page_checksum_verification=True).to_pandas()
        return content


def _write_table(table: pd.DataFrame, path: Path, metadata: Mapping[bytes, str] = {}) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = pa.Table.from_pandas(table, preserve_index=False)
    content = content.replace_schema_metadata({**content.schema.metadata, **metadata})
    with written_whole(path, writer=secrets.token_hex(4)) as unfinished:
        pq.write_table(content, unfinished, write_page_checksum=True)
