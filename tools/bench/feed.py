"""The feed of the benchmark, in a process of its own: its frames and pages are encoded before they are needed.

`python -m tools.bench.feed [RATE [SYMBOL…]]` prints `{"port": …}`, then answers a line of JSON to each on its standard
input (Feed.obey), and ends when that closes. Streams are opened at `ws://127.0.0.1:PORT/GROUP/stream…`; frames are sent
to a group. REST is served at `http://127.0.0.1:PORT`. The trades are the same each time.
"""

import base64
import hashlib
import itertools
import json
import socket
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from tools.exchange import tape

SYMBOLS = ("BTCUSDT", "ETHUSDT")
START_ID = 1_000_001
BEGIN_US = 1_740_000_000_000_000
"""The tape starts on 2025-02-19, so that no machine's clock is behind it."""
MARKET_RATE = 2_000.0
"""Trades per second by the frames' own timestamps: a busy market, where two trades of three share a millisecond."""
PACE_S_MIN = 0.0002
"""Frames that are due within this time are sent together."""
CHUNK_BYTES = 1 << 16
REQUEST_BYTES_MAX = 1 << 16
CONNECT_S_MAX = 60.0
SEND_S_MAX = 120.0
"""A client that reads nothing for this long counts as hung."""
LISTEN_BACKLOG = 16
_HANDSHAKE_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def trades(symbols: tuple[str, ...] = SYMBOLS, seed: int = 1, market_rate: float = MARKET_RATE) -> Iterator[tape.Trade]:
    """The endless tape: ids are consecutive per symbol, times rise, and the same arguments give the same trades."""
    specs = [tape.spec_of(symbol) for symbol in symbols]
    for order in tape.Synthetic(specs, seed, market_rate, [START_ID] * len(specs)).orders():
        yield from order.trades(BEGIN_US + order.offset_us)


class Feed:
    """The connections by group, and the frames prepared for them."""

    def __init__(self, symbols: tuple[str, ...], market_rate: float = MARKET_RATE) -> None:
        self._trades = trades(symbols, market_rate=market_rate)
        self._prepared: list[tape.Trade] = []
        self._frames: list[bytes] = []
        self._pages: list[bytes] = []
        self._groups: defaultdict[str, list[socket.socket]] = defaultdict(list)
        self._changed = threading.Condition()

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """The answer to an order: {"do": NAME, …}."""
        answers: dict[str, Callable[..., dict[str, Any]]] = {
            "prepare": self.prepare,
            "wait": self.wait,
            "send": self.send,
            "pace": self.pace,
        }
        return answers[order.pop("do")](**order)

    def prepare(self, trades: int, rest: bool = False) -> dict[str, Any]:
        """Encodes the next `trades` of the tape and drops those prepared before. `rest`: as rows for REST.

        The answer describes the last trade.
        """
        self._prepared = list(itertools.islice(self._trades, trades))
        self._frames = [] if rest else [_frame(trade) for trade in self._prepared]
        self._pages = [msgspec.json.encode(tape.rest_row(trade, True)) for trade in self._prepared] if rest else []
        last = self._prepared[-1]
        return {"symbol": last.symbol, "last_id": last.trade_id, "last_ms": last.time_us // 1_000}

    def wait(self, to: str, connections: int) -> dict[str, Any]:
        """Waits until a group has this many connections. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._groups[to]) >= connections, CONNECT_S_MAX):
                raise TimeoutError(f"{to} did not connect within {CONNECT_S_MAX:.0f} s")
        return {}

    def send(self, to: str, trades: int | None = None) -> dict[str, Any]:
        """Sends the first `trades` prepared ones to the whole group, chunk by chunk, as fast as clients read them.

        The answer gives the times of the first and the last byte, in nanoseconds of the monotonic clock, which all
        processes of a machine share.
        """
        blob = memoryview(b"".join(self._frames[:trades]))
        begun_ns = time.monotonic_ns()
        for start in range(0, len(blob), CHUNK_BYTES):
            for connection in self._groups[to]:
                connection.sendall(blob[start : start + CHUNK_BYTES])
        return {"begun_ns": begun_ns, "ended_ns": time.monotonic_ns()}

    def pace(self, to: str, rate: float, symbol: str, orders: bool = False) -> dict[str, Any]:
        """Sends the prepared trades at `rate` per second. The answer has `ids` and `sent_ns` of those of `symbol`.

        They are evenly spaced; with `orders`, all fills of a taker order are sent together, as the exchange does.
        """
        frames, connections, count = self._frames, self._groups[to], len(self._frames)
        sent_ns = [0] * count
        begun_ns = time.monotonic_ns()
        done = 0
        while done < count:
            now_ns = time.monotonic_ns()
            due = min(count, 1 + int((now_ns - begun_ns) * rate / 1e9))
            while orders and done < due < count and self._same_order(due - 1, due):
                due += 1
            if due > done:
                piece = frames[done] if due == done + 1 else b"".join(frames[done:due])
                sent_ns[done:due] = [time.monotonic_ns()] * (due - done)
                for connection in connections:
                    connection.sendall(piece)
                done = due
            else:
                time.sleep(max(PACE_S_MIN, done / rate - (now_ns - begun_ns) / 1e9))
        chosen = [index for index, trade in enumerate(self._prepared) if trade.symbol == symbol]
        return {"ids": [self._prepared[index].trade_id for index in chosen], "sent_ns": [sent_ns[i] for i in chosen]}

    def _same_order(self, one: int, other: int) -> bool:
        first, second = self._prepared[one], self._prepared[other]
        return (first.symbol, first.time_us) == (second.symbol, second.time_us)

    def accept(self, connection: socket.socket) -> None:
        """Serves one connection in its own thread: the handshake of a stream, or REST until the client closes."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        rest = b""
        while True:
            request, rest = _read_request(connection, rest)
            if not request:
                connection.close()
                return
            target = request.split(b" ", 2)[1].decode()
            key = _header(request, b"sec-websocket-key")
            if key:
                self._open(connection, target, key)
                return
            connection.sendall(_http(self._answer(target)))

    def _open(self, connection: socket.socket, target: str, key: bytes) -> None:
        token = base64.b64encode(hashlib.sha1(key + _HANDSHAKE_GUID).digest())
        connection.settimeout(SEND_S_MAX)
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        connection.sendall(head + b"Sec-WebSocket-Accept: " + token + b"\r\n\r\n")
        with self._changed:
            self._groups[target.split("/")[1]].append(connection)
            self._changed.notify_all()

    def _answer(self, target: str) -> bytes:
        """The body of a REST answer: exchangeInfo with a limit that is never reached, or a page of prepared trades."""
        url = urlsplit(target)
        if url.path.endswith("/exchangeInfo"):
            return b'{"rateLimits":[{"rateLimitType":"REQUEST_WEIGHT","interval":"MINUTE","limit":1000000000}]}'
        fields = parse_qs(url.query)
        if not self._pages or "fromId" not in fields:
            return b"[]"
        start = max(0, int(fields["fromId"][0]) - self._prepared[0].trade_id)
        return b"[" + b",".join(self._pages[start : start + int(fields["limit"][0])]) + b"]"


def _frame(trade: tape.Trade) -> bytes:
    stream = f"{trade.symbol.lower()}@trade"
    return tape.TradeFrame(stream, trade, trade.time_us + 1_000).wire(tape.Form(combined=True, micro=True))


def _read_request(connection: socket.socket, data: bytes) -> tuple[bytes, bytes]:
    """The head of the next request, and the bytes after it; an empty head if the client is gone."""
    while b"\r\n\r\n" not in data:
        try:
            more = connection.recv(REQUEST_BYTES_MAX)
        except OSError:
            more = b""
        if not more or len(data) > REQUEST_BYTES_MAX:
            return b"", b""
        data += more
    request, _, rest = data.partition(b"\r\n\r\n")
    return request, rest


def _header(request: bytes, name: bytes) -> bytes:
    for line in request.split(b"\r\n")[1:]:
        found, _, value = line.partition(b":")
        if found.strip().lower() == name:
            return value.strip()
    return b""


def _http(body: bytes) -> bytes:
    date = format_datetime(datetime.now(UTC), usegmt=True)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nDate: {date}\r\n"
    return head.encode() + b"X-MBX-USED-WEIGHT-1M: 1\r\n\r\n" + body


def _accept_all(listener: socket.socket, feed: Feed) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=feed.accept, args=(connection,), daemon=True).start()


def main(argv: list[str] | None = None) -> int:
    """Runs the feed until its standard input closes. Arguments: trades per second of the tape's own time, symbols."""
    arguments = argv if argv is not None else sys.argv[1:]
    feed = Feed(tuple(arguments[1:]) or SYMBOLS, float(arguments[0]) if arguments else MARKET_RATE)
    listener = socket.create_server(("127.0.0.1", 0), backlog=LISTEN_BACKLOG)
    threading.Thread(target=_accept_all, args=(listener, feed), daemon=True).start()
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    for line in sys.stdin:
        print(json.dumps(feed.obey(json.loads(line))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
