"""Tracebacks of faults of this project, kept in files so that a command ends with one sentence."""

import os
import platform
import re
import sys
import tempfile
import traceback
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from callboard.core.errors import one_line
from callboard.core.redaction import redacted
from callboard.core.workspace import main_workspace

ERRORS = Path(".cache/errors")
"""Folder of the main workspace with the files."""

N_KEPT = 20
"""Number of files that are kept, the latest."""


def unexpected(error: Exception) -> str:
    """Keep the traceback of an unexpected error, and return the sentence that a command ends with.

    The file is in the main workspace; where that cannot be written, or outside a workspace, it is among the
    temporary ones. If there is no room for it at all, the sentence is followed by the traceback.
    """
    command = _command()
    details = "".join(traceback.format_exception(error))
    text = redacted(
        f"{' '.join(sys.argv)}\nPython {platform.python_version()}, {platform.platform()}\n\n{details}"
    )
    kept = _keep(text, re.sub(r"[^\w.]+", "-", command))
    end = f"the whole traceback is in {kept}; please report it" if kept else f"please report it:\n{text}"
    return f"{command}: unexpected {type(error).__name__}{_message(error)}{_place(error)}; {end}"


def _command() -> str:
    """Return the name of a stage, or `callboard` with that of the subcommand."""
    name, arguments = Path(sys.argv[0]).stem, sys.argv[1:]
    is_named = name == "callboard" and arguments and not arguments[0].startswith("-")
    return f"{name} {arguments[0]}" if is_named else name


def _message(error: Exception) -> str:
    text = one_line(error)
    return "" if text == type(error).__name__ else f": {text}"


def _place(error: Exception) -> str:
    """Return the last line of this project's code that was running."""
    root = str(Path(__file__).parents[1])
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(root)]
    return f" in {Path(frames[-1].filename).relative_to(root)} line {frames[-1].lineno}" if frames else ""


def _keep(text: str, command: str) -> Path | None:
    """Write the text to a new file and return its path; None if no folder takes it."""
    workspace = main_workspace()
    name = f"{datetime.now():%Y-%m-%dT%H%M%S}-{command}"
    with suppress(OSError):
        if (workspace / "dvc.yaml").is_file():
            folder = workspace / ERRORS
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}-{os.getpid()}.txt"
            path.write_text(text, encoding="utf-8", errors="replace")
            for old in sorted(folder.glob("*.txt"))[:-N_KEPT]:
                old.unlink(missing_ok=True)
            return path
    with suppress(OSError):
        number, written = tempfile.mkstemp(prefix=f"callboard-{name}-", suffix=".txt")
        with open(number, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        return Path(written)
    return None
