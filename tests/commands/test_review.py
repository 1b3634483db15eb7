"""`callboard review` as a command: the loops that it closes, one command a table, and how it ends."""

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pandas as pd
import pytest

from callboard import cli
from callboard.core.errors import UserError
from callboard.data.corrections import read_corrections
from callboard.data.verdicts import read_window_verdicts
from tests.conftest import Workspace, start_callboard

pytestmark = pytest.mark.slow


@dataclass
class Review:
    """A command that is running."""

    process: "subprocess.Popen[str]"
    page: httpx2.Client

    def answer(self, number: int, answer: str) -> Any:
        return self.page.post(f"items/{number}/answer", json={"answer": answer}).raise_for_status().json()

    def end(self, how: int = signal.SIGINT) -> str:
        """End it by a signal, and return what it prints then."""
        self.process.send_signal(how)
        return self.process.communicate(timeout=60)[0]


def start(workspace: Workspace, *arguments: str) -> "subprocess.Popen[str]":
    return start_callboard(arguments, workspace.root, workspace.environment())


def run(workspace: Workspace, *arguments: str) -> str:
    process = start(workspace, *arguments)
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 0, printed
    return printed


@contextmanager
def reviewing(workspace: Workspace, *arguments: str) -> Iterator[Review]:
    process = start(workspace, "review", *arguments, "--no-browser")
    try:
        assert process.stdout
        first = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/\S+/", first)
        assert address, first + process.stdout.read()
        assert "Ctrl-C ends the review" in process.stdout.readline()
        with httpx2.Client(base_url=address[0], trust_env=False, timeout=60) as page:
            yield Review(process, page)
    finally:
        process.kill()
        process.wait()


def labels_of(workspace: Workspace) -> pd.DataFrame:
    return pd.read_csv(workspace.root / "data/clips.csv", dtype={"recording_id": str, "species_id": str})


def test_suspects_are_reviewed_into_corrections_that_change_the_next_result(workspace: Workspace) -> None:
    run(workspace, "suspects", "--top", "4")
    table = workspace.root / "suspects.csv"
    suspects = pd.read_csv(table, dtype=str)
    with reviewing(workspace, "suspects.csv") as review:
        state = review.page.get("state").json()
        assert state["total"] == len(suspects) == 12
        item = review.page.get("items/0").json()
        assert item["recording"] == suspects["recording_id"][0]
        assert item["claim"].startswith("Labelled present, probability 0.")
        assert review.page.get("items/0/sound.wav").content.startswith(b"RIFF")
        assert review.page.get("items/0/spectrogram.png").content.startswith(b"\x89PNG")
        for number, verdict in enumerate(["absent", "present", "present"]):  # a tp, an fp, a missing row
            review.answer(number, verdict)
        refused = start(workspace, "review", "suspects.csv", "--no-browser").communicate(timeout=60)[0]
        assert "a different `callboard review` has it open" in refused
        review.process.kill()  # nothing is lost
        review.process.wait()
    assert pd.read_csv(table, dtype=str)["verdict"].dropna().tolist() == ["absent", "present", "present"]
    assert read_corrections(workspace.root / "corrections.csv").empty

    with reviewing(workspace, "suspects.csv") as review:
        assert review.page.get("state").json()["upcoming"][0] == 3
        review.answer(3, "unsure")
        printed = review.end()
    assert "1 verdict in" in printed
    assert "4 rows added to corrections.csv (2 present, 1 absent, 1 unsure)" in printed
    assert review.process.returncode == 0
    assert "0 rows added to corrections.csv, 4 there already" in run(
        workspace, "suspects", "--apply", "suspects.csv"
    )

    before = labels_of(workspace)
    workspace.dvc("exp", "run", "-S", "data.corrections=true", "crop")
    after = labels_of(workspace)
    kinds = ["recording_id", "species_id", "label_type"]
    gone = before.merge(after, "left", [*kinds, "t_min"], indicator=True).query("_merge == 'left_only'")
    new = after.merge(before, "left", [*kinds, "t_min"], indicator=True).query("_merge == 'left_only'")
    rows = suspects[["recording_id", "species_id"]].itertuples(index=False, name=None)
    tp, fp, missing, unsure = list(rows)[:4]
    assert set(new[kinds].itertuples(index=False, name=None)) == {(*tp, "fp"), (*fp, "tp"), (*missing, "tp")}
    assert set(gone[kinds].itertuples(index=False, name=None)) == {(*tp, "tp"), (*fp, "fp"), (*unsure, "tp")}


def test_predictions_are_reviewed_into_verdicts_beside_them(workspace: Workspace) -> None:
    run(workspace, "predict", "exp0051", "data/source/test", "--floor", "0.01")
    folder = workspace.root / "predictions/exp0051"
    with reviewing(workspace, "predictions/exp0051", "--count", "6") as review:
        items = [review.page.get(f"items/{number}").json() for number in range(6)]
        assert {item["species"] for item in items} == set(read_species(workspace))
        for number, verdict in enumerate(["present", "absent", "unsure"]):
            review.answer(number, verdict)
        assert review.page.post("finish", json={}).json() == {"result": ""}
        printed = review.process.communicate(timeout=60)[0]
    assert "3 verdicts in" in printed
    found = read_window_verdicts(folder / "verdicts.csv")
    assert found["verdict"].tolist() == ["present", "absent", "unsure"]
    assert found["recording"].tolist() == [item["recording"] for item in items[:3]]
    windows = pd.read_parquet(folder / "windows")
    keys = ["recording", "start_s", "end_s", "species", "score"]
    assert len(found.merge(windows, on=keys)) == 3
    with reviewing(workspace, "predictions/exp0051", "--count", "6") as review:
        assert review.page.get("items/0").json()["box"] == items[3]["box"]


def read_species(workspace: Workspace) -> list[str]:
    return pd.read_csv(workspace.root / "data/source/species.csv", dtype=str)["species_id"].tolist()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_in_peace(tmp_path: Path, how: int) -> None:
    from tests.reports.test_review_page import LINES, listed

    listed(tmp_path, LINES)
    (tmp_path / "dvc.yaml").touch()
    with reviewing(Workspace(tmp_path), "list.csv", "--recordings", "sound", "--count", "2") as review:
        review.answer(0, "present")
        assert "1 verdict in" in review.end(how)
        assert review.process.returncode == 0


def test_a_taken_port_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from tests.reports.test_review_page import LINES, listed

    listed(tmp_path, LINES)
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(UserError, match=f"port {port} cannot be used"):
            cli.dispatch(["review", "list.csv", "--recordings", "sound", "--no-browser", "--port", port])
