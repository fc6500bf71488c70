"""What holds for every request: the host that it names, the token, its size; for every answer: headers, 304, HEAD.

Who has the token shows it as `Authorization: Bearer …`, or logs in once with it (POST /api/login) and then has a
cookie, which works for a page, an EventSource and a download too. The cookie is made of the token and does not tell it.
"""

import asyncio
import hashlib
import hmac
from typing import NamedTuple

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import config
from tools.api import shapes
from tools.api.settings import ApiSettings

BODY_BYTES_MAX = 4_096
"""Of a request; only a login has one."""
COOKIE = "trades_session"
COOKIE_S = 30 * 86_400
LOGIN = "/api/login"
METRICS = "/metrics"

_HEADERS = {
    "Content-Security-Policy": (
        # Inline styles are how the chart and the documentation draw; scripts only from here.
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_KEPT_BY_304 = ("cache-control", "etag", "vary", "date")


class Keys(NamedTuple):
    """The two proofs that somebody knows the token."""

    bearer: bytes
    cookie: str


def keys_of(token: str) -> Keys:
    """The keys of `token`."""
    cookie = hmac.new(token.encode(), b"the cookie of the dashboard", hashlib.sha256).hexdigest()
    return Keys(token.encode(), cookie)


def is_token(keys: Keys, token: str) -> bool:
    """Whether `token` is the right one."""
    return hmac.compare_digest(token.strip().encode(), keys.bearer)


def set_cookie(keys: Keys | None, headers: Headers) -> str:
    """The header that logs a browser in; without `keys` the one that logs it out."""
    # Behind a proxy that speaks TLS to the browser, the cookie must not go over anything else.
    secure = "; Secure" if headers.get("x-forwarded-proto", "") == "https" else ""
    value, seconds = (keys.cookie, COOKIE_S) if keys else ("", 0)
    return f"{COOKIE}={value}; Max-Age={seconds}; Path=/; HttpOnly; SameSite=Strict{secure}"


def host_of(text: str) -> str:
    """The host of a Host header: lower case, without its port, the brackets of IPv6 and a final dot."""
    host = text.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0].rstrip(".") if ":" in host else host.rstrip(".")


class Door:
    """Lets in who may enter; everything else is `app`'s."""

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self._app = app
        self._hosts = settings.hosts
        self._own = settings.host.lower()
        self._keys = None if settings.token is None else keys_of(settings.token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses a request itself, or hands it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        sending = _Sending(send, headers.get("if-none-match"))
        if scope["method"] == "HEAD":
            # What comes after the headers, which uvicorn leaves out, is not worth making: it may have no end.
            scope, receive = {**scope, "method": "GET"}, sending.nobody_listens
        await (self._refusal(scope, headers) or self._app)(scope, receive, sending)
        await sending.end()

    def _refusal(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        if not self._is_ours(headers.get("host", "")):
            host = headers.get("host", "")[:100]
            why = f"this server is not called {host!r}; API_ALLOWED_HOSTS lists the names that it is called by"
            return shapes.Refusal(shapes.problem(421, why))
        # A method with a body that nobody reads would keep the connection busy.
        if "transfer-encoding" in headers:
            return _close(shapes.problem(411, "a body needs a Content-Length"))
        length = headers.get("content-length", "0")
        if not length.isdigit() or len(length) > 18 or int(length) > BODY_BYTES_MAX:
            return _close(shapes.problem(413, f"a body may have {BODY_BYTES_MAX:,} bytes"))
        if not self._may_enter(scope, headers):
            why = "show the API_TOKEN as `Authorization: Bearer …`, or log in with it (POST /api/login)"
            if "authorization" in headers:
                why = f"that is not the API_TOKEN; {why}"
            return shapes.Refusal(shapes.problem(401, why), {"WWW-Authenticate": "Bearer"})
        return None

    def _is_ours(self, text: str) -> bool:
        host = host_of(text)
        if self._hosts is None or host in self._hosts or host == self._own or host.endswith(".localhost"):
            return True
        return config.is_loopback(host)

    def _may_enter(self, scope: Scope, headers: Headers) -> bool:
        # A browser asks before it sends the token to another origin, and cannot show it then.
        path = scope["path"]
        guarded = path.startswith("/api/") or path == METRICS
        if self._keys is None or not guarded or path == LOGIN or scope["method"] == "OPTIONS":
            return True
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and is_token(self._keys, secret):
            return True
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        return hmac.compare_digest(cookie.encode(), self._keys.cookie.encode())


def _close(problem: shapes.Problem) -> ASGIApp:
    return shapes.Refusal(problem, {"Connection": "close"})


class _Sending:
    """Sends an answer with the headers for browsers; 304 instead, if the client has it already."""

    def __init__(self, send: Send, known: str | None) -> None:
        self._send = send
        self._known = {part.strip().removeprefix("W/") for part in known.split(",")} if known else set()
        self._begun = asyncio.Event()
        self._ended = self._only_head = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun.set()
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            tag = headers.get("etag", "").removeprefix("W/")
            if message["status"] == 200 and tag and (tag in self._known or "*" in self._known):
                self._only_head = True
                kept = [(name, value) for name, value in message["headers"] if name.decode() in _KEPT_BY_304]
                message = {**message, "status": 304, "headers": kept}
            await self._send(message)
        elif not self._ended:
            if self._only_head:
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            self._ended = not message.get("more_body", False)
            await self._send(message)

    async def end(self) -> None:
        """Ends an answer whose body nobody wanted to hear."""
        if self._begun.is_set() and not self._ended:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def nobody_listens(self) -> Message:
        """What an application receives whose answer needs no body."""
        await self._begun.wait()
        return {"type": "http.disconnect"}
