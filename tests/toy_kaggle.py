"""A stand-in for Kaggle's servers on this machine, to which the real client talks."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN = "toy-token"

POINT_CLIENT_HERE = """\
import os
from kagglesdk import kaggle_env
kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.PROD] = os.environ["TOY_KAGGLE"]
"""
"""The client has no setting for it; Python runs a sitecustomize.py on the path before anything else."""


@dataclass
class ToyKaggle:
    """What the servers hold and how they answer."""

    url: str = ""
    submissions: list[dict[str, Any]] = field(default_factory=list)
    """As ListSubmissions tells them."""
    uploaded: list[bytes] = field(default_factory=list)
    created: list[dict[str, Any]] = field(default_factory=list)
    """Requests that would have made a submission."""
    refusals: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    """Name of a request to a status and a JSON answer."""
    scores: list[str] = field(default_factory=list)
    """Of the next submissions, one for each time the list is asked for while something is pending."""
    delay_s: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)

    def answer(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        """Of one request by its name."""
        if name == "IntrospectToken":
            return {"active": request.get("token") == TOKEN, "username": "toy"}
        if name == "StartSubmissionUpload":
            return {"token": "blob", "createUrl": f"{self.url}/upload"}
        if name == "CreateSubmission":
            self.created.append(request)
            new = {"ref": len(self.created), "fileName": "submission.csv", "status": "PENDING"}
            told = {"date": "2021-02-17T10:00:00.000Z", "description": request["submissionDescription"]}
            self.submissions.insert(0, new | told)
            return {"message": "Successfully submitted to Toy", "ref": 1}
        if name == "ListSubmissions":
            for one in self.submissions:
                if one["status"] == "PENDING" and self.scores and (score := self.scores.pop(0)):
                    one |= {"status": "COMPLETE", "publicScore": score}
            return {"submissions": self.submissions}
        return {}


@contextmanager
def serve(toy: ToyKaggle) -> Iterator[None]:
    """Answer requests until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            name = self.path.rpartition("/")[2]
            request = json.loads(self._body() or b"{}")
            toy.stop.wait(toy.delay_s if name != "IntrospectToken" else 0)
            status, answer = toy.refusals.get(name) or (200, toy.answer(name, request))
            self._send(status, json.dumps(answer).encode())

        def do_PUT(self) -> None:
            body = self._body()
            status = toy.refusals.get("upload", (200, {}))[0]
            if status == 200:
                toy.uploaded.append(body)
            self._send(status, b"{}")

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        toy.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            toy.stop.set()
            server.shutdown()
            thread.join()


def environment(toy: ToyKaggle, home: Path) -> dict[str, str]:
    """With which the client talks to the stand-in and knows no other credentials than its token."""
    home.mkdir(exist_ok=True)
    (home / "sitecustomize.py").write_text(POINT_CLIENT_HERE)
    return {
        "TOY_KAGGLE": toy.url,
        "PYTHONPATH": str(home),
        "HOME": str(home),
        "KAGGLE_CONFIG_DIR": str(home),
        "KAGGLE_API_TOKEN": TOKEN,
        "NO_PROXY": "127.0.0.1",
    }
