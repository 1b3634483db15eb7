"""Content with a digest in front of it, so that a file that was changed, cut or moved is not believed."""

import hashlib


class BrokenSealError(ValueError):
    """Content is not what was sealed under this name."""


def seal(content: bytes, name: str) -> bytes:
    """Return content after a line with a digest of it and of a name, which says what the content is of."""
    return f"{_digest(content, name)}\n".encode() + content


def unseal(sealed: bytes, name: str) -> bytes:
    """Return the content that `seal` was given with this name.

    Raises:
        BrokenSealError: the content or the name was a different one.
    """
    digest, _, content = sealed.partition(b"\n")
    if digest != _digest(content, name).encode():
        raise BrokenSealError(f"the content is not what was written for {name}")
    return content


def _digest(content: bytes, name: str) -> str:
    return hashlib.sha256(hashlib.sha256(name.encode()).digest() + content).hexdigest()
