"""The page of a review as a person uses it: driven in a headless Chromium by keys, clicks and taps."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from callboard.analysis.review.session import ReviewSession
from callboard.analysis.review.verdict_files import ReviewItem
from callboard.reports.review_page.clip import RenderedClip
from callboard.reports.review_page.server import ReviewServer
from tests.reports.test_review_page import listed
from tests.toy_browser import IN_BROWSER, SCREENSHOTS, WAIT_MS, chromium

pytestmark = IN_BROWSER

LINES = "".join(f"{'ab'[n % 2]}.wav,{n / 2},{n / 2 + 0.5},s{n},0.{n + 1}\n" for n in range(6))
EXPECTED_NOISE = ("409 (Conflict)", "500 (Internal Server Error)", "ERR_CONNECTION_REFUSED")
"""Chromium logs refusals, faults and a server that has stopped, which the page shows in words."""


@dataclass
class Running:
    """A review that is served by a thread."""

    session: ReviewSession
    server: ReviewServer
    thread: Thread

    def cells(self) -> list[str]:
        lines = self.session.queue.store.path.read_text().splitlines()[1:]
        return [line.rpartition(",")[2] for line in lines]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def start(lines: str = LINES) -> Running:
        session = listed(tmp_path, lines)
        server = ReviewServer(session, None, "callboard review list.csv --recordings sound")
        thread = Thread(target=server.run)
        thread.start()
        running.append(Running(session, server, thread))
        return running[-1]

    yield start
    for one in running:
        one.server.stop()
        one.thread.join(20)
        one.server.__exit__()
        assert not one.thread.is_alive()


@pytest.fixture
def tab(browser: Any, request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Open windows that share nothing; what they complain of fails the test, their last look is kept."""
    pages: list[Any] = []
    complaints: list[str] = []

    def open_tab(address: str, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        page.locator("#species", has_text=re.compile("s")).wait_for()
        pages.append(page)
        return page

    yield open_tab
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for number, page in enumerate(pages):
        name = re.sub(r"\W+", "-", request.node.name.removeprefix("test_"))
        page.screenshot(path=SCREENSHOTS / f"review-{name}-{number}.png")
        page.context.close()
    assert [one for one in complaints if not any(noise in one for noise in EXPECTED_NOISE)] == []


def shows(page: Any, species: str) -> None:
    page.locator("#species", has_text=re.compile(f"^{species}$")).wait_for()


def says(page: Any, words: str) -> None:
    page.locator("#message", has_text=words).wait_for()


def until(page: Any, condition: str) -> None:
    """Wait for a condition; playwright's own way of waiting is code that the page's policy forbids."""
    end = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(20)


def sound(page: Any, what: str) -> Any:
    return page.evaluate(f"document.getElementById('sound').{what}")


def test_a_key_is_a_verdict_and_is_in_the_file_at_once(serve: Any, tab: Any) -> None:
    running = serve()
    page = tab(running.server.address)
    keys = ["ArrowUp", "a", "U", "ArrowRight", "p", "ArrowDown"]
    expected = ["present", "absent", "unsure", "", "present", "absent"]
    for number, key in enumerate(keys):
        shows(page, f"s{number}")
        page.keyboard.press(key)
        says(page, "Skipped." if key == "ArrowRight" else f"{expected[number].title()}, saved.")
        assert running.cells()[: number + 1] == expected[: number + 1]
        percent = [16, 33, 50, 66, 83, 100][number]
        assert page.locator("#place strong").inner_text() == f"{percent} %"
    page.get_by_role("heading", name="End of the queue").wait_for()
    assert page.get_by_text("5 of 6 judged").is_visible()


def test_undo_goes_back_also_from_the_end_and_after_a_reload(serve: Any, tab: Any) -> None:
    running = serve("a.wav,0,1,s0,\na.wav,1,2,s1,\n")
    page = tab(running.server.address)
    assert page.get_by_role("button", name="Undo", exact=False).first.is_disabled()
    page.keyboard.press("p")
    shows(page, "s1")
    page.keyboard.press("s")
    page.get_by_role("heading", name="End of the queue").wait_for()
    page.reload()
    page.get_by_role("heading", name="End of the queue").wait_for()
    page.keyboard.press("ArrowLeft")
    shows(page, "s1")
    page.keyboard.press("z")
    shows(page, "s0")
    assert running.cells() == ["", ""]
    page.keyboard.press("z")
    says(page, "Nothing to undo.")


def test_the_sound_plays_with_its_margins_and_the_cursor_moves(serve: Any, tab: Any) -> None:
    page = tab(serve().server.address)
    for species in ("s1", "s2", "s3"):
        page.keyboard.press("s")
        shows(page, species)
    until(page, "document.getElementById('sound').duration > 0")
    assert sound(page, "duration") == pytest.approx(4.0, abs=0.01)  # 1.5 to 2.0 s, 2 s before cut to 1.5
    if sound(page, "paused"):  # a browser may refuse to play before a key
        page.keyboard.press("Space")
    until(page, "document.getElementById('sound').currentTime > 0.3")
    left = float(page.locator("#cursor").evaluate("line => parseFloat(line.style.left)"))
    assert 0 < left <= 100
    page.keyboard.press("Space")
    until(page, "document.getElementById('sound').paused")
    assert sound(page, "loop") is True
    page.keyboard.press("l")
    assert sound(page, "loop") is False
    place = page.locator("#screen").bounding_box()
    page.mouse.click(place["x"] + 0.5 * place["width"], place["y"] + 20)
    until(page, "!document.getElementById('sound').paused")
    assert sound(page, "currentTime") == pytest.approx(2.0, abs=0.5)


def test_the_box_and_the_axes_are_where_the_picture_has_them(serve: Any, tab: Any) -> None:
    page = tab(serve("a.wav,2.5,3,s0,\n").server.address)
    until(page, "document.querySelectorAll('#frequencies span').length > 2")
    screen, box = page.locator("#screen").bounding_box(), page.locator("#box").bounding_box()
    assert (box["x"] - screen["x"]) / screen["width"] == pytest.approx(2 / 4.5, abs=0.01)
    assert box["width"] / screen["width"] == pytest.approx(0.5 / 4.5, abs=0.01)
    labels = page.locator("#frequencies span")
    assert {"0 Hz", "500 Hz", "1 kHz", "3.5 kHz"} <= set(labels.all_inner_texts())
    label = labels.filter(has_text=re.compile("^1 kHz$")).bounding_box()
    middle = screen["y"] + screen["height"] - (label["y"] + label["height"] / 2)
    assert middle / screen["height"] == pytest.approx(0.25, abs=0.02)  # of 4 kHz
    assert page.locator("#picture").evaluate("image => image.naturalWidth") == 1200
    assert page.locator("#times span").first.inner_text() == "0.5 s"


def test_a_reload_in_the_middle_resumes_at_the_same_item(serve: Any, tab: Any) -> None:
    running = serve()
    page = tab(running.server.address)
    page.keyboard.press("p")
    shows(page, "s1")
    page.keyboard.press("s")
    shows(page, "s2")
    page.reload()
    shows(page, "s2")
    assert page.locator("#place").inner_text() == "33 % · 2 of 6"
    page.keyboard.press("z")
    shows(page, "s1")


def test_two_tabs_do_not_overwrite_each_other(serve: Any, tab: Any) -> None:
    running = serve()
    first, second = tab(running.server.address), tab(running.server.address)
    first.keyboard.press("p")
    shows(first, "s1")
    shows(second, "s0")
    second.keyboard.press("a")
    says(second, "Already judged 'present' in a different window; this verdict was kept.")
    shows(second, "s1")
    assert running.cells()[0] == "present"
    second.keyboard.press("u")
    shows(second, "s2")
    assert running.cells()[:2] == ["present", "unsure"]
    first.keyboard.press("z")
    says(first, "The last answer was given in a different window; undo again takes that one back.")
    assert running.cells()[:2] == ["present", "unsure"]
    first.keyboard.press("z")
    says(first, "Taken back")
    shows(first, "s1")
    assert running.cells()[:2] == ["present", ""]


def test_a_key_that_is_held_down_judges_once(serve: Any, tab: Any) -> None:
    running = serve()
    page = tab(running.server.address)
    page.keyboard.down("p")
    shows(page, "s1")
    for _ in range(3):
        page.keyboard.down("p")
        page.wait_for_timeout(100)
    page.keyboard.up("p")
    page.keyboard.press("Control+a")
    page.wait_for_timeout(200)
    assert running.cells() == ["present", "", "", "", "", ""]


def test_the_keyboard_alone_reaches_every_button(serve: Any, tab: Any) -> None:
    running = serve()
    page = tab(running.server.address)
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.answer") == "unsure":
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Space")
    shows(page, "s1")
    assert running.cells()[0] == "unsure"


def test_a_damaged_recording_is_shown_as_such_and_skipped(serve: Any, tab: Any) -> None:
    page = tab(serve("broken.wav,0,1,s0,\na.wav,0,1,s1,\n").server.address)
    page.get_by_role("alert").filter(has_text="This recording cannot be played").wait_for()
    page.keyboard.press("s")
    shows(page, "s1")
    until(page, "document.getElementById('sound').duration > 0")
    assert not page.get_by_role("alert").is_visible()


def test_a_fault_of_ours_does_not_stop_the_queue(
    serve: Any, tab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from callboard.reports.review_page import app

    render = app.render_clip

    def faulty(item: ReviewItem) -> RenderedClip:
        return render(item if item.species != "s1" else None)  # type: ignore[arg-type]

    monkeypatch.setattr(app, "render_clip", faulty)
    running = serve()
    page = tab(running.server.address)
    page.keyboard.press("p")
    page.get_by_role("alert").filter(has_text="500").wait_for()
    assert page.locator("#recording").inner_text() == "Place 2"
    page.keyboard.press("s")
    shows(page, "s2")
    assert running.cells() == ["present", "", "", "", "", ""]


def test_the_end_has_a_summary_and_ends_the_command(serve: Any, tab: Any) -> None:
    running = serve("a.wav,0,1,sparrow,\na.wav,1,2,swift,\na.wav,2,3,swift,\n")
    page = tab(running.server.address)
    for species, key in (("sparrow", "p"), ("swift", "s"), ("swift", "a")):
        shows(page, species)
        page.keyboard.press(key)
        page.wait_for_timeout(150)
    rows = [row.split() for row in page.locator("#species-table tr").all_inner_texts()]
    assert rows == [
        ["species", "present", "absent", "unsure"],
        ["sparrow", "1", "0", "0"],
        ["swift", "0", "1", "0"],
    ]
    page.get_by_role("button", name="Judge the skipped ones (1)").click()
    shows(page, "swift")
    page.get_by_role("button", name="Summary").click()
    page.get_by_role("button", name="Finish the review").click()
    page.get_by_role("heading", name="The review has ended").wait_for()
    running.thread.join(20)
    assert not running.thread.is_alive()
    assert running.cells() == ["present", "", "absent"]


def test_a_stopped_server_is_told_with_the_command_that_continues(serve: Any, tab: Any) -> None:
    running = serve()
    page = tab(running.server.address)
    running.server.stop()
    running.thread.join(20)
    running.server.__exit__()
    page.keyboard.press("p")
    says(page, "To go on: callboard review list.csv --recordings sound")
    shows(page, "s0")
    assert running.session.verdicts == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_without_scrolling_sideways(serve: Any, tab: Any, scheme: str) -> None:
    long = "s" + "abcdefgh" * 8
    running = serve(f"a.wav,0,1,{long},0.5\na.wav,1,2,s1,\n")
    page = tab(
        running.server.address,
        viewport={"width": 375, "height": 667},
        has_touch=True,
        is_mobile=True,
        color_scheme=scheme,
    )
    fits = "document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(fits)
    for name in ("Present", "Absent", "Unsure", "Skip", "Undo"):
        place = page.get_by_role("button", name=re.compile(f"^{name}")).bounding_box()
        assert place["height"] >= 44
        assert place["width"] >= 44
        assert place["y"] + place["height"] <= 667  # no scrolling to reach it
    page.get_by_role("button", name=re.compile("^Present")).tap()
    shows(page, "s1")
    assert running.cells()[0] == "present"
    assert page.locator("#player").bounding_box()["y"] + 44 <= page.locator("footer").bounding_box()["y"]
    page.get_by_role("button", name="Summary").tap()
    page.get_by_role("heading", name="Summary").wait_for()
    assert page.evaluate(fits)


def test_a_wrong_token_shows_nothing(serve: Any, browser: Any) -> None:
    address = serve().server.address
    page = browser.new_page()
    for wrong in (address.replace(address.split("/")[3], "x" * 32), address.rsplit("/", 2)[0] + "/"):
        reply = page.goto(wrong)
        assert reply.status == 403
        assert "list.csv" not in page.content()
    page.close()
