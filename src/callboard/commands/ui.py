"""`callboard ui`: MLflow's pages."""

import argparse
import os
import sys
from typing import Any


def add(commands: Any) -> None:
    """Add the command to the parser."""
    ui = commands.add_parser("ui", help="MLflow's pages in the browser")
    ui.add_argument("--port", type=int, default=5000, help="default %(default)s")
    ui.set_defaults(command=serve)


def serve(args: argparse.Namespace) -> None:
    """Become `mlflow ui`, with one worker and without the job runners that take 2 GB."""
    from callboard.tracking import prepare_environment, tracking_uri

    prepare_environment()
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        tracking_uri(),
        "--port",
        str(args.port),
        "--workers",
        "1",
    ]
    os.execve(sys.executable, [sys.executable, *command], environment)
