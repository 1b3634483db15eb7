"""The way to MLflow: its address, a client, one writer at a time, and what goes wrong in one line."""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

from callboard.core.errors import one_line
from callboard.core.files import locked, written_whole
from callboard.core.workspace import main_workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "callboard"
SQLITE = "sqlite:///"
DEFAULT_PORTS = {"http": 80, "https": 443}
UNUSABLE = (OSError, ImportError, ValueError)
"""What an address leads to that nobody answers, that has no driver here, or that is none."""

CONNECT_S = 4.0
"""For a server to take a connection; to answer then may take it longer."""


class TrackingError(Exception):
    """MLflow could not be reached or written; the result itself is whole."""


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or the main workspace's own database.

    A relative SQLite path counts from the main workspace: in a temporary one the results would go with it.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    return f"{SQLITE}{main_workspace() / uri.removeprefix(SQLITE)}" if uri.startswith(SQLITE) else uri


def local_database(uri: str) -> Path | None:
    """The file of a SQLite database; None for a server, or where the address has options for its driver."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) and "?" not in uri else None


def without_credentials(text: str, uri: str) -> str:
    """`text` with the user and password of `uri` taken out.

    All before the last @ counts as them: an address that is wrong, without a scheme or with a slash in its
    password, must not show it either.
    """
    user = "" if uri.startswith(SQLITE) else re.sub(r"^[\w+.-]+://", "", uri).rpartition("@")[0]
    if not user:
        return text
    password = user.partition(":")[2] or user
    for secret in (user, unquote(user)):
        text = text.replace(f"{secret}@", "")
    for secret in filter(None, (password, unquote(password))):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return text


def prepare_environment() -> None:
    """What must hold before mlflow is imported."""
    os.environ.pop("MLFLOW_RUN_ID", None)  # would turn every fold's run into the parent
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # the default keeps trying for minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


@contextmanager
def one_writer() -> Iterator[None]:
    """One writer at a time: processes that create MLflow's tables together leave them broken for good.

    Raises:
        TrackingError: the main workspace cannot be written.
    """
    with locked(main_workspace() / ".mlflow.lock", TrackingError):
        yield


def refuse_if_down(uri: str) -> None:
    """Ask a server for a connection, once: mlflow waits long and often for one that is down.

    Raises:
        TrackingError: nobody takes the connection, or the address is none.
    """
    try:
        address = urlsplit(uri)
        if address.scheme not in DEFAULT_PORTS or {address.scheme, "all"} & getproxies().keys():
            return
        place = (address.hostname or "", address.port or DEFAULT_PORTS[address.scheme])
        with closing(socket.create_connection(place, CONNECT_S)):
            pass
    except (OSError, ValueError) as error:
        raise TrackingError(without_credentials(f"{uri}: {one_line(error)}", uri)) from error


@contextmanager
def connecting(uri: str) -> Iterator["MlflowClient"]:
    """A client of a server or database, for a block of nothing but its calls.

    Raises:
        TrackingError: the server is down, or mlflow raised something in the block.
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
    """Make MLflow's tables in a file that is renamed when whole: migrations cut short break it for good."""
    with written_whole(database) as unfinished:
        unfinished.unlink(missing_ok=True)
        _client(f"{SQLITE}{unfinished}").search_experiments(max_results=1)


@contextmanager
def our_experiment(uri: str) -> Iterator[tuple["MlflowClient", str]]:
    """A client and the id of our MLflow experiment, which is made if need be.

    To be used within `one_writer`, for a block of nothing but the client's calls.

    Raises:
        TrackingError: the server is down, or mlflow raised something in the block.
    """
    with connecting(uri) as client:
        if found := client.get_experiment_by_name(EXPERIMENT):
            yield client, str(found.experiment_id)
            return
        # without a location MLflow would fix one below the current folder, which may be a temporary workspace
        location = (main_workspace() / "mlartifacts").as_uri() if uri.startswith(SQLITE) else None
        yield client, str(client.create_experiment(EXPERIMENT, artifact_location=location))


@contextmanager
def mlflow_errors(uri: str) -> Iterator[None]:
    """What mlflow and the libraries below it raise, as a TrackingError of one line without credentials.

    For nothing but their calls: much of what they raise is a ValueError or an OSError.
    """
    import alembic.util
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, sqlalchemy.exc.SQLAlchemyError, alembic.util.CommandError, *UNUSABLE) as error:
        raise TrackingError(without_credentials(f"{uri}: {_cause(error)}", uri)) from error


def _cause(error: Exception) -> str:
    """One sentence; of a failed query without its text and its values."""
    return f"{type(error).__name__}: {one_line(error)}".partition(" [SQL:")[0]
