"""Memory and disk of this machine, compared with what a step needs, and running out of memory in words."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import psutil

from callboard.core.errors import UserError

CGROUPS = Path("/sys/fs/cgroup")
"""Linux's limits of groups of processes, such as a container or a job of Slurm."""

OWN_CGROUPS = Path("/proc/self/cgroup")

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc")
"""Words of torch's errors, which are of no type of their own on a CPU."""


def memory_limit() -> int:
    """Return the bytes that this process can use: the machine's memory, or less if its cgroup allows less."""
    limits = [int(psutil.virtual_memory().total)]
    with suppress(OSError):  # not Linux
        for line in OWN_CGROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, own = line.split(":", 2)
            if controllers in ("", "memory"):  # version 2 or 1
                name = "memory.limit_in_bytes" if controllers else "memory.max"
                path = PurePosixPath(own.strip("/"))
                files = [CGROUPS / controllers / group / name for group in (path, *path.parents)]
                texts = [file.read_text(encoding="utf-8").strip() for file in files if file.is_file()]
                limits += [int(text) for text in texts if text.isdigit()]  # "max" is none
    return min(limits)


def refuse_more_memory(what: str, n_bytes: float, remedy: str) -> None:
    """Refuse a step that needs more memory than there is, before it starts.

    Args:
        what: The step and its size.
        n_bytes: Bytes that it needs at least.
        remedy: Setting to lower.

    Raises:
        UserError: this process cannot use as many.
    """
    if n_bytes > (limit := memory_limit()):
        raise UserError(f"{what}: needs {in_gb(n_bytes)} of memory, of {in_gb(limit)} in all; {remedy}")


def refuse_more_disk(what: str, n_bytes: float, folder: Path, remedy: str) -> None:
    """Refuse to write more than fits on the disk of an existing folder, before it starts.

    Args:
        what: The content and its size.
        n_bytes: Bytes to be written.
        folder: A folder on the disk.
        remedy: Setting to lower.

    Raises:
        UserError: the disk has less free space.
    """
    if n_bytes > (free := shutil.disk_usage(folder).free):
        raise UserError(f"{what}: needs {in_gb(n_bytes)} on disk, {folder} has {in_gb(free)} free; {remedy}")


@contextmanager
def named_if_out_of_memory(what: str, remedy: str) -> Iterator[None]:
    """Turn running out of memory, of a processor or a GPU, into a UserError; any other error passes.

    Args:
        what: The step.
        remedy: Setting to lower.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        raise UserError(f"{what}: out of memory; {remedy}") from error


def in_gb(n_bytes: float) -> str:
    """Return a number of bytes as text, in GB or TB."""
    return f"{n_bytes / 1e12:.1f} TB" if n_bytes >= 1e12 else f"{n_bytes / 1e9:.1f} GB"
