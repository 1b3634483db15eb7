"""Connections to MLflow: its address, a client, one writer at a time, and errors in one line."""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from callboard.core.errors import one_line
from callboard.core.files import locked, written_whole
from callboard.core.redaction import redacted
from callboard.core.workspace import main_workspace, refuse_unusable_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "callboard"
SQLITE = "sqlite:///"
DEFAULT_PORTS = {"http": 80, "https": 443}
LOOPBACK = "localhost,127.0.0.1,::1"
"""Names of this machine, which is never asked through a proxy, as a part of no_proxy."""

CONNECT_S = 4.0
"""Time for a server to accept a connection, s; its answers can take longer."""


class TrackingError(Exception):
    """MLflow could not be reached or written; the result itself is complete."""


DELETED = f"the MLflow experiment {EXPERIMENT!r} was deleted"

NEWER = "a newer MLflow than the installed one wrote the database"


class NewerDatabaseError(TrackingError):
    """A newer MLflow than the installed one wrote the database."""


class DeletedExperimentError(TrackingError):
    """Our MLflow experiment was deleted, as on MLflow's pages, but can be restored with its runs."""

    def __init__(self, uri: str) -> None:
        """Compose the message.

        Args:
            uri: Address of the server or database.
        """
        where = without_credentials(uri, uri)
        super().__init__(f"{where}: {DELETED}; `callboard sync` restores it with its runs")


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, or the address of the main workspace's database.

    A relative SQLite path is below the main workspace: a temporary one would be deleted with the results.

    Raises:
        UserError: the database would not be in the main workspace, because of a character in its path.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    if uri.startswith(SQLITE) and not uri.startswith(f"{SQLITE}/"):
        refuse_unusable_name()
    return f"{SQLITE}{main_workspace() / uri.removeprefix(SQLITE)}" if uri.startswith(SQLITE) else uri


def local_database(uri: str) -> Path | None:
    """Return the file of a SQLite database; None for a server, or if the address has options for a driver."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) and "?" not in uri else None


def without_credentials(text: str, uri: str) -> str:
    """Return `text` without the user and password of `uri`, and without what `redacted` removes.

    Everything before the last @ counts as credentials: an invalid address, without a scheme or with a slash
    in its password, must not show them either.
    """
    user = "" if uri.startswith(SQLITE) else re.sub(r"^[\w+.-]+://", "", uri).rpartition("@")[0]
    if not user:
        return redacted(text)
    password = user.partition(":")[2] or user
    for secret in (user, unquote(user)):
        text = text.replace(f"{secret}@", "")
    for secret in filter(None, (password, unquote(password))):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return redacted(text)


def prepare_environment() -> None:
    """Set the environment variables that mlflow needs before it is imported."""
    os.environ.pop("MLFLOW_RUN_ID", None)  # would turn every fold's run into the parent
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # the default keeps trying for minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if direct != "*" and not direct.endswith(LOOPBACK):
        os.environ["no_proxy"] = f"{direct},{LOOPBACK}".lstrip(",")


@contextmanager
def one_writer() -> Iterator[None]:
    """Hold the lock of the only writer: processes that create MLflow's tables together leave them broken.

    Raises:
        TrackingError: the main workspace cannot be written.
    """
    with locked(main_workspace() / ".mlflow.lock", TrackingError):
        yield


def refuse_if_down(uri: str) -> None:
    """Try once to connect to a server: mlflow waits long and often for one that is down.

    Raises:
        TrackingError: cannot connect, because the server is unreachable or the address invalid.
    """
    try:
        address = urlsplit(uri)
        has_proxy = bool({address.scheme, "all"} & getproxies().keys())
        if address.scheme not in DEFAULT_PORTS or (has_proxy and not proxy_bypass(address.hostname or "")):
            return
        place = (address.hostname or "", address.port or DEFAULT_PORTS[address.scheme])
        with closing(socket.create_connection(place, CONNECT_S)):
            pass
    except (OSError, ValueError) as error:
        raise TrackingError(without_credentials(f"{uri}: {one_line(error)}", uri)) from error


@contextmanager
def connecting(uri: str) -> Iterator["MlflowClient"]:
    """Yield a client of a server or database, for a block that contains only its calls.

    Raises:
        TrackingError: the server is down, or mlflow raised an error in the block.
    """
    prepare_environment()
    refuse_if_down(uri)
    with mlflow_errors(uri):
        if (database := local_database(uri)) and not database.exists():
            _make_tables(database)
        yield _client(uri)


def _client(uri: str) -> "MlflowClient":
    import logging

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # logs a traceback, then raises
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _make_tables(database: Path) -> None:
    """Create MLflow's tables in a file that is renamed when complete: an interrupted migration breaks it."""
    with written_whole(database) as unfinished:
        unfinished.unlink(missing_ok=True)
        _client(f"{SQLITE}{unfinished}").search_experiments(max_results=1)


def experiment_id(client: "MlflowClient", uri: str) -> str:
    """Return the id of our MLflow experiment; empty if it does not exist.

    Raises:
        DeletedExperimentError: it was deleted.
    """
    found = client.get_experiment_by_name(EXPERIMENT)
    if found and found.lifecycle_stage == "deleted":
        raise DeletedExperimentError(uri)
    return str(found.experiment_id) if found else ""


@contextmanager
def our_experiment(uri: str) -> Iterator[tuple["MlflowClient", str]]:
    """Yield a client and the id of our MLflow experiment, which is created if necessary.

    To be used within `one_writer`, for a block that contains only the client's calls.

    Raises:
        DeletedExperimentError: it was deleted.
        TrackingError: the server is down, or mlflow raised an error in the block.
    """
    with connecting(uri) as client:
        if found := experiment_id(client, uri):
            yield client, found
            return
        # by default MLflow fixes a location below the current folder, which can be a temporary workspace
        location = (main_workspace() / "mlartifacts").as_uri() if uri.startswith(SQLITE) else None
        yield client, str(client.create_experiment(EXPERIMENT, artifact_location=location))


@contextmanager
def mlflow_errors(uri: str) -> Iterator[None]:
    """Turn errors of mlflow and its libraries into a TrackingError of one line without credentials.

    The block must contain only their calls, since every error counts: those libraries have many kinds.
    """
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {one_line(error)}".partition(" [SQL:")[0]  # no values of a query
        if is_newer := _is_of_newer(text):
            text = (
                f"{NEWER}; install that version, or move the database away: `callboard sync` writes it again"
            )
        kind = NewerDatabaseError if is_newer else TrackingError
        raise kind(without_credentials(f"{uri}: {text}", uri)) from error


def _is_of_newer(text: str) -> bool:
    """Return whether an error of mlflow is about tables that a newer version has made."""
    found = re.search(r"database schema \(found version (\w+)", text)
    return found is not None and not _knows_revision(found[1])


def _knows_revision(revision: str) -> bool:
    """Return whether a revision of MLflow's tables is one of the installed MLflow or an older one."""
    import mlflow.store.db_migrations
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    try:
        ScriptDirectory(str(Path(mlflow.store.db_migrations.__file__).parent)).get_revision(revision)
    except CommandError:
        return False
    return True
