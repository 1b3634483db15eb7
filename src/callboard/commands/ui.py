"""`callboard ui`: MLflow's pages."""

import argparse
import os
import signal
import sys
from typing import Any

from callboard.core.errors import UserError

SERVED = ("http://", "https://")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    ui = commands.add_parser("ui", help="MLflow's pages in the browser: CV | LB, CV against LB, curves")
    ui.add_argument("--port", type=int, default=5000, help="default %(default)s")
    ui.add_argument("--no-browser", action="store_true", help="only print the addresses")
    ui.set_defaults(command=show)


def show(args: argparse.Namespace) -> None:
    """Start a server on the results, or take the one that MLFLOW_TRACKING_URI names; open its pages."""
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
        print("ui: MLflow starts; a few seconds", flush=True)
        experiment_id = _write_views(uri)  # while the server starts
        server.wait_until_it_answers()
        _announce(server.address, experiment_id, opens=not args.no_browser)
        print("Ctrl-C ends it", flush=True)
        server.wait()


def refuse_without_results(uri: str) -> None:
    """Refuse a SQLite database without a result; others are left to the server.

    Raises:
        UserError: the database is missing, no MLflow one, or holds no result.
    """
    from callboard.results.mlflow.connection import local_database
    from callboard.results.mlflow.record import AUTHOR
    from callboard.results.stored_runs import NoResultsError, stored_runs

    if (database := local_database(uri)) and not (stored_runs() or stored_runs(AUTHOR)):
        raise NoResultsError(database, "holds none")


def _write_views(uri: str) -> str:
    """Id of our MLflow experiment, whose views are there afterwards."""
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
    """Whether a browser would have a window; without one `webbrowser` takes over the terminal with lynx."""
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
