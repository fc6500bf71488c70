"""The API as a web application: routes, documentation, dashboard, and what holds for every answer."""

import mimetypes
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Match

from tools.api import by_id, coverage, exports, metrics, shapes
from tools.api import routes as api_routes
from tools.api.context import RETRY_AFTER_S, Context
from tools.api.described import NO_TOKEN
from tools.api.door import COOKIE, LOGIN, Door, keys_of
from tools.api.download import Exports
from tools.api.feed import Feed
from tools.api.hub import Hub
from tools.api.newest import Newest
from tools.api.sessions import AwayError, Sessions
from tools.api.settings import ApiSettings
from tools.api.shapes import Refusal
from tools.api.verdicts import Verdicts

ROUTERS = (api_routes.router, by_id.router, coverage.router, exports.router, metrics.router, api_routes.open_router)
OPEN = (LOGIN, "/healthz")
"""What needs no token."""
PAGES = Path(__file__).with_name("dashboard")

GZIP_BYTES_MIN = 1_000
GZIP_LEVEL = 5
"""A page of trades becomes a sixth, in a third of the time of the best level, which is hardly better."""
DESCRIPTION = """\
Trades as they were captured, with exact prices.

- **Prices and quantities are strings** of the digits that are stored; times are ISO 8601 in UTC with milliseconds;
  ranges include their `start` and not their `end`; a range of days, `from` and `to`, includes both.
- **Trade ids are integers**, exact in JavaScript up to 2^53 - 1 (9,007,199,254,740,991). The exchange's are near 10^10.
  Beyond 2^53 they would be exact here, but `JSON.parse` would round them: use a parser that knows BigInt.
- **`missing` says how many trade ids are missing** in the time of an answer. Above 0 the answer may be wrong: the low,
  the high, even that nothing traded. It is never left out.
- A refusal is `application/problem+json` (RFC 9457), and its `detail` says what to do. A wrong or unknown parameter is
  answered with **422**, which names it; an unknown symbol with **404**; too much for one answer with **413**; while the
  database is away with **503** and `Retry-After`.
- Answers have an `ETag`: ask with `If-None-Match`, and **304** says that nothing has changed.
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

    app = FastAPI(
        title="Trades",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation,
    )
    keys = None if settings.token is None else keys_of(settings.token)
    app.state.context = Context(settings, sessions, hub, Exports(sessions), set(), Newest(), keys, Verdicts())
    for router in ROUTERS:
        app.include_router(router)
    app.add_exception_handler(AwayError, _away)
    app.add_exception_handler(RequestValidationError, _mistaken)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _failed)
    _add_pages(app)
    app.openapi = lambda: _description(app, settings)  # type: ignore[method-assign]
    app.add_middleware(GZipMiddleware, minimum_size=GZIP_BYTES_MIN, compresslevel=GZIP_LEVEL)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET"],
            allow_headers=["Authorization", "Last-Event-ID"],
            expose_headers=["Retry-After", "ETag", "Missing-Ids"],
        )
    app.add_middleware(Door, settings=settings)
    return app


def _operation(route: APIRoute) -> str:
    """The name of an operation, from which generators of clients make that of a method: lowAndHigh."""
    first, *others = route.name.split("_")
    return first + "".join(map(str.capitalize, others))


def _away(_request: Request, error: Exception) -> Response:
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return Refusal(shapes.problem(503, f"{error}; come back in {RETRY_AFTER_S} s"), headers)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = str(error.detail)
    if detail == HTTPStatus(error.status_code).phrase:
        # What the framework refuses by itself.
        known = {404: f"there is no {request.url.path[:100]!r}", 405: f"{request.method} is not for this address"}
        detail = f"{known.get(error.status_code, detail)}; /docs says what there is"
    headers = error.headers
    if error.status_code == 405:
        headers = {"Allow": ", ".join(sorted(_methods(request)))}
    return Refusal(shapes.problem(error.status_code, detail), headers)


def _methods(request: Request) -> set[str]:
    """What an address takes; the framework names only what its first route for it does."""
    routes = [*(route for router in ROUTERS for route in router.routes), *request.app.routes]
    here = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return {method for route in here for method in getattr(route, "methods", ())} or {"GET"}


def _failed(_request: Request, _error: Exception) -> Response:
    return Refusal(shapes.problem(500, "a defect of this server; its log has the details"))


def _mistaken(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    mistakes = [
        shapes.Mistake([str(part) for part in one["loc"]], one["msg"].removeprefix("Value error, "), one["type"])
        for one in error.errors()
    ]
    words = "; ".join(f"{one.loc[-1]}: {one.msg}" for one in mistakes)
    problem = shapes.Mistakes(title=HTTPStatus(422).phrase, status=422, detail=words, errors=mistakes)
    return Refusal(problem)


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
        operations = [operation for path in found["paths"].values() for operation in path.values()]
        for operation in operations:
            # Better than the name of a function: what its text says first.
            operation["summary"] = re.split(r"\.(?:\s|$)", operation["description"])[0]
        parts = found.setdefault("components", {})
        parts["schemas"] = {"Login": parts["schemas"]["Login"]} | shapes.components()
        if settings.token is not None:
            cookie = {"type": "apiKey", "in": "cookie", "name": COOKIE}
            parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}, "cookie": cookie}
            found["security"] = [{"token": []}, {"cookie": []}]
            for name, path in found["paths"].items():
                for operation in path.values():
                    if name in OPEN:
                        operation["security"] = []
                    else:
                        operation["responses"]["401"] = NO_TOKEN
        app.openapi_schema = found
    return app.openapi_schema
