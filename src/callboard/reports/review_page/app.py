"""The web application of a review: one page, and the addresses that it asks for items and sends answers to.

Items are known by number alone. Every address begins with a random token, without which nothing is answered.
"""

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any, Literal

from fastapi import APIRouter, FastAPI, HTTPException, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict

from callboard.analysis.review.session import ReviewSession, StaleAnswerError
from callboard.core.errors import UserError
from callboard.data.audio import BadRecording
from callboard.data.corrections import VERDICTS
from callboard.reports.review_page.clip import RenderedClip, render_clip
from callboard.reports.text import page

KNOWN_HOSTS = {"127.0.0.1", "localhost"}
"""Names of this machine. A page elsewhere can make its own name lead here, and is refused by that name."""

N_KEPT_CLIPS = 12
"""Number of clips that stay in memory, for going back and for what is fetched ahead."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class Answer(BaseModel):
    """A key that was pressed on the page."""

    model_config = ConfigDict(extra="forbid")

    answer: Literal["present", "absent", "unsure", "skip"]


class Undo(BaseModel):
    """The wish to take the last answer back."""

    model_config = ConfigDict(extra="forbid")

    item: int
    """Item of that answer, as the page believes."""


class Gatekeeper:
    """Answers 403 to requests of a foreign host or without the token, before the application sees them."""

    def __init__(self, app: AsgiApp, token: str) -> None:
        """Guard an application.

        Args:
            app: The application.
            token: First part of every path.
        """
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and self._is_welcome(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await Response("refused: open the address that `callboard review` printed", 403)(
                scope, receive, send
            )

    def _is_welcome(self, scope: Scope) -> bool:
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        is_known = len(hosts) == 1 and hosts[0].partition(":")[0].lower() in KNOWN_HOSTS
        given = scope["path"].split("/")[1].encode("utf-8", "replace")
        return secrets.compare_digest(given, self._token) and is_known


def build_app(session: ReviewSession, token: str, command: str, finish: Callable[[], str]) -> AsgiApp:
    """Build the application.

    Args:
        session: The review.
        token: First part of every path.
        command: Command line that started the review, which the page names.
        finish: Called once the page ends the review; returns a sentence to show.
    """
    items = session.queue.items
    clips = lru_cache(N_KEPT_CLIPS)(lambda number: render_clip(items[number]))

    def clip_of(number: int) -> RenderedClip:
        known(number)
        try:
            return clips(number)
        except BadRecording as error:
            raise HTTPException(422, error.reason) from error

    def known(number: int) -> None:
        if not 0 <= number < len(items):
            raise HTTPException(404, f"no item {number}; there are {len(items)}")

    def state(current: int | None = None) -> dict[str, Any]:
        upcoming = session.upcoming(current)
        return {
            "title": session.queue.title,
            "command": command,
            "total": len(items),
            "judged": len(session.verdicts),
            "new": session.n_new,
            "skipped": session.n_skipped,
            "counts": {name: list(session.verdicts.values()).count(name) for name in VERDICTS},
            "by_species": session.by_species(),
            "upcoming": upcoming,
            "last": session.last,
            "ending": session.queue.ending,
            "following": list(session.queue.following),
        }

    def changed(change: Callable[[], None], number: int | None, current: int | None) -> JSONResponse:
        known(0 if number is None else number)
        try:
            change()
        except StaleAnswerError as error:
            return JSONResponse({"problem": str(error), "is_stale": True, **state(current)}, 409)
        except UserError as error:
            return JSONResponse({"problem": str(error), "is_stale": False, **state(current)}, 409)
        return JSONResponse(state(current))

    routes = APIRouter(prefix=f"/{token}")

    @routes.get("/")
    def show() -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            "img-src blob: data:; media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )
        return HTMLResponse(page("review.html.j2", nonce=nonce), headers={"Content-Security-Policy": policy})

    @routes.get("/state")
    def read_state(after: int | None = None) -> dict[str, Any]:
        return state(after)

    @routes.get("/items/{number}")
    def describe(number: int) -> dict[str, Any]:
        known(number)
        item = items[number]
        return {
            "number": number,
            "recording": item.recording,
            "species": item.species,
            "claim": item.claim,
            "score": item.score,
            "box": {"start_s": item.start_s, "stop_s": item.stop_s, "band_hz": item.band_hz},
            "verdict": session.verdicts.get(number, ""),
            **_extent(clip_of, number),
        }

    @routes.get("/items/{number}/spectrogram.png")
    def draw(number: int) -> Response:
        return Response(clip_of(number).picture, media_type="image/png")

    @routes.get("/items/{number}/sound.wav")
    def play(number: int) -> Response:
        return Response(clip_of(number).sound, media_type="audio/wav")

    @routes.post("/items/{number}/answer")
    def answer(number: int, given: Answer) -> JSONResponse:
        return changed(lambda: session.answer(number, given.answer), number, number)

    @routes.post("/undo")
    def undo(wish: Undo) -> JSONResponse:
        return changed(lambda: session.undo(wish.item), wish.item, None)

    @routes.post("/skipped")
    def take_up_skipped() -> JSONResponse:
        return changed(session.take_up_skipped, None, None)

    @routes.post("/finish")
    def end() -> JSONResponse:
        try:
            return JSONResponse({"result": finish()})
        except UserError as error:
            return JSONResponse({"problem": str(error)}, 409)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(routes)
    return Gatekeeper(_with_headers(app), token)


def _extent(clip_of: Callable[[int], RenderedClip], number: int) -> dict[str, Any]:
    """Return the times and frequencies of an item's picture, or why there is none."""
    try:
        clip = clip_of(number)
    except HTTPException as error:
        return {"clip": None, "problem": error.detail}
    extent = {"start_s": clip.start_s, "stop_s": clip.stop_s, "top_hz": clip.top_hz}
    return {"clip": extent, "problem": ""}


HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of every answer: nothing is kept, and the token is sent nowhere."""


def _with_headers(app: AsgiApp) -> AsgiApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_more(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        await app(scope, receive, send_more)

    return answer
