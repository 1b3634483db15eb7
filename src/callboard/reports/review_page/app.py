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
        given = scope["path"].partition("/")[2].partition("/")[0].encode("utf-8", "replace")
        return secrets.compare_digest(given, self._token) and is_known


class ReviewPage:
    """Content of the page: its state, items and pictures."""

    def __init__(self, session: ReviewSession, command: str) -> None:
        """Show a review.

        Args:
            session: The review.
            command: Command line that started it, which the page names.
        """
        self.session, self._command = session, command
        self._items = session.queue.items
        self._clips = lru_cache(N_KEPT_CLIPS)(lambda number: render_clip(self._items[number]))

    def refuse_unknown(self, number: int) -> None:
        """Answer 404 to the number of an item that does not exist."""
        if not 0 <= number < len(self._items):
            raise HTTPException(404, f"no item {number}; there are {len(self._items)}")

    def clip(self, number: int) -> RenderedClip:
        """Return picture and sound of an item; answer 422 if its recording cannot be read."""
        self.refuse_unknown(number)
        try:
            return self._clips(number)
        except BadRecording as error:
            raise HTTPException(422, error.reason) from error

    def state(self, current: int | None = None) -> dict[str, Any]:
        """Describe the review; `upcoming` begins after the item `current`."""
        session, queue = self.session, self.session.queue
        return {
            "title": queue.title,
            "command": self._command,
            "total": len(self._items),
            "judged": len(session.verdicts),
            "new": session.n_new,
            "skipped": session.n_skipped,
            "counts": {name: list(session.verdicts.values()).count(name) for name in VERDICTS},
            "by_species": session.by_species(),
            "upcoming": session.upcoming(current),
            "last": session.last,
            "ending": queue.ending,
            "following": list(queue.following),
        }

    def describe(self, number: int) -> dict[str, Any]:
        """Describe an item, with the times and frequencies of its picture, or why there is none."""
        self.refuse_unknown(number)
        item = self._items[number]
        extent, problem = None, ""
        try:
            clip = self.clip(number)
            extent = {"start_s": clip.start_s, "stop_s": clip.stop_s, "top_hz": clip.top_hz}
        except HTTPException as error:
            problem = error.detail
        return {
            "number": number,
            "recording": item.recording,
            "species": item.species,
            "claim": item.claim,
            "score": item.score,
            "box": {"start_s": item.start_s, "stop_s": item.stop_s, "band_hz": item.band_hz},
            "verdict": self.session.verdicts.get(number, ""),
            "clip": extent,
            "problem": problem,
        }

    def change(self, change: Callable[[], None], current: int | None = None) -> JSONResponse:
        """Change the review and answer with its state, and with 409 and the problem if it is refused."""
        try:
            change()
        except UserError as error:
            is_stale = isinstance(error, StaleAnswerError)
            return JSONResponse({"problem": str(error), "is_stale": is_stale, **self.state(current)}, 409)
        return JSONResponse(self.state(current))


def build_app(session: ReviewSession, token: str, command: str, finish: Callable[[], str]) -> AsgiApp:
    """Build the application.

    Args:
        session: The review.
        token: First part of every path.
        command: Command line that started the review, which the page names.
        finish: Called once the page ends the review; returns a sentence to show.
    """
    content = ReviewPage(session, command)
    routes = APIRouter(prefix=f"/{token}")

    @routes.get("/")
    def show() -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        policy = CONTENT_POLICY.format(nonce=nonce)
        return HTMLResponse(page("review.html.j2", nonce=nonce), headers={"Content-Security-Policy": policy})

    @routes.get("/state")
    def read_state(after: int | None = None) -> dict[str, Any]:
        return content.state(after)

    @routes.get("/items/{number}")
    def describe(number: int) -> dict[str, Any]:
        return content.describe(number)

    @routes.get("/items/{number}/spectrogram.png")
    def draw(number: int) -> Response:
        return Response(content.clip(number).picture, media_type="image/png")

    @routes.get("/items/{number}/sound.wav")
    def play(number: int) -> Response:
        return Response(content.clip(number).sound, media_type="audio/wav")

    @routes.post("/items/{number}/answer")
    def answer(number: int, given: Answer) -> JSONResponse:
        content.refuse_unknown(number)
        return content.change(lambda: session.answer(number, given.answer), number)

    @routes.post("/undo")
    def undo(wish: Undo) -> JSONResponse:
        content.refuse_unknown(wish.item)
        return content.change(lambda: session.undo(wish.item))

    @routes.post("/skipped")
    def take_up_skipped() -> JSONResponse:
        return content.change(session.take_up_skipped)

    @routes.post("/finish")
    def end() -> JSONResponse:
        try:
            return JSONResponse({"result": finish()})
        except UserError as error:
            return JSONResponse({"problem": str(error)}, 409)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(routes)
    return Gatekeeper(_with_headers(app), token)


CONTENT_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src blob: data:; "
    "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of the page: it loads nothing from elsewhere, and runs its own script alone."""

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
