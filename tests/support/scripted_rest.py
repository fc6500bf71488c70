"""A REST server whose every answer a test writes itself: what the stand-in exchange, which is faithful, never sends."""

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from binance.limits import Cooldown
from binance.rest import Rest

WEIGHT_HEADER = "X-MBX-USED-WEIGHT-1M"


class Reply(NamedTuple):
    """An answer. `announced`: the Content-Length if it is not the body's; `end`: "keep", "close" or "reset"."""

    body: bytes = b"[]"
    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012
    announced: int | None = None
    end: str = "keep"
    drip_s: float = 0.0


Script = Callable[[str, dict[str, str]], Reply]


def exchange_info(limit: object = 6_000) -> Reply:
    """An exchangeInfo answer with that limit of weight per minute."""
    limits = [
        {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 1},
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": limit},
    ]
    return Reply(json.dumps({"rateLimits": limits}).encode())


def row(trade_id: int, **changed: object) -> dict[str, object]:
    """A row of historicalTrades."""
    return {
        "id": trade_id,
        "price": "61837.63000000",
        "qty": "0.02000000",
        "quoteQty": "1236.75260000",
        "time": 1_723_161_255_342_789 + 1_000 * trade_id,
        "isBuyerMaker": True,
        "isBestMatch": True,
    } | changed


def rows(first: int, count: int) -> Reply:
    """The answer with `count` trades from `first` on."""
    return Reply(json.dumps([row(n) for n in range(first, first + count)]).encode())


class ScriptedRest:
    """Answers historicalTrades as `script(symbol, query)` says; another call without a symbol gives its path instead.
    `asked`: the calls and their queries, in order; `units`: the unit of time that each wants."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.info = exchange_info()
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.units: list[str | None] = []
        self.clients: set[tuple[str, int]] = set()
        self.over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._answer(self)

            def log_message(self, *_arguments: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "ScriptedRest":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def calls(self) -> list[dict[str, str]]:
        """The queries of historicalTrades."""
        return [query for call, query in self.asked if call == "historicalTrades"]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        call = parts.path.removeprefix("/api/v3/")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.asked.append((call, query))
        self.units.append(handler.headers.get("X-MBX-TIME-UNIT"))
        self._send(handler, self.info if call == "exchangeInfo" else self.script(query.get("symbol", call), query))

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        self.clients.add(handler.client_address)
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        if "Transfer-Encoding" not in reply.headers:
            handler.send_header("Content-Length", str(len(reply.body) if reply.announced is None else reply.announced))
        handler.end_headers()
        self._write(handler, reply)
        if reply.end == "reset":
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.close_connection = reply.end != "keep"

    def _write(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        try:
            if not reply.drip_s:
                handler.wfile.write(reply.body)
                return
            for byte in reply.body:
                handler.wfile.write(bytes([byte]))
                if self.over.wait(reply.drip_s):
                    return
        except OSError:
            handler.close_connection = True


class Clock:
    """Seconds that pass only by waiting; each wait is noted."""

    def __init__(self) -> None:
        self.now = 5_000.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def always(reply: Reply) -> Script:
    """The same answer to everything."""
    return lambda _symbol, _query: reply


def served(_symbol: str, query: dict[str, str]) -> Reply:
    """What was asked for."""
    return rows(int(query["fromId"]), int(query["limit"]))


@contextmanager
def talking(
    script: Script = served,
) -> Iterator[tuple[ScriptedRest, Rest, Clock, Cooldown]]:
    """A server with a script, and a client whose waits are only noted."""
    clock = Clock()
    cooldown = Cooldown(clock)
    with ScriptedRest(script) as server:
        client = Rest(server.url, cooldown, clock.wait)
        yield server, client, clock, cooldown
        client.close()
