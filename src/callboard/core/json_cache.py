"""What was worked out from content that cannot change, kept so that it need not be worked out again."""

import json
import os
from contextlib import suppress
from typing import Any

from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.core.workspace import main_workspace


class JsonCache:
    """A JSON object on disk below the main workspace's .cache; losing it costs time and nothing else.

    Keys must say what content the value depends on: hashes, commits. How it follows from it is the version.
    """

    def __init__(self, name: str, version: str = "1") -> None:
        """Read what is there; a file that cannot be read, or of another version, counts as empty.

        Args:
            name: Of the file, without folder and suffix.
            version: Another one, with code or settings that give other values, forgets all.
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
        """Remember a value that JSON can hold; `save` writes it."""
        self._values[key] = self._new[key] = value

    def save(self) -> None:
        """Add what is new to what is on disk by now; of two processes that save at once the later may win."""
        if not self._new:
            return
        content = {"version": self._version, "values": self._on_disk() | self._new}
        with (
            suppress(UserError),  # no space or no permission: worked out again the next time
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
