"""Captures every trade of SYMBOLS from Binance's WebSocket into MySQL, until it is stopped (Ctrl-C).

Threads: one per connection (callbacks stamp, parse and hand over), the writer, the back-fill, the rejects' file, and
the main thread, which watches over the connections and prints a line every 10 s.
"""

if __name__ == "__main__":
    from process import start

    start.prepare()

import argparse
import gc
import logging
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import websocket

import config
import db
from binance import checks, network, units
from binance.checks import Refusal
from binance.limits import RATE_LIMITED_S, meaning, retry_after_s
from capture import demo, retention
from capture.pipeline import Capture, CaptureError
from capture.shared import Shared
from capture.silence import first_of
from capture.socket_reader import BufferedApp
from model.trade import Trade
from mysqld import shared
from process import command, heap, lock, retry
from process.command import Parser, duration_s, utc_day, whole
from process.log import set_up as log_set_up
from process.retry import backoff_s, jittered

log = logging.getLogger("ws_client")

_ELSEWHERE = "BINANCE_WS_URL=wss://data-stream.binance.vision may serve you (market data only, the same trades)"

CONNECT_S_MAX = 10.0
"""For the name, TCP, TLS and handshake; also for the rest of a frame once its start has arrived."""
KINDS_MAX = 32
"""How many kinds of frames that are not trades are counted by name; further kinds count as "other"."""
ERRORS_LOGGED_MAX = 10
SYMBOLS_NAMED_MAX = 10
CONNECTIONS_MAX = 4
STANDBY_S = 0.05
"""How often a connection that brings nothing new is read: at a third of the CPU, it takes over within this."""
GC_OBJECTS = 20_000
"""New objects between two runs of the garbage collector; Python's default is 700, a batch has 4,000 trades and more."""


# ---- The wire format. Only this part knows Binance's field letters (web-socket-streams.md, "Trade Streams").


class NotATrade(Refusal):
    """A frame of another kind (`kind`): an answer, an error object, serverShutdown, another stream's event."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class _Payload(msgspec.Struct, gc=False):
    # A field and not the struct's tag, which msgspec takes for optional where there is no union.
    e: Literal["trade"]
    E: int
    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool


class _Combined(msgspec.Struct, gc=False):
    data: _Payload


_trade = tuple.__new__
"""Makes a Trade of its values in half the time that its own constructor takes."""
_decode_combined = msgspec.json.Decoder(_Combined).decode
_decode_raw = msgspec.json.Decoder(_Payload).decode


def parse_trade(frame: str | bytes, received_at: datetime | None, symbols: frozenset[str] | None = None) -> Trade:
    """The trade in a frame of a combined or raw stream. `symbols`: those that were subscribed; None: any.

    Raises NotATrade for frames that Binance sends beside trades, Refusal for everything else that is not a trade
    exactly as documented; nothing is repaired or rounded, except that the time is floored to the millisecond.
    """
    payload = _payload(frame)
    symbol = payload.s
    if symbol not in symbols if symbols is not None else not config.is_symbol(symbol):
        raise Refusal(f"symbol {symbol[:40]!r} was not subscribed")
    return _trade(
        Trade,
        (
            symbol,
            checks.time(payload.T),
            checks.trade_id(payload.t),
            checks.decimal("price", payload.p),
            checks.decimal("quantity", payload.q),
            payload.m,
            received_at,
        ),
    )


def trade_stamp(frames: Iterable[str | bytes]) -> int:
    """The time of the first trade of `frames` as it was sent, which shows its unit; 0: there is none."""
    for frame in frames:
        with suppress(Refusal):
            return _payload(frame).T
    return 0


def _payload(frame: str | bytes) -> _Payload:
    try:
        # msgspec checks the UTF-8 of the strings that it decodes, but not of those that it skips.
        if not frame.isascii():
            frame = frame.encode("utf-8") if isinstance(frame, str) else frame
            frame.decode("utf-8")
        return _decode_combined(frame).data
    except msgspec.ValidationError as error:
        try:
            return _decode_raw(frame)
        except (msgspec.DecodeError, RecursionError):
            raise _classified(frame, error) from None
    except UnicodeError:
        raise Refusal("invalid UTF-8") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refusal(f"malformed JSON: {error}") from None


def _classified(frame: str | bytes, error: msgspec.ValidationError) -> Refusal:
    """What a frame is whose JSON is valid but whose fields are not those of a trade."""
    try:
        whole = msgspec.json.decode(frame)
    except (msgspec.DecodeError, RecursionError) as malformed:
        return Refusal(f"malformed JSON: {malformed}")
    if not isinstance(whole, dict):
        return Refusal(f"a JSON {type(whole).__name__} where an object was expected")
    failure = whole.get("error", whole)
    if isinstance(failure, dict) and "code" in failure and "msg" in failure:
        return NotATrade("error", f"{failure['code']!s:.20}: {failure['msg']!s:.200}")
    if "result" in whole and "id" in whole:
        return NotATrade("answer", f"to request {whole['id']!s:.40}")
    data = whole.get("data", whole)
    event = data.get("e") if isinstance(data, dict) else None
    if isinstance(event, str) and event != "trade":
        return NotATrade(event[:40], f"event {event[:40]!r}")
    if isinstance(whole.get("stream"), str) and not whole["stream"].endswith("@trade"):
        return NotATrade(whole["stream"].rpartition("@")[2][:40], f"stream {whole['stream'][:80]!r}")
    return Refusal(f"not a trade: {error}")


# ---- Connections.


class Connection(threading.Thread):
    """Reads the streams over one socket, and reconnects until it is stopped.

    Counters: `frames`, of these `parsed` trades, `refused` frames and, by name, `others`; what became of the trades
    is in `verdicts`. `signs` counts everything that shows the socket alive, pings too. Only its own thread writes them.
    """

    def __init__(self, name: str, shared: Shared) -> None:
        super().__init__(name=name, daemon=True)
        self.frames = self.parsed = self.refused = self.pings = self.connects = 0
        self.verdicts: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.newest: dict[str, int] = {}
        self.opened_at: float | None = None
        self.shutdown_announced = False
        self._unit_seen = False
        self._shared = shared
        self._symbols = frozenset(shared.symbols)
        self._app: websocket.WebSocketApp | None = None
        self._stream: socket.socket | None = None
        self._error: Exception | None = None
        self._before = (0, 0)
        self._stop_asked = threading.Event()

    @property
    def signs(self) -> int:
        """Frames and pings so far."""
        return self.frames + self.pings

    def run(self) -> None:
        attempt = 0
        while self._may_connect():
            trades = self.parsed
            try:
                self._read_until_cut()
            except Exception as error:
                # A defect must not leave the capture one connection short for the rest of the month.
                log.exception("%s failed", self.name)
                self._error = error
            if self.parsed > trades:
                attempt = 0
            if self._stop_asked.is_set():
                return
            wait_s = jittered(self._wait_s(attempt))
            attempt += 1
            self._shared.downs.tell(self.name, self._explanation(), wait_s)
            self._stop_asked.wait(wait_s)

    def stop(self) -> None:
        """Ends the connection for good, with a close frame; returns at once."""
        self._stop_asked.set()
        app = self._app
        # Looked at once: its own thread takes it away when the connection ends.
        sock = app.sock if app is not None else None
        if sock is not None:
            try:
                sock.send_close()
            except (OSError, websocket.WebSocketException) as error:
                log.debug("%s could not send its close frame: %s", self.name, error)
        self.drop()

    def drop(self) -> None:
        """Cuts the socket, whatever state it is in; unless stopped, the thread connects again."""
        app, stream = self._app, self._stream
        if app is not None:
            app.keep_running = False
        if stream is not None:
            try:
                stream.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                log.debug("%s was already cut: %s", self.name, error)

    def _may_connect(self) -> bool:
        """Whether to connect, once the exchange's orders and its limit on attempts allow it; False: stopped."""
        while not self._stop_asked.is_set():
            wait_s = self._shared.cooldown.left_s() or self._shared.budget.wait_s()
            if not wait_s:
                return True
            self._stop_asked.wait(wait_s)
        return False

    def _read_until_cut(self) -> None:
        self._error = None
        self.connects += 1
        try:
            stream = network.open_stream(self._shared.stream_url, CONNECT_S_MAX)
        except OSError as error:
            self._error = error
            return
        self._stream = stream
        self._app = BufferedApp(
            self._shared.stream_url,
            self._pause_s,
            self._on_texts,
            socket=stream,
            on_open=self._on_open,
            on_ping=self._on_ping,
            on_error=self._on_error,
        )
        # The JSON decoder checks the UTF-8 too, and the library's check takes three times as long as all the rest.
        try:
            # A stop that came too early to cut the socket is seen here.
            if not self._stop_asked.is_set():
                self._app.run_forever(skip_utf8_validation=True)
        finally:
            self.opened_at = None
            self._app = self._stream = None
            stream.close()

    def _on_open(self, _app: websocket.WebSocketApp) -> None:
        self.shutdown_announced = self._unit_seen = False
        # Only now: who finds it open must not find what was said of the connection before it.
        self.opened_at = time.monotonic()
        log.info("%s is up: %s", self.name, self._shared.words)
        if self._stop_asked.is_set():
            self.drop()

    def _on_texts(self, frames: list[bytes], received_at: datetime) -> None:
        self.frames += len(frames)
        trades: list[Trade] = []
        for frame in frames:
            try:
                trades.append(parse_trade(frame, received_at, self._symbols))
            except Refusal as refusal:
                self._on_refusal(refusal, frame)
        if trades and not self._unit_seen:
            self._unit_seen = True
            units.look("the stream", f"BINANCE_WS_URL={self._shared.ws_url}", trade_stamp(frames))
        for trade in trades:
            if trade.trade_id > self.newest.get(trade.symbol, 0):
                self.newest[trade.symbol] = trade.trade_id
        self.verdicts.update(self._shared.inbox.put(trades)._asdict())
        # Last: who finds trades counted finds them handed over.
        self.parsed += len(trades)

    def _pause_s(self) -> float:
        """How long the thread may rest: a connection that only repeats its sibling need not hurry."""
        before, self._before = self._before, (self.verdicts["new"], self.verdicts["repeated"])
        return STANDBY_S if before[0] == self._before[0] and before[1] < self._before[1] else 0.0

    def _on_refusal(self, refusal: Refusal, frame: str | bytes) -> None:
        if not isinstance(refusal, NotATrade):
            self.refused += 1
            self._shared.rejects.put(str(refusal), frame)
            return
        self.others[refusal.kind if refusal.kind in self.others or len(self.others) < KINDS_MAX else "other"] += 1
        if refusal.kind == "serverShutdown":
            self.shutdown_announced = True
        elif refusal.kind == "error" and self.others["error"] <= ERRORS_LOGGED_MAX:
            log.error("%s: the exchange answers with an error: %s", self.name, refusal)

    def _on_ping(self, _app: websocket.WebSocketApp, _payload: bytes) -> None:
        # The library has already answered, with the same payload, in this thread, which never waits for anything.
        self.pings += 1

    def _on_error(self, _app: websocket.WebSocketApp, error: Any) -> None:
        self._error = error
        if not isinstance(error, OSError | websocket.WebSocketException):
            log.error("%s: unexpected error", self.name, exc_info=error)

    def _wait_s(self, attempt: int) -> float:
        if not isinstance(self._error, websocket.WebSocketBadStatusException):
            return backoff_s(attempt)
        if self._error.status_code in (418, 429):
            headers = {name.lower(): value for name, value in (self._error.resp_headers or {}).items()}
            wait_s = retry_after_s(headers.get("retry-after"), RATE_LIMITED_S)
            self._shared.cooldown.order(wait_s)
            return wait_s
        # A deliberate refusal does not go away within a second.
        return retry.BACKOFF_S_MAX if self._error.status_code in (403, 451) else backoff_s(attempt)

    def _explanation(self) -> str:
        error = self._error
        status = (
            getattr(error, "status_code", None) if isinstance(error, websocket.WebSocketBadStatusException) else None
        )
        if status is not None and (words := meaning(status, _ELSEWHERE)):
            return f"HTTP {status}: {words}"
        if status is not None and 300 <= status < 500:
            return f"HTTP {status}: BINANCE_WS_URL={self._shared.ws_url} has no such streams; is it the right address?"
        if isinstance(error, socket.gaierror):
            return (
                f"the name in BINANCE_WS_URL={self._shared.ws_url} is not resolved; is there a network? "
                "`make demo` captures from a stand-in exchange without one"
            )
        return str(error)[:300] if error else "the connection was cut"


def main(argv: list[str] | None = None, prog: str = "ws_client.py") -> int:
    """Runs the capture; 0 after it was stopped, 2 when only the operator can help. `prog` is what the user ran."""
    # Before the first thread, which is that of the log.
    heap.keep_small()
    parser = parser_of(prog)
    arguments = parser.parse_args(argv)
    log_set_up(arguments.log_level, folder=lambda: config.load().data_dir)
    known = (config.ConfigError, CaptureError, db.DatabaseError)
    return command.run(parser, lambda: _main(arguments), known)


def _main(arguments: argparse.Namespace) -> int:
    exchange: subprocess.Popen[str] | None = None
    try:
        settings = _settings(arguments)
        _claim(settings.capture_dir)
        if arguments.demo:
            exchange, settings = demo.start(settings)
        return _capture(settings, arguments)
    finally:
        if exchange is not None:
            demo.end(exchange, settings)


def _capture(settings: config.Settings, arguments: argparse.Namespace) -> int:
    if not db.is_fast():
        log.warning("the C extension of mysql-connector-python does not load: storing is several times slower")
    websocket.setdefaulttimeout(CONNECT_S_MAX)
    # Trades make no cycles: the collector need not look at thousands of them again and again, nor at the modules ever.
    gc.freeze()
    gc.set_threshold(GC_OBJECTS)
    capture = Capture(settings, Connection, arguments.connections, arguments.since)
    command.stop_on_signals(capture.stop_asked)
    log.info("capturing %s into database %s", first_of(settings.symbols, SYMBOLS_NAMED_MAX), settings.place)
    log.info("settings: the environment and %s", config.env_file() or "the defaults; there is no .env here")
    if settings.demo:
        log.info("these trades are made up; look at them in another terminal: make report")
    try:
        capture.run(arguments.duration)
    finally:
        command.show(capture.summary())
    return 0


def _settings(arguments: argparse.Namespace) -> config.Settings:
    settings = config.load()
    retention.check(settings)
    if arguments.since is not None and arguments.since > (today := datetime.now(UTC).date()):
        raise config.ConfigError(f"--since={arguments.since} is not over yet: today is {today} (UTC)")
    settings = config.asked_for(settings, "--symbols", arguments.symbols)
    return config.demo_of(settings) if arguments.demo else settings


def _claim(folder: Path) -> None:
    """Makes sure that no other capture uses `folder`, until this process ends. Raises CaptureError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ours = not lock.AVAILABLE or lock.try_alone(lock.open_lock(folder / "capture.lock"))
        (folder / "spool").mkdir(exist_ok=True)
    except OSError as error:
        raise CaptureError(shared.unusable(folder, error)) from error
    if not ours:
        raise CaptureError(f"another capture uses DATA_DIR={folder}; stop it, or give this one another DATA_DIR")


def parser_of(prog: str) -> Parser:
    """The parser of the flags; its errors name `prog`."""
    parser = Parser(
        prog=prog,
        description=(__doc__ or "").splitlines()[0],
        epilog="Settings come from the environment or .env: see README.md, Configuration.",
    )
    parser.add_argument(
        "--symbols", metavar="LIST", help="what to capture: BTCUSDT,ETHUSDT or *USDT or ALL (default: SYMBOLS)"
    )
    parser.add_argument(
        "--duration", metavar="TIME", type=duration_s, help="stop after 90 (seconds), 5m, 2h, 1d (default: never)"
    )
    parser.add_argument(
        "--since",
        metavar="DAY",
        type=utc_day,
        help="also bring in all trades from this UTC day on, such as 2026-11-25, while the capture runs",
    )
    parser.add_argument("--demo", action="store_true", help="capture from a stand-in exchange on this machine")
    parser.add_argument(
        "--connections",
        metavar="N",
        type=whole(1, CONNECTIONS_MAX),
        default=2,
        help="connections that read the same streams, so that one may die (1 to 4, default 2)",
    )
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    return parser


if __name__ == "__main__":
    sys.exit(main())
