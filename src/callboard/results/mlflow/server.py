"""MLflow's server on this machine, started with few processes and stopped with all of them."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from callboard.core.errors import UserError
from callboard.results.mlflow.connection import without_credentials

HOST = "127.0.0.1"
PATIENCE_S = 120.0
"""Maximum wait for the first answer, s; it takes 3 s on an idle machine with two cores."""

START_PAUSE_S = 0.1
STOPPING_S = 10.0

WITHOUT_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens addresses of this machine, which a proxy would look for on its own."""


class Server:
    """`mlflow ui` as a child of this process, until the block ends.

    One worker and no job runners: the default is four workers and seven job runners, which take 2 GB.
    """

    def __init__(self, uri: str, port: int, log: Path) -> None:
        """Start the server.

        Args:
            uri: Address of the database, with an absolute path.
            port: Port on the loopback interface.
            log: File for the server's output.

        Raises:
            UserError: the port is in use or invalid.
        """
        _refuse_taken(port)
        self.address = f"http://{HOST}:{port}"
        self._log, self._uri = log, uri
        command = [sys.executable, "-m", "mlflow", "ui"]
        command += ["--host", HOST, "--port", str(port), "--workers", "1"]
        # everybody can read the arguments of a process, but not its environment: `uri` can have a password
        environment = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as output:
            self._process = subprocess.Popen(
                command,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only this process, which stops the group
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_until_it_answers(self) -> None:
        """Wait until pages can be opened.

        Raises:
            UserError: the server ended or did not answer in time; the message has its last line of output.
        """
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise UserError(
                    f"MLflow's server ended with status {self._process.returncode}: {self._said()}"
                )
            if answers(f"{self.address}/health"):
                return
            time.sleep(START_PAUSE_S)
        raise UserError(f"MLflow's server did not answer within {PATIENCE_S:.0f} s: {self._said()}")

    def wait(self) -> None:
        """Wait until the server is stopped from outside.

        Raises:
            UserError: the server ended with an error.
        """
        if status := self._process.wait():
            raise UserError(f"MLflow's server ended with status {status}: {self._said()}")

    def stop(self) -> None:
        """Stop the server and its workers; kill those that do not end within ten seconds."""
        for end in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, end)
                self._process.wait(STOPPING_S)
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue

    def _said(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = without_credentials(lines[-1], self._uri) if lines else "it printed nothing"
        return f"{last} (all of it in {self._log})"


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does, after a recent stop
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"port {port} cannot be used: {error.strerror}; try callboard ui --port {port + 1}"
            ) from None


def answers(url: str) -> bool:
    """Return whether an address of this machine answers with success."""
    try:
        with WITHOUT_PROXY.open(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
