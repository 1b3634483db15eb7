"""A cache on disk of values computed from content that cannot change."""

import atexit
import json
import os
from contextlib import suppress
from functools import cache
from typing import Any

from callboard.core.code_fingerprint import source_digest
from callboard.core.errors import UnreadableFileError, UserError
from callboard.core.files import written_whole
from callboard.core.reading import reading
from callboard.core.sealed import seal, unseal
from callboard.core.workspace import main_workspace


class JsonCache:
    """A JSON object on disk below the main workspace's .cache; losing it costs only time.

    A key identifies the content that its value depends on, as a hash or a commit does. All values are dropped
    when the code that computes them changes, or when the file does otherwise than by `save`.
    """

    def __init__(self, name: str, computed_by: str) -> None:
        """Read the file; one that is unreadable, damaged or of different code counts as empty.

        Args:
            name: Name of the file, without folder and suffix.
            computed_by: Module that computes values from the content; all that it imports counts too.
        """
        self._path = main_workspace() / ".cache" / f"{name}.json"
        self._seal = f"{name} by {source_digest(computed_by)}"
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
        content = json.dumps(self._on_disk() | self._new).encode()
        with (
            suppress(UserError),  # no space or no permission: recomputed the next time
            written_whole(self._path, writer=str(os.getpid())) as unfinished,
        ):
            unfinished.write_bytes(seal(content, self._seal))
        self._new = {}

    def _on_disk(self) -> dict[str, Any]:
        with suppress(UnreadableFileError), reading(self._path):
            return dict(json.loads(unseal(self._path.read_bytes(), self._seal)))
        return {}


def shared_cache(name: str, computed_by: str) -> JsonCache:
    """Return the cache that all of this process shares in this folder; saved when the process ends.

    Args:
        name: As in `JsonCache`.
        computed_by: As in `JsonCache`.
    """
    return _shared(name, computed_by, os.environ.get("DVC_ROOT"), os.getcwd())


@cache
def _shared(name: str, computed_by: str, _dvc_root: str | None, _folder: str) -> JsonCache:
    memory = JsonCache(name, computed_by)
    atexit.register(memory.save)
    return memory
