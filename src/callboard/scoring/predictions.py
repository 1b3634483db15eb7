"""Predictions of a detector for any number of recordings, kept as Parquet files that are whole or absent.

A folder of predictions has three tables, each a folder with one file per shard: `recordings`, with the score
of every species in every recording; `windows`, with scores above a floor; `skipped`, with recordings that
cannot be used. The file in `recordings` is written last and lists what the shard covers, so the files that
exist are the state of the work.
"""

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from callboard.core.errors import UserError
from callboard.core.files import locked, written_whole
from callboard.core.parts import part_key
from callboard.core.reading import reading
from callboard.core.threads import n_workers
from callboard.data.archive import ArchiveFile
from callboard.data.audio import BadRecording
from callboard.features.encoding import encode_files
from callboard.features.frame_cache import EncodedRecording, MelCache, pack_name, write_index, write_pack
from callboard.features.front_ends import frames_of
from callboard.params.features import FrontEndParams
from callboard.scoring.detector import Detector, SetScores

RECORDING_TABLE, WINDOW_TABLE, SKIPPED_TABLE = PREDICTION_TABLES = ("recordings", "windows", "skipped")
"""Tables of predictions; that of recordings is the one whose files count as finished shards."""

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


class _Frames(NamedTuple):
    """Frames of a shard's recordings, as one front end makes them."""

    cache: MelCache
    length_s: dict[str, float]
    """By recording."""
    reasons: dict[str, str]
    """Recordings that cannot be used, and why."""


class Predictions:
    """A folder of predictions of one detector."""

    def __init__(self, folder: Path, detector: Detector, floor: float, device: torch.device) -> None:
        """Start a folder, or continue one.

        Args:
            folder: The folder.
            detector: The detector.
            floor: Probability from which a window's score is kept.
            device: Device of the detector's networks.

        Raises:
            UserError: The folder has predictions of a different detector, or above a different floor.
        """
        self.folder, self.detector, self.floor, self._device = folder, detector, floor, device
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
        name_at = {file.path: file.name for file in files}
        covered: set[str] = set()
        for path in shard_files(self.folder):
            shard = read_totals(path)
            for file in shard.files:
                self._refuse_confusion(file, now.get(file.name, file), name_at.get(file.path, file.name))
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
        if same_name.path != scored.path and _is_other_file(scored.path, same_name.path):
            raise UserError(
                f"{self.folder}: has scores of {scored.path} as {scored.name}, and {same_name.path} would "
                "have the same name; use a different --output"
            )

    def make(self, shard: Sequence[ArchiveFile]) -> ShardTotals:
        """Score a shard and write its files."""
        with TemporaryDirectory(prefix="callboard-") as scratch:
            tables, sound_s = score_shard(self.detector, shard, self.floor, self._device, Path(scratch))
        return self.write(shard, tables, sound_s)

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


def shard_files(folder: Path) -> list[Path]:
    """Return the files of the finished shards of a folder of predictions, in the table of recordings."""
    return sorted((folder / RECORDING_TABLE).glob("*.parquet"))


def _is_other_file(before: str, now: str) -> bool:
    """Return whether a file is still there, so that it was not moved to its new path."""
    return os.path.exists(before) and not os.path.samefile(before, now)


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


def _refuse_other(about: Path, detector: Detector, floor: float) -> None:
    if not about.exists():
        return
    with reading(about, "the description of predictions", damaged="delete the folder"):
        found = json.loads(about.read_text(encoding="utf-8"))
        reference, key, found_floor = str(found["detector"]), str(found["key"]), float(found["floor"])
    if (key, found_floor) != (detector.key, floor):
        raise UserError(
            f"{about.parent}: has predictions of {reference} with windows from {found_floor:g}; those of "
            f"{detector.reference} from {floor:g} must not be mixed with them; choose a different --output"
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


def score_shard(
    detector: Detector, shard: Sequence[ArchiveFile], floor: float, device: torch.device, scratch: Path
) -> tuple[dict[str, pd.DataFrame], float]:
    """Score recordings.

    Args:
        detector: The detector.
        shard: The recordings.
        floor: Probability from which a window's score is kept.
        device: Device of the detector's networks.
        scratch: Empty folder for frames.

    Returns:
        The tables by name, and the length of the scored recordings in seconds. recordings: recording,
        length_s, species, score. windows: recording, start_s, end_s, species, score. skipped: recording,
        reason.
    """
    front_ends = list(dict.fromkeys(part.front_end for part in detector.parts))
    frames = {
        front_end: _make_frames(shard, front_end, scratch / str(number))
        for number, front_end in enumerate(front_ends)
    }
    reasons = {name: why for made in reversed(frames.values()) for name, why in made.reasons.items()}
    names = [file.name for file in shard if file.name not in reasons]
    length_s = np.array([frames[front_ends[0]].length_s[name] for name in names])
    scores = detector.combined(
        [
            part.scores(frames[part.front_end].cache, names, detector.species, device)
            for part in detector.parts
        ]
    )
    return {
        RECORDING_TABLE: _recording_table(names, length_s, scores, detector.species),
        WINDOW_TABLE: _window_table(names, length_s, scores, detector.species, floor),
        SKIPPED_TABLE: pd.DataFrame(
            {"recording": list(reasons), "reason": list(reasons.values())}, dtype=str
        ),
    }, float(length_s.sum())


def _make_frames(shard: Sequence[ArchiveFile], front_end: FrontEndParams, folder: Path) -> _Frames:
    length_s: dict[str, float] = {}
    reasons: dict[str, str] = {}
    audio = front_end.audio
    channel = "mean" if audio.channel is None else audio.channel
    any_form = audio.model_copy(update={"on_other_rate": "resample", "channel": channel})
    front_end = front_end.model_copy(update={"audio": any_form})

    def usable() -> Iterator[EncodedRecording]:
        encoded = encode_files(
            [(file.name, Path(file.path)) for file in shard], front_end, folder, n_workers()
        )
        for outcome, seconds in encoded:
            if isinstance(outcome, BadRecording):
                reasons[outcome.recording_id] = outcome.reason
            else:
                length_s[outcome.recording_id] = seconds
                yield outcome

    folder.mkdir()
    write_index(folder, [write_pack(folder / pack_name(0), usable(), frames_of(front_end).n_rows)])
    return _Frames(MelCache.open(folder), length_s, reasons)


def _recording_table(
    names: Sequence[str], length_s: NDArray[np.float64], scores: SetScores, species: Sequence[str]
) -> pd.DataFrame:
    n_species = len(species)
    return pd.DataFrame(
        {
            "recording": np.repeat(np.array(names, dtype=object), n_species),
            "length_s": np.repeat(length_s, n_species),
            "species": np.tile(np.array(species, dtype=object), len(names)),
            "score": scores.of_recordings.ravel(),
        }
    )


def _window_table(
    names: Sequence[str],
    length_s: NDArray[np.float64],
    scores: SetScores,
    species: Sequence[str],
    floor: float,
) -> pd.DataFrame:
    window, column = np.nonzero(scores.of_windows >= floor)
    recording = scores.recording[window]
    return pd.DataFrame(
        {
            "recording": np.array(names, dtype=object)[recording],
            "start_s": scores.start_s[window],
            "end_s": np.minimum(scores.end_s[window], length_s[recording]),
            "species": np.array(species, dtype=object)[column],
            "score": scores.of_windows[window, column],
        }
    )
