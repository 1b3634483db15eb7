"""Whether machines reach one DVC remote, tried with a small file."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from callboard.core.errors import UserError, one_line
from callboard.results.dvc_cache import dvc_config


def default_remote(workspace: Path) -> str:
    """Return the name of DVC's default remote; empty if there is none."""
    return dvc_config(workspace).get("core", "remote", fallback="")


@contextmanager
def marked_remote(workspace: Path) -> Iterator[str]:
    """Yield the name of a small file in the default remote; it is removed at the end.

    Raises:
        UserError: the remote cannot be reached, or takes no file.
    """
    mark = f"callboard-{secrets.token_hex(8)}"
    try:
        files, top = _open_remote(workspace)
        files.makedirs(top, exist_ok=True)
        files.pipe_file(files.join(top, mark), b"")
    except Exception as error:  # each kind of remote raises its own
        raise UserError(
            f"DVC's remote {default_remote(workspace)!r} takes no files: {one_line(error)}"
        ) from error
    try:
        yield mark
    finally:
        with suppress(Exception):
            files.rm_file(files.join(top, mark))


def why_without(mark: str, workspace: Path) -> str:
    """Return why a workspace's default remote does not have a file of `marked_remote`; empty if it does."""
    name = default_remote(workspace)
    try:
        files, top = _open_remote(workspace)
        is_there = files.exists(files.join(top, mark))
    except Exception as error:  # each kind of remote raises its own
        return f"cannot reach DVC's remote {name!r}: {one_line(error)}"
    return "" if is_there else f"does not find in DVC's remote {name!r} ({top}) what this machine wrote there"


def _open_remote(workspace: Path) -> tuple[Any, str]:
    """Return the file system of the default remote, and its folder there."""
    from dvc.config import Config
    from dvc.fs import get_cloud_fs

    kind, settings, top = get_cloud_fs(Config(str(workspace / ".dvc")), name=default_remote(workspace))
    return kind(**settings), top
