"""Recognition of a full disk behind an error or the output of a command."""

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

WORDS = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT))
"""The system's words for a full disk and for a quota that is used up."""

FULL_MB = 1.0
"""Free space below which a disk counts as full: what a command wrote of its error may be lost with it."""


def full_disk(text: str, folders: Iterable[Path]) -> str:
    """Return a sentence on the fullest disk that a failed command wrote to; empty if it failed otherwise.

    Args:
        text: Error or output of the command.
        folders: Folders that it wrote to; those that do not exist are left out.
    """
    free_mb = {folder: shutil.disk_usage(folder).free / 1e6 for folder in folders if folder.is_dir()}
    if not free_mb:
        return ""
    fullest = min(free_mb, key=lambda folder: free_mb[folder])
    if free_mb[fullest] >= FULL_MB and not any(words in text for words in WORDS):
        return ""
    return f"the disk of {fullest} is full ({free_mb[fullest]:.0f} MB free); make room and run again"
