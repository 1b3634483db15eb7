"""The page of a review by its addresses: who is let in, what is sent, pictures and sounds of items."""

import asyncio
import io
import socket
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient
from matplotlib.image import imread

from callboard.analysis.review.queues import open_queue
from callboard.analysis.review.session import ReviewSession
from callboard.analysis.review.verdict_files import ReviewItem
from callboard.core.errors import UserError
from callboard.data.sound_spans import SoundSpan
from callboard.reports.review_page.app import build_app
from callboard.reports.review_page.clip import highest_shown, levels_db, render_clip, wav_of
from callboard.reports.review_page.server import ReviewServer

RATE = 8000
TOKEN = "secret"
TONE_HZ = 1500.0


def write_tone(path: Path, seconds: float = 6.0, from_s: float = 2.5, to_s: float = 3.0) -> Path:
    """Faint noise, and a tone of TONE_HZ in a part."""
    time = np.arange(round(seconds * RATE)) / RATE
    wave = 1e-4 * np.random.default_rng(1).standard_normal(len(time))
    wave += 0.01 * np.sin(2 * np.pi * TONE_HZ * time) * ((time >= from_s) & (time < to_s))
    soundfile.write(path, wave, RATE)
    return path


def listed(folder: Path, lines: str) -> ReviewSession:
    path = folder / "list.csv"
    path.write_text(f"recording,start_s,end_s,species,score\n{lines}")
    (folder / "sound").mkdir(exist_ok=True)
    for name in ("a.wav", "b.wav"):
        write_tone(folder / "sound" / name)
    (folder / "sound/broken.wav").write_text("no sound")
    return ReviewSession(open_queue(path, folder / "sound"))


LINES = "a.wav,2.5,3,<b>wren</b>,0.25\nbroken.wav,0,1,robin,\nb.wav,0,1,wren,0.5\n"


@pytest.fixture
def session(tmp_path: Path) -> ReviewSession:
    return listed(tmp_path, LINES)


@pytest.fixture
def client(session: ReviewSession) -> TestClient:
    app: Any = build_app(session, TOKEN, "callboard review list.csv", lambda: "3 rows added")
    return TestClient(app, base_url="http://127.0.0.1:8000")


def cells(session: ReviewSession) -> list[str]:
    return [line.rpartition(",")[2] for line in session.queue.store.path.read_text().splitlines()[1:]]


# who is let in


@pytest.mark.parametrize(
    "path",
    ["/", "/state", "/wrong/state", "/secre/state", "/secretx/state", "//secret/state", "/docs", "/%73/"],
)
def test_nothing_is_answered_without_the_token(client: TestClient, path: str) -> None:
    reply = client.get(path)
    assert (reply.status_code, "list.csv" in reply.text) == (403, False)
    assert client.post(path, json={"answer": "present"}).status_code == 403


def test_a_request_of_the_server_as_a_whole_is_refused(session: ReviewSession) -> None:
    """`OPTIONS *` has a path without a slash, which no client of tests can send."""
    scope = {"type": "http", "method": "OPTIONS", "path": "*", "headers": [(b"host", b"localhost")]}
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    asyncio.run(build_app(session, TOKEN, "", str)(scope, receive, send))
    assert sent[0]["status"] == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9", 200),
        ("localhost", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example:8000", 403),
        ("", 403),
    ],
)
def test_a_foreign_name_of_this_machine_is_refused(client: TestClient, host: str, status: int) -> None:
    assert client.get(f"/{TOKEN}/state", headers={"Host": host}).status_code == status


def test_a_request_with_two_names_of_this_machine_is_refused(client: TestClient) -> None:
    both = [("Host", "localhost"), ("Host", "evil.example")]
    for headers in (both, both[::-1]):
        assert client.get(f"/{TOKEN}/state", headers=headers).status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "items/3",
        "items/-1",
        "items/a.wav",
        "items/..%2f..%2fetc%2fpasswd/sound.wav",
        "../../etc/passwd",
        "list.csv",
    ],
)
def test_the_page_names_items_by_number_and_no_file(client: TestClient, path: str) -> None:
    assert client.get(f"/{TOKEN}/{path}").status_code in (403, 404, 422)


def test_every_answer_is_kept_from_caches_and_other_pages(client: TestClient) -> None:
    for path in ("", "state", "items/0", "items/0/sound.wav", "items/9"):
        headers = client.get(f"/{TOKEN}/{path}").headers
        assert (headers["Cache-Control"], headers["Referrer-Policy"]) == ("no-store", "no-referrer")


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    reply = client.get(f"/{TOKEN}/")
    policy = reply.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'nonce-")
    assert "http://" not in reply.text
    assert "https://" not in reply.text
    assert "unsafe" not in policy


def test_the_server_listens_on_the_loopback_interface_alone(session: ReviewSession) -> None:
    with ReviewServer(session, None, "") as server:
        host, port = server._socket.getsockname()
        assert host == "127.0.0.1"
        assert server.address.startswith(f"http://127.0.0.1:{port}/")
        with pytest.raises(UserError, match=rf"port {port} cannot be used: .*; without --port"):
            ReviewServer(session, port, "")
    tokens = set()
    for _ in range(3):
        with ReviewServer(session, None, "") as server:
            tokens.add(server.address.split("/")[3])
    assert len(tokens) == 3
    assert min(map(len, tokens)) >= 32


# what is sent


def test_an_item_is_described_with_its_box_and_picture(client: TestClient) -> None:
    found = client.get(f"/{TOKEN}/items/0").json()
    assert (found["recording"], found["species"], found["score"]) == ("a.wav", "<b>wren</b>", 0.25)
    assert found["box"] == {"start_s": 2.5, "stop_s": 3.0, "band_hz": None}
    assert found["clip"] == {"start_s": 0.5, "stop_s": 5.0, "top_hz": 4000.0}
    assert client.get(f"/{TOKEN}/items/2").json()["clip"]["start_s"] == 0.0
    assert "path" not in found


def test_a_damaged_recording_is_a_message_and_can_be_skipped(
    client: TestClient, session: ReviewSession
) -> None:
    found = client.get(f"/{TOKEN}/items/1").json()
    assert found["clip"] is None
    assert "broken.wav: not a recording" in found["problem"]
    assert client.get(f"/{TOKEN}/items/1/sound.wav").status_code == 422
    assert client.post(f"/{TOKEN}/items/1/answer", json={"answer": "skip"}).json()["upcoming"] == [2, 0]


def test_an_answer_is_written_before_it_is_confirmed(client: TestClient, session: ReviewSession) -> None:
    state = client.post(f"/{TOKEN}/items/0/answer", json={"answer": "present"}).json()
    assert cells(session) == ["present", "", ""]
    assert (state["judged"], state["counts"], state["last"]) == (
        1,
        {"present": 1, "absent": 0, "unsure": 0},
        0,
    )
    assert state["upcoming"] == [1, 2]
    state = client.post(f"/{TOKEN}/undo", json={"item": 0}).json()
    assert (cells(session), state["judged"], state["upcoming"][0]) == (["", "", ""], 0, 0)


def test_a_second_answer_is_refused_with_the_state(client: TestClient, session: ReviewSession) -> None:
    client.post(f"/{TOKEN}/items/0/answer", json={"answer": "present"})
    reply = client.post(f"/{TOKEN}/items/0/answer", json={"answer": "absent"})
    assert (reply.status_code, reply.json()["is_stale"]) == (409, True)
    assert "already judged 'present'" in reply.json()["problem"]
    assert cells(session) == ["present", "", ""]
    assert client.post(f"/{TOKEN}/undo", json={"item": 2}).status_code == 409


def test_a_table_that_was_changed_is_a_message(client: TestClient, session: ReviewSession) -> None:
    path = session.queue.store.path
    path.write_text(path.read_text() + "\n")
    reply = client.post(f"/{TOKEN}/items/0/answer", json={"answer": "present"})
    assert (reply.status_code, reply.json()["is_stale"]) == (409, False)
    assert "a different program has changed it" in reply.json()["problem"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("items/0/answer", {"answer": "maybe"}),
        ("items/0/answer", {"answer": "present", "path": "/etc/passwd"}),
        ("items/0/answer", {}),
        ("undo", {"item": "x"}),
    ],
)
def test_other_bodies_are_refused(client: TestClient, session: ReviewSession, path: str, body: Any) -> None:
    before = session.queue.store.path.read_bytes()
    assert client.post(f"/{TOKEN}/{path}", json=body).status_code == 422
    assert client.post(f"/{TOKEN}/items/7/answer", json={"answer": "present"}).status_code == 404
    assert session.queue.store.path.read_bytes() == before


def test_answers_from_two_windows_at_once_are_both_kept(tmp_path: Path) -> None:
    session = listed(tmp_path, "".join(f"a.wav,0,1,s{n},\n" for n in range(40)))
    app: Any = build_app(session, TOKEN, "", str)
    statuses: list[int] = []

    def press(answer: str) -> None:
        window = TestClient(app, base_url="http://127.0.0.1")
        for number in range(40):
            reply = window.post(f"/{TOKEN}/items/{number}/answer", json={"answer": answer})
            statuses.append(reply.status_code)

    windows = [Thread(target=press, args=(answer,)) for answer in ("present", "absent")]
    for window in windows:
        window.start()
    for window in windows:
        window.join()
    assert sorted(statuses) == [200] * 40 + [409] * 40
    assert cells(session) == [session.verdicts[number] for number in range(40)]


def test_the_end_is_answered_with_its_result(client: TestClient, session: ReviewSession) -> None:
    assert client.post(f"/{TOKEN}/finish", json={}).json() == {"result": "3 rows added"}

    def refuse() -> str:
        raise UserError("row 2 does not fit")

    app: Any = build_app(session, TOKEN, "", refuse)
    reply = TestClient(app, base_url="http://localhost").post(f"/{TOKEN}/finish", json={})
    assert (reply.status_code, reply.json()) == (409, {"problem": "row 2 does not fit"})


def test_a_running_server_answers_and_the_page_can_end_it(session: ReviewSession) -> None:
    with ReviewServer(session, None, "") as server:
        thread = Thread(target=server.run)
        thread.start()
        try:
            with httpx2.Client(base_url=server.address, trust_env=False) as browser:
                assert browser.get("state").json()["total"] == 3
                assert browser.post("finish", json={}).json() == {"result": ""}
            thread.join(10)
            assert not thread.is_alive()
        finally:
            server.stop()
            thread.join(10)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(server.address.split(":")[2].split("/")[0])))


# pictures and sounds


def item(path: Path, **values: Any) -> ReviewItem:
    return ReviewItem(path.name, path, "wren", 2.5, 3.0, **values)


def test_the_picture_has_the_tone_at_its_time_and_frequency(tmp_path: Path) -> None:
    clip = render_clip(item(write_tone(tmp_path / "a.wav")))
    picture = imread(io.BytesIO(clip.picture))[..., :3].sum(axis=2)
    bright = np.argwhere(picture > 0.8 * picture.max())
    rows, columns = bright[:, 0] / picture.shape[0], bright[:, 1] / picture.shape[1]
    seconds = clip.start_s + columns * (clip.stop_s - clip.start_s)
    assert (seconds.min(), seconds.max()) == pytest.approx((2.5, 3.0), abs=0.05)
    assert (1 - rows.mean()) * clip.top_hz == pytest.approx(TONE_HZ, abs=40)


def test_levels_are_those_of_the_spectrum_of_a_frame() -> None:
    rng = np.random.default_rng(3)
    span = SoundSpan(rng.standard_normal(4000).astype(np.float32), RATE, 0.0)
    level = levels_db(span, 4000.0)
    n_window, n_fft = 344, 2 * (len(level) - 1)
    assert (level.shape[1], n_fft) == (1200, 1024)
    centre = int(600.5 * 4000 / 1200)
    frame = span.waveform[centre - n_window // 2 :][:n_window] * np.hanning(n_window)
    expected = 20 * np.log10(np.abs(np.fft.rfft(frame, n_fft)))
    np.testing.assert_allclose(level[:, 600], expected, atol=1e-2)


@pytest.mark.parametrize(
    ("values", "rate", "expected"),
    [
        ({"band_hz": (500.0, 4000.0)}, 48000, 6000),
        ({"band_hz": (100.0, 300.0)}, 48000, 4000),
        ({"band_hz": (500.0, 4000.0)}, 8000, 4000),
        ({"top_hz": 12000.0}, 48000, 18000),
        ({}, 48000, 16000),
        ({}, 24000, 12000),
        ({}, 384000, 192000),
    ],
)
def test_the_picture_reaches_above_the_box(values: dict[str, Any], rate: int, expected: float) -> None:
    assert highest_shown(item(Path("a.wav"), **values), rate) == expected


@pytest.mark.parametrize(("rate", "played"), [(2000, 8000), (24000, 24000), (384000, 48000)])
def test_the_sound_is_one_that_browsers_play(rate: int, played: int) -> None:
    faint = 0.001 * np.sin(np.arange(rate) / rate * 2 * np.pi * 300).astype(np.float32)
    waveform, found = soundfile.read(io.BytesIO(wav_of(SoundSpan(faint, rate, 0.0))))
    assert (found, len(waveform)) == (played, played)
    assert np.abs(waveform).max() == pytest.approx(0.03, rel=0.05)  # 30 times as loud, and no more
    loud = SoundSpan(np.float32(2) * np.sign(faint), rate, 0.0)
    assert np.abs(soundfile.read(io.BytesIO(wav_of(loud)))[0]).max() <= 1
    silent, _ = soundfile.read(io.BytesIO(wav_of(SoundSpan(0 * faint, rate, 0.0))))
    assert not silent.any()
