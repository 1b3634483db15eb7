"""The packs of a cache, each made by itself and kept as a part of crop's output until all are there."""

import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd

from callboard.core.console import progress
from callboard.core.errors import UnreadableFileError
from callboard.core.files import written_whole
from callboard.core.machine import refuse_more_disk
from callboard.core.parts import consecutive, part_key
from callboard.core.reading import reading
from callboard.core.sealed import seal, unseal
from callboard.core.threads import n_workers
from callboard.data.audio import SKIPPED_COLUMNS, BadRecording
from callboard.data.recording_folders import SUBSETS
from callboard.data.recordings import Recording
from callboard.features.encoding import encode_recordings, file_bytes, warn_of_memory
from callboard.features.frame_cache import (
    EncodedRecording,
    IndexRow,
    is_whole_pack,
    pack_name,
    write_index,
    write_pack,
)
from callboard.features.front_ends import frames_of
from callboard.params.features import FrontEndParams

PACK_BYTES = 256_000_000
"""Size up to which recordings share a pack: some 20 s of work on two processors for log-mel."""


LESS_DISK = "raise features.hop_length, lower features.n_mels or make room"
"""Remedy for frames that do not fit on the disk."""


class PlannedPack(NamedTuple):
    """Recordings that share a pack."""

    subset: str
    number: int
    """Position among the packs of its set."""
    recordings: Sequence[Recording]
    key: str
    """Digest of everything that its content depends on."""
    n_bytes: int
    """Bytes of its frames, if no recording is left out."""


class PackContent(NamedTuple):
    """A pack's rows of `index.csv` and `skipped.csv`."""

    rows: list[IndexRow]
    skipped: list[tuple[str, str]]
    """Recordings that could not be used, and why."""


def plan_packs(
    recordings: Sequence[Recording], n_frames: Sequence[int], front_end: FrontEndParams, code: str
) -> list[PlannedPack]:
    """Divide the recordings of each set into packs of up to PACK_BYTES, by the lengths in their headers.

    Args:
        recordings: Those of all sets; where their files are makes no difference.
        n_frames: Their lengths in frames.
        front_end: The parameters that frames depend on.
        code: Fingerprint of the code that makes frames.
    """
    n_rows = frames_of(front_end).n_rows
    settings = front_end.model_dump_json(include=set(FrontEndParams.model_fields))
    lengths = list(zip(recordings, n_frames, strict=True))
    planned = []
    for subset in SUBSETS:
        members = [recording for recording in recordings if recording.subset == subset]
        sizes = [length * n_rows for recording, length in lengths if recording.subset == subset]
        for number, span in enumerate(consecutive(sizes, PACK_BYTES)):
            listed = json.dumps(
                [(one.recording_id, one.n_samples, one.sample_rate, one.digest) for one in members[span]]
            )
            key = part_key(subset, listed, settings, code)
            planned.append(PlannedPack(subset, number, members[span], key, sum(sizes[span])))
    return planned


class PackParts:
    """Packs in a folder of parts: `<key>.npy`, and `<key>.json` with its content, written last."""

    def __init__(
        self, folder: Path, front_end: FrontEndParams, on_bad_recording: Literal["error", "skip"]
    ) -> None:
        self._folder, self._front_end, self._on_bad_recording = folder, front_end, on_bad_recording
        self._contents: dict[str, PackContent] = {}
        """By key, of packs that are or were whole."""

    def make_missing(self, packs: Sequence[PlannedPack]) -> int:
        """Make the packs that are absent or damaged, in order, and return their number.

        Raises:
            BadRecording: A recording cannot be used, and `on_bad_recording` is "error".
            UserError: The disk is too small.
        """
        missing = [pack for pack in packs if not self._is_whole(pack)]
        recordings = list(chain.from_iterable(pack.recordings for pack in missing))
        n_bytes = sum(pack.n_bytes for pack in missing)
        n_bytes += file_bytes(recordings, self._front_end, n_workers())
        refuse_more_disk("the frames of all recordings", n_bytes, self._folder, LESS_DISK)
        warn_of_memory(recordings, self._front_end, n_workers())
        encoded = encode_recordings(recordings, self._front_end, self._folder, n_workers())
        watched = progress(encoded, total=len(recordings), label="crop", unit="recordings")
        for pack in missing:  # threads go on with the next pack while one is written
            self._make(pack, islice(watched, len(pack.recordings)))
        return len(missing)

    def skipped(self, packs: Sequence[PlannedPack]) -> list[tuple[str, str, str]]:
        """Return SKIPPED_COLUMNS of each recording that was left out."""
        return [
            (recording_id, pack.subset, reason)
            for pack in packs
            for recording_id, reason in self._contents[pack.key].skipped
        ]

    def collect(self, packs: Sequence[PlannedPack], cache: Path) -> None:
        """Move packs into the folder of their set in `cache`, and write the tables of what they contain.

        A pack that a different process has taken meanwhile is made again.
        """
        for subset in SUBSETS:
            (cache / subset).mkdir()
        left = packs
        while left := [pack for pack in left if not self._take(pack, cache)]:
            self.make_missing(left)
        for subset in SUBSETS:
            rows = [self._contents[pack.key].rows for pack in packs if pack.subset == subset]
            write_index(cache / subset, rows)
        skipped = pd.DataFrame(self.skipped(packs), columns=SKIPPED_COLUMNS)
        skipped.to_csv(cache / "skipped.csv", index=False)

    def _take(self, pack: PlannedPack, cache: Path) -> bool:
        part = self._part(pack)
        try:
            shutil.move(part, cache / pack.subset / pack_name(pack.number))
        except FileNotFoundError:
            return False
        part.with_suffix(".json").unlink(missing_ok=True)
        return True

    def _part(self, pack: PlannedPack) -> Path:
        return self._folder / f"{pack.key}.npy"

    def _is_whole(self, pack: PlannedPack) -> bool:
        """Return whether a pack is there and undamaged; raise a BadRecording as `make_missing` does."""
        part = self._part(pack)
        listed = part.with_suffix(".json")
        try:
            with reading(listed):
                rows, skipped = json.loads(unseal(listed.read_bytes(), part.name))
                content = PackContent(
                    [IndexRow(*row) for row in rows], [(name, why) for name, why in skipped]
                )
                if not is_whole_pack(part, content.rows):
                    return False
        except UnreadableFileError:
            return False
        for name, reason in content.skipped:
            self._refuse(BadRecording(name, reason))
        self._contents[pack.key] = content
        return True

    def _make(self, pack: PlannedPack, outcomes: Iterable[EncodedRecording | BadRecording]) -> None:
        skipped: list[tuple[str, str]] = []

        def usable() -> Iterator[EncodedRecording]:
            for outcome in outcomes:
                if isinstance(outcome, BadRecording):
                    self._refuse(outcome)
                    skipped.append((outcome.recording_id, outcome.reason))
                else:
                    yield outcome

        part, writer = self._part(pack), secrets.token_hex(4)
        with written_whole(part, writer) as unfinished:
            rows = write_pack(unfinished, usable(), frames_of(self._front_end).n_rows)
        content = PackContent(rows, skipped)
        with written_whole(part.with_suffix(".json"), writer) as unfinished:
            unfinished.write_bytes(seal(json.dumps(content).encode(), part.name))
        self._contents[pack.key] = content

    def _refuse(self, bad: BadRecording) -> None:
        if self._on_bad_recording == "error":
            hint = "data.on_bad_recording=skip leaves such recordings out"
            raise BadRecording(bad.recording_id, f"{bad.reason} ({hint})")
