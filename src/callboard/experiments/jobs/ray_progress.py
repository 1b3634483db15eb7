"""Progress of trainings on nodes without the workspace's folder, brought to it for `callboard watch`."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from callboard.core.console import warn
from callboard.core.errors import one_line
from callboard.core.files import written_whole
from callboard.core.workspace import CHECKPOINTS

EVERY_S = 2.0
"""Pause between looks at whether there is progress."""

TAKE_S = 10.0
"""Time in which the actor must answer."""


class Pigeonhole:
    """Actor of Ray that holds the newest progress files, by name, until the command takes them."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def put(self, texts: dict[str, str]) -> None:
        """Take files of a node."""
        self._texts |= texts

    def take(self) -> dict[str, str]:
        """Return what was put since the last call."""
        texts, self._texts = self._texts, {}
        return texts


@contextmanager
def sent_progress(workspace: Path, experiment: str, pigeonhole: Any) -> Iterator[None]:
    """Send the progress files of an experiment while the context lasts, on the node where it trains.

    Args:
        workspace: The node's own workspace.
        experiment: Name of the experiment.
        pigeonhole: Handle of the actor.
    """
    sent: dict[str, str] = {}
    start = time.time()

    def send() -> None:
        found = {}
        for path in (workspace / CHECKPOINTS).glob("*.json"):
            with suppress(OSError):  # removed meanwhile
                text = path.read_text(encoding="utf-8")
                progress = json.loads(text)
                is_new = progress["updated"] > start and sent.get(path.name) != text
                if progress["experiment"] == experiment and is_new:
                    found[path.name] = text
        if found:
            pigeonhole.put.remote(found)
            sent.update(found)

    with _repeated(send):
        yield


@contextmanager
def received_progress(ray: Any, pigeonhole: Any, workspace: Path) -> Iterator[None]:
    """Write progress files of other nodes into the workspace while the context lasts."""

    def receive() -> None:
        for name, text in ray.get(pigeonhole.take.remote(), timeout=TAKE_S).items():
            with written_whole(workspace / CHECKPOINTS / name) as unfinished:
                unfinished.write_text(text, encoding="utf-8")

    with _repeated(receive):
        yield


@contextmanager
def _repeated(action: Callable[[], None]) -> Iterator[None]:
    """Repeat an action in a thread until the context ends, and once more.

    It ends at the first error: a training goes on without being watched.
    """
    is_over = threading.Event()

    def repeat() -> None:
        try:
            while not is_over.wait(EVERY_S):
                action()
            action()
        except Exception as error:
            warn(f"callboard watch does not see nodes without the folder any more: {one_line(error)}")

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
