"""Damage that libsndfile passes over: a WAV file whose header and bytes disagree about its length."""

import struct
from pathlib import Path
from typing import IO

UNKNOWN_LENGTH = 2**32 - 1
"""Length of a chunk that was streamed; in the 64-bit forms, chunk ds64 has the real one."""

MOST_BEHIND = 4096
"""Most bytes behind the sound that are not chunks, for recorders that fill up the last block."""


def wav_damage(path: Path) -> str:
    """Return how a WAV file's header and bytes disagree; empty if they agree, or if it is not a WAV file."""
    try:
        with path.open("rb") as file:
            form, _, kind = struct.unpack("4s4s4s", file.read(12).ljust(12))
            if form not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or kind != b"WAVE":
                return ""
            n_bytes = _find_sound(file, ">" if form == b"RIFX" else "<")
            return "" if n_bytes is None else _disagreement(file, n_bytes, path.stat().st_size)
    except OSError:
        return ""  # libsndfile says why it cannot be read


def _find_sound(file: IO[bytes], order: str) -> int | None:
    """Move to the beginning of the sound and return its stated length in bytes; None if there is none."""
    long_length = UNKNOWN_LENGTH
    while len(header := file.read(8)) == 8:
        name, length = struct.unpack(f"{order}4sI", header)
        if name == b"data":
            return long_length if length == UNKNOWN_LENGTH else int(length)
        start = file.tell()
        if name == b"ds64":
            long_length = struct.unpack(f"{order}8xQ", file.read(16).ljust(16))[0]
        file.seek(start + length + length % 2)
    return None


def _disagreement(file: IO[bytes], n_bytes: int, file_bytes: int) -> str:
    start = file.tell()
    if n_bytes == UNKNOWN_LENGTH:
        return "does not state its length in its header; encode it again"
    if start + n_bytes > file_bytes:
        return f"is truncated: {file_bytes - start} of the {n_bytes} bytes of sound that its header states"
    n_behind = file_bytes - start - n_bytes
    if n_behind > min(n_bytes, MOST_BEHIND) and not _begins_chunk(file, start + n_bytes):
        return f"states {n_bytes} bytes of sound in its header, but {n_behind} more bytes follow"
    return ""


def _begins_chunk(file: IO[bytes], end: int) -> bool:
    """Return whether a chunk's name follows the sound, at once or after the byte that makes it even."""
    file.seek(end)
    after = file.read(5)
    return any(
        len(name) == 4 and name.isascii() and name.decode().isprintable() for name in (after[:4], after[1:])
    )
