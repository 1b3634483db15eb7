"""DVC's remote: a small file that shows which machines reach it, and single files of the cache."""

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from callboard.core.errors import UserError, one_line
from callboard.core.files import written_whole
from callboard.results.dvc_cache import cached_file, dvc_config, object_name, object_path, refuse_damaged


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


def push_files(md5s: Iterable[str], workspace: Path) -> None:
    """Copy files of the main workspace's cache into its default remote, if they are not there.

    Raises:
        UserError: the remote takes no files, or a file is in neither.
    """
    name = default_remote(workspace)
    try:
        files, top = _open_remote(workspace)
        for md5 in md5s:
            target = files.join(top, object_name(md5))
            if not files.exists(target):
                cached = cached_file(md5, "a file that a training starts from")
                files.makedirs(files.parent(target), exist_ok=True)
                files.put_file(str(cached), target)
    except UserError:
        raise
    except Exception as error:  # each kind of remote raises its own
        raise UserError(f"DVC's remote {name!r} takes no files: {one_line(error)}") from error


def pull_files(md5s: Iterable[str], workspace: Path) -> None:
    """Copy files of a workspace's default remote into its cache, if they are not there.

    Raises:
        UserError: the remote does not give one, or it cannot be written.
    """
    name = default_remote(workspace)
    try:
        files, top = _open_remote(workspace)
        for md5 in md5s:
            path = object_path(md5, workspace)
            if not path.exists():
                with written_whole(path, writer=secrets.token_hex(4)) as unfinished:
                    files.get_file(files.join(top, object_name(md5)), str(unfinished))
                    refuse_damaged(unfinished, md5, f"a file of DVC's remote {name!r}")
                    unfinished.chmod(0o444)  # as DVC does: workspaces can have links to it
    except UserError:
        raise
    except Exception as error:  # each kind of remote raises its own
        raise UserError(f"DVC's remote {name!r} does not give a file: {one_line(error)}") from error


def _open_remote(workspace: Path) -> tuple[Any, str]:
    """Return the file system of the default remote, and its folder there."""
    from dvc.config import Config
    from dvc.fs import get_cloud_fs

    kind, settings, top = get_cloud_fs(Config(str(workspace / ".dvc")), name=default_remote(workspace))
    return kind(**settings), top
