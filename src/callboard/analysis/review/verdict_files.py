"""Tables of the verdicts of a review, written after each verdict and guarded against other programs."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import pandas as pd

from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.core.reading import reading
from callboard.data.verdicts import VERDICT_COLUMNS, write_window_verdicts


class ReviewItem(NamedTuple):
    """A span of a recording in which a person judges whether a species calls."""

    recording: str
    path: Path
    species: str
    start_s: float
    stop_s: float
    band_hz: tuple[float, float] | None = None
    """Lowest and highest frequency of the box; None if it has none."""
    top_hz: float | None = None
    """Highest frequency that the networks see; None if unknown."""
    claim: str = ""
    """Statement that is to be judged, in words."""
    score: float | None = None
    verdict: str = ""
    """Verdict of an earlier review; empty without one."""


class VerdictStore(Protocol):
    """A table that keeps verdicts."""

    path: Path

    def write(self, verdicts: Mapping[int, str]) -> None:
        """Write the verdicts of all items, by number, in the order in which they were given.

        Raises:
            UserError: A different program has changed the table, or it cannot be written.
        """


class _GuardedFile:
    """A file that is only written if it is still as this process last saw it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digest = self._digest_now()

    def refuse_changed(self) -> None:
        """Refuse a file that a different program has written.

        Raises:
            UserError: It has.
        """
        if self._digest_now() != self._digest:
            raise UserError(
                f"{self.path}: a different program has changed it since the review began, so nothing was "
                "written; stop `callboard review` with Ctrl-C and start it again"
            )

    def remember(self) -> None:
        """Take the present content as that of this process."""
        self._digest = self._digest_now()

    def _digest_now(self) -> bytes:
        if not self.path.exists():
            return b""
        with reading(self.path):
            return hashlib.sha256(self.path.read_bytes()).digest()


class VerdictColumn:
    """Verdicts in a column of the reviewed table itself; all other cells stay as they are."""

    def __init__(self, path: Path, table: pd.DataFrame, rows: Sequence[int]) -> None:
        """Take a table that was just read.

        Args:
            path: Its file.
            table: All of its cells as text, as written, with a column `verdict`.
            rows: Position in the table of each item.
        """
        self.path, self._table, self._rows = path, table, list(rows)
        self._file = _GuardedFile(path)

    def write(self, verdicts: Mapping[int, str]) -> None:
        """Write the whole table."""
        self._file.refuse_changed()
        column = self._table["verdict"].tolist()
        for number, row in enumerate(self._rows):
            column[row] = verdicts.get(number, "")
        table = self._table.assign(verdict=column)
        with written_whole(self.path) as unfinished:
            table.to_csv(unfinished, index=False)
        self._file.remember()


class WindowVerdicts:
    """Verdicts on windows of new recordings, in a table beside the predictions."""

    def __init__(self, path: Path, earlier: pd.DataFrame, items: Sequence[ReviewItem]) -> None:
        """Take a table that was just read.

        Args:
            path: Its file, which need not exist.
            earlier: Its rows, VERDICT_COLUMNS.
            items: The items to judge, each with a score.
        """
        self.path, self._earlier, self._items = path, earlier, items
        self._file = _GuardedFile(path)

    def write(self, verdicts: Mapping[int, str]) -> None:
        """Write earlier verdicts and these."""
        self._file.refuse_changed()
        rows = [
            (item.recording, item.start_s, item.stop_s, item.species, item.score, verdict)
            for number, verdict in verdicts.items()
            for item in [self._items[number]]
        ]
        added = pd.DataFrame(rows, columns=VERDICT_COLUMNS)
        table = pd.concat([self._earlier, added], ignore_index=True) if len(self._earlier) else added
        write_window_verdicts(table, self.path)
        self._file.remember()
