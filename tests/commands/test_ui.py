import shutil
import socket
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from callboard.commands import ui
from callboard.core.errors import UserError
from callboard.results.mlflow.connection import one_writer, our_experiment, prepare_environment
from callboard.results.mlflow.server import Server, answers


def test_a_missing_database_says_what_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with pytest.raises(UserError, match=r"no results yet: .*mlflow\.db does not exist; `dvc repro`"):
        ui.refuse_without_results(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize("kind", ["cv", "author"])
def test_a_database_without_a_finished_run_says_what_makes_one(
    tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    uri = f"sqlite:///{shutil.copy(empty_database, tmp_path / 'mlflow.db')}"
    with pytest.raises(UserError, match="holds none; `dvc repro` makes the first"):
        ui.refuse_without_results(uri)
    with one_writer(), our_experiment(uri) as (client, experiment_id):
        run_id = client.create_run(experiment_id, tags={"callboard.kind": kind}).info.run_id
        with pytest.raises(UserError, match="holds none"):
            ui.refuse_without_results(uri)
        client.set_terminated(run_id)
    ui.refuse_without_results(uri)


def test_a_file_that_is_no_database_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / "mlflow.db").write_text("something else, longer than the header of a database has to be")
    with pytest.raises(UserError, match=r"mlflow\.db: file is not a database"):
        ui.refuse_without_results(f"sqlite:///{tmp_path / 'mlflow.db'}")


def test_the_server_is_lean_and_not_misled_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: dict[str, Any] = {}

    def popen(command: list[str], **options: Any) -> None:
        started.update(command=command, env=options["env"])

    monkeypatch.setattr("callboard.results.mlflow.server.subprocess.Popen", popen)
    monkeypatch.setenv("MLFLOW_RUN_ID", "f00")
    prepare_environment()
    Server("postgresql://me:pw@db/runs", 5051, tmp_path / "log")
    options = dict(zip(started["command"][4::2], started["command"][5::2], strict=True))
    assert started["command"][1:4] == ["-m", "mlflow", "ui"]
    assert options["--workers"] == "1"
    assert started["env"]["MLFLOW_BACKEND_STORE_URI"] == "postgresql://me:pw@db/runs"
    assert "pw" not in " ".join(started["command"])  # which every user of the machine can read
    assert started["env"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert "MLFLOW_RUN_ID" not in started["env"]


def test_the_own_server_is_not_looked_for_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        Thread(target=server.handle_request).start()
        assert answers(f"http://127.0.0.1:{server.server_port}/health")


def test_a_port_in_use_is_one_sentence_with_another_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port} cannot be used: .*; try .* --port {port + 1}"):
            Server("sqlite:///none.db", port, tmp_path / "log")


def test_a_server_that_ends_by_itself_is_told_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho first\necho no such column\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = r"ended with status 3: no such column \(all of it in .*log\)"
    with Server("sqlite:///none.db", port, tmp_path / "log") as server, pytest.raises(UserError, match=words):
        server.wait_until_it_answers()


@pytest.mark.parametrize(
    ("variables", "expected"), [({}, False), ({"DISPLAY": ":0"}, True), ({"DISPLAY": ""}, False)]
)
def test_a_browser_is_opened_only_where_it_has_a_window(
    variables: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ui.has_display() == expected
