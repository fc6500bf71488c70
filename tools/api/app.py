"""The API as a web application: routes, documentation, dashboard, and what holds for every answer."""

import hmac
import mimetypes
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tools.api import routes as api_routes
from tools.api import shapes
from tools.api.download import Exports
from tools.api.feed import Feed
from tools.api.hub import Hub
from tools.api.sessions import AwayError, Sessions
from tools.api.settings import ApiSettings
from tools.api.shapes import Json

PAGES = Path(__file__).with_name("dashboard")

_SECURITY = {
    "Content-Security-Policy": (
        # Inline styles are how the chart and the documentation draw; scripts only from here.
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
DESCRIPTION = """\
Trades as they were captured, with exact prices.

- **Prices and quantities are strings** of the digits that are stored; times are ISO 8601 in UTC with milliseconds;
  ranges include their `start` and not their `end`.
- **Trade ids are integers**, exact in JavaScript up to 2^53 - 1 (9,007,199,254,740,991). The exchange's are near 10^10.
  Beyond 2^53 they would be exact here, but `JSON.parse` would round them: use a parser that knows BigInt.
- A wrong parameter is answered with **422**, which names it; an unknown symbol with **404**; too much for one answer
  with **413** and the way out; while the database is away with **503** and `Retry-After`.

### `GET /api/stream?symbols=BTCUSDT,ETHUSDT&mode=trades|ticks`

Server-sent events, for `EventSource` or `curl -N`. It is not listed below, because its answer never ends.

- `mode=trades` (the default): an event `trade` for every new trade, and for one that is back-filled later.
- `mode=ticks`: an event `tick` per symbol every 250 ms in which something traded, and `status` every second.
- `begin` says where the stream begins, `status` when the database goes and comes back.
- Come back with the header `Last-Event-ID` (an `EventSource` does so by itself), and what was missed comes first: every
  trade, or a tick that counts them all. `reset` says that this cannot be done, and that the stream begins anew.
"""


def create_app(settings: ApiSettings) -> FastAPI:
    """The application. It reads nothing before it is started."""
    sessions, hub = Sessions(settings.settings), Hub()
    feed = Feed(settings, sessions, hub)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        feed.start()
        yield
        feed.stop()
        feed.join()
        sessions.close()

    app = FastAPI(title="Trades", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.context = api_routes.Context(settings, sessions, hub, Exports(sessions), set())
    app.include_router(api_routes.router)
    app.add_exception_handler(AwayError, _away)
    app.add_exception_handler(RequestValidationError, _mistaken)
    _add_pages(app)
    app.openapi = lambda: _description(app, settings)  # type: ignore[method-assign]
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET"],
            allow_headers=["Authorization", "Last-Event-ID"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(Door, token=settings.token)
    return app


class Door:
    """Lets in who shows the token, if there is one, to what begins with /api/; adds the headers for browsers."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._expected = None if token is None else b"Bearer " + token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 401 itself, and hands on everything else."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _SECURITY.items():
                    headers[name] = value
            await send(message)

        if self._may_enter(scope):
            await self._app(scope, receive, sending)
        else:
            problem = shapes.Problem("show the API_TOKEN as `Authorization: Bearer …`")
            await Json(problem, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, sending)

    def _may_enter(self, scope: Scope) -> bool:
        # A browser asks before it sends the token to another origin, and cannot show it then.
        if self._expected is None or not scope["path"].startswith("/api/") or scope["method"] == "OPTIONS":
            return True
        shown = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, secret = shown.partition(b" ")
        return hmac.compare_digest(scheme.capitalize() + b" " + secret.strip(), self._expected)


def _away(_request: Request, error: Exception) -> Response:
    headers = {"Retry-After": str(api_routes.RETRY_AFTER_S)}
    return Json(shapes.Problem(str(error)), 503, headers)


def _mistaken(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    mistakes = [
        shapes.Mistake([str(part) for part in one["loc"]], one["msg"].removeprefix("Value error, "), one["type"])
        for one in error.errors()
    ]
    return Json(shapes.Mistakes(mistakes), 422)


def _add_pages(app: FastAPI) -> None:
    # Not every system knows it, and a browser runs no module of another type.
    mimetypes.add_type("text/javascript", ".mjs")
    fresh = {"Cache-Control": "no-cache"}

    @app.get("/", include_in_schema=False)
    def dashboard() -> Response:
        return FileResponse(PAGES / "index.html", headers=fresh)

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        return FileResponse(PAGES / "docs.html", headers=fresh)

    app.mount("/static", Pages(directory=PAGES))


class Pages(StaticFiles):
    """Files that a browser keeps, but asks for anew each time (they have an ETag)."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """The file, or that it has not changed."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _description(app: FastAPI, settings: ApiSettings) -> dict[str, Any]:
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
        for path in found["paths"].values():
            # Better than the name of a function: what its text says first.
            path["get"]["summary"] = re.split(r"[.:;,] ?", path["get"]["description"])[0]
        parts = found.setdefault("components", {})
        parts["schemas"] = shapes.components()
        if settings.token is not None:
            parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            found["security"] = [{"token": []}]
            for path in found["paths"].values():
                path["get"]["responses"]["401"] = {
                    "description": "The token is missing or wrong.",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
        app.openapi_schema = found
    return app.openapi_schema
