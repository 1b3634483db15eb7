"""A cache on disk of values computed from content that cannot change."""

import json
import os
from contextlib import suppress
from typing import Any

from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.core.workspace import main_workspace


class JsonCache:
    """A JSON object on disk below the main workspace's .cache; losing it costs only time.

    A key identifies the content that its value depends on, as a hash or a commit does; the version identifies
    how values are computed from it.
    """

    def __init__(self, name: str, version: str = "1") -> None:
        """Read the file; one that is unreadable or has a different version counts as empty.

        Args:
            name: Name of the file, without folder and suffix.
            version: To be changed when code or settings give other values, which drops all old ones.
        """
        self._path = main_workspace() / ".cache" / f"{name}.json"
        self._version = version
        self._values = self._on_disk()
        self._new: dict[str, Any] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a value that JSON can represent; `save` writes it to disk."""
        self._values[key] = self._new[key] = value

    def save(self) -> None:
        """Add new values to those on disk by now; if two processes save at once, one's values can be lost."""
        if not self._new:
            return
        content = {"version": self._version, "values": self._on_disk() | self._new}
        with (
            suppress(UserError),  # no space or no permission: recomputed the next time
            written_whole(self._path, writer=str(os.getpid())) as unfinished,
        ):
            unfinished.write_text(json.dumps(content), encoding="utf-8")
        self._new = {}

    def _on_disk(self) -> dict[str, Any]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            return dict(content["values"]) if content["version"] == self._version else {}
        except (OSError, ValueError, TypeError, KeyError):
            return {}
