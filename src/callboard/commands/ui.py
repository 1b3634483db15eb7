"""`callboard ui`: MLflow in the browser."""

import argparse
import os
import signal
import sys
from typing import Any

from callboard.commands.arguments import add_command, whole_number
from callboard.core.errors import UserError

SERVED = ("http://", "https://")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    ui = add_command(
        commands,
        "ui",
        help="open MLflow in the browser: table of CV and LB, CV against LB, learning curves",
        details="Starts a server that runs until Ctrl-C, unless MLFLOW_TRACKING_URI names one.",
        examples={
            "callboard ui": "two views of all results; a click on one opens its curves",
            "callboard ui --port 5050 --no-browser": "for a remote machine: their addresses on port 5050",
        },
    )
    ui.add_argument(
        "--port",
        type=whole_number(1, 65535),
        default=5000,
        metavar="N",
        help="port of the server; default %(default)s",
    )
    ui.add_argument("--no-browser", action="store_true", help="only print the addresses")
    ui.set_defaults(command=show)


def show(args: argparse.Namespace) -> None:
    """Start a server on the results, or use the one that MLFLOW_TRACKING_URI names; open its views."""
    from callboard.results.mlflow.connection import prepare_environment, tracking_uri

    prepare_environment()
    uri = tracking_uri()
    if uri.startswith(SERVED):
        _announce(uri, _write_views(uri), opens=not args.no_browser)
        return
    refuse_without_results(uri)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the server too
    try:
        _serve(uri, args)
    except KeyboardInterrupt:
        print("\nui: stopped")


def _serve(uri: str, args: argparse.Namespace) -> None:
    from callboard.core.workspace import main_workspace
    from callboard.results.mlflow.server import Server

    with Server(uri, args.port, main_workspace() / ".cache" / "mlflow-server.log") as server:
        print("ui: starting MLflow, which takes 10 to 20 seconds", flush=True)
        experiment_id = _write_views(uri)  # while the server starts
        server.wait_until_it_answers()
        _announce(server.address, experiment_id, opens=not args.no_browser)
        print("Ctrl-C stops the server", flush=True)
        server.wait()


def refuse_without_results(uri: str) -> None:
    """Refuse a SQLite database without results; leave other databases to the server.

    Raises:
        UserError: the database is missing, is not one of MLflow, or holds no results.
    """
    from callboard.results.mlflow.connection import local_database
    from callboard.results.mlflow.record import AUTHOR
    from callboard.results.stored_runs import NoResultsError, stored_runs

    if (database := local_database(uri)) and not (stored_runs() or stored_runs(AUTHOR)):
        raise NoResultsError(database, "holds none")


def _write_views(uri: str) -> str:
    """Write the views of our MLflow experiment, and return its id."""
    from callboard.results.mlflow.connection import TrackingError, one_writer, our_experiment
    from callboard.results.mlflow.views import write_views

    try:
        with one_writer(), our_experiment(uri) as (client, experiment_id):
            write_views(client, experiment_id)
            return experiment_id
    except TrackingError as error:
        raise UserError(f"MLflow cannot be used: {error}") from error


def _announce(server: str, experiment_id: str, *, opens: bool) -> None:
    from callboard.results.mlflow.connection import without_credentials
    from callboard.results.mlflow.views import VIEWS, address

    shown = without_credentials(server, server)
    addresses = [address(shown, experiment_id, view) for view in VIEWS]
    width = max(len(view.name) for view in VIEWS)
    for view, url in zip(VIEWS, addresses, strict=True):
        print(f"{view.name:{width}}  {url}", flush=True)
    if opens and has_display():
        import webbrowser

        webbrowser.open(addresses[0])


def has_display() -> bool:
    """Whether a browser could open a window; without one `webbrowser` fills the terminal with lynx."""
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
