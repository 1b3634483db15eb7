"""The way to MLflow: its address, a client, one writer at a time, and what goes wrong in one line."""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from callboard.errors import one_line
from callboard.workspace import main_workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "callboard"
SQLITE = "sqlite:///"
UNUSABLE = (OSError, ImportError, ValueError)
"""What an address leads to that nobody answers, that has no driver here, or that is none."""

Errors = Callable[[], AbstractContextManager[None]]
T = TypeVar("T")


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
    """`text` with the user and password of `uri` taken out."""
    netloc = urlsplit(uri).netloc
    return text.replace(netloc, netloc.rpartition("@")[2]) if "@" in netloc else text


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
    place = main_workspace() / ".mlflow.lock"
    try:
        file = place.open("w")
    except OSError as error:
        raise TrackingError(f"{place}: {error.strerror}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def connected(uri: str) -> "MlflowClient":
    """A client of a server or database; it raises what mlflow raises."""
    import logging

    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def our_experiment(client: "MlflowClient") -> str:
    """Id of our MLflow experiment, which is made if need be; raises what mlflow raises."""
    if found := client.get_experiment_by_name(EXPERIMENT):
        return str(found.experiment_id)
    is_local = tracking_uri().startswith("sqlite:")
    # without a location MLflow would fix one below the current folder, which may be a temporary workspace
    location = (main_workspace() / "mlartifacts").as_uri() if is_local else None
    return str(client.create_experiment(EXPERIMENT, artifact_location=location))


@contextmanager
def open_experiment(uri: str) -> Iterator[tuple["MlflowClient", str]]:
    """A client and the id of our MLflow experiment, which is made if need be; one writer at a time.

    The client raises a TrackingError where mlflow's raises something; what the block raises stays as it is.

    Raises:
        TrackingError: the server is down, or the database cannot be written.
    """
    prepare_environment()
    with one_writer():
        with mlflow_errors(uri):
            client = connected(uri)
            experiment_id = our_experiment(client)
        yield guarded(client, partial(mlflow_errors, uri)), experiment_id


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
        reason = f"{type(error).__name__} at {uri}: {one_line(error)}"
        raise TrackingError(without_credentials(reason, uri)) from error


@contextmanager
def sqlite_errors(uri: str) -> Iterator[None]:
    """What SQLite raises, as a TrackingError of one line."""
    try:
        yield
    except sqlite3.Error as error:
        raise TrackingError(f"{type(error).__name__} at {uri}: {one_line(error)}") from error


def guarded(thing: T, errors: Errors) -> T:
    """The same thing with every call of its methods inside `errors`."""
    return cast(T, _Guarded(thing, errors))


class _Guarded:
    def __init__(self, thing: object, errors: Errors) -> None:
        self._thing, self._errors = thing, errors

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._thing, name)

        @wraps(method)
        def call(*arguments: Any, **options: Any) -> Any:
            with self._errors():
                return method(*arguments, **options)

        return call
