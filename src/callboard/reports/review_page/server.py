"""The server of a review on this machine, until the page or Ctrl-C ends it."""

import secrets
import socket
from typing import Self

import uvicorn

from callboard.analysis.review.session import ReviewSession
from callboard.core.errors import UserError
from callboard.reports.review_page.app import build_app
from callboard.results.mlflow.server import HOST

GRACE_S = 1
"""Wait for open connections at the end, seconds."""


class ReviewServer:
    """Serves a review at an address that nobody can guess, on the loopback interface alone."""

    def __init__(self, session: ReviewSession, port: int | None, command: str) -> None:
        """Take the port, so that the address can be opened at once.

        Args:
            session: The review.
            port: Port on the loopback interface; None for a free one.
            command: Command line that started the review.

        Raises:
            UserError: The port is in use.
        """
        self._session = session
        self._socket = _listening(port)
        self._result: str | None = None
        token = secrets.token_urlsafe(24)
        self.address = f"http://{HOST}:{self._socket.getsockname()[1]}/{token}/"
        config = uvicorn.Config(
            build_app(session, token, command, self._finish_from_page),
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
        self._server = uvicorn.Server(config)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def run(self) -> None:
        """Serve until the page ends the review, or Ctrl-C does, which raises KeyboardInterrupt."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """End `run`, from a different thread."""
        self._server.should_exit = True

    def finish(self) -> str:
        """Do what the queue does at its end, unless the page has done it, and return the result.

        Raises:
            UserError: The verdicts are not accepted.
        """
        if self._result is None:
            self._result = self._session.queue.finish() if self._session.verdicts else ""
        return self._result

    def _finish_from_page(self) -> str:
        result = self.finish()
        self.stop()
        return result


def _listening(port: int | None) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port or 0))
    except OSError as error:
        listener.close()
        raise UserError(
            f"port {port} cannot be used: {error.strerror}; without --port, a free one is taken"
        ) from None
    listener.listen()
    return listener
