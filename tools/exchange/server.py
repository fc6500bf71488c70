"""The stand-in exchange as a server: the port, the routes for streams, REST and controls, and the connected parts."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple, TextIO

from aiohttp import web

from tools.exchange import replay, tape
from tools.exchange.archive import Archive
from tools.exchange.clock import DAY_US, Clock, day_named
from tools.exchange.faults import Faults, Gate, Parts
from tools.exchange.history import Past
from tools.exchange.ledger import Truth
from tools.exchange.memory import Memory
from tools.exchange.pace import Emission, Item, Pace
from tools.exchange.rest import Rest, RestRules
from tools.exchange.stored import Stored
from tools.exchange.stored_rest import StoredRest
from tools.exchange.streams import Hub, Rules
from tools.exchange.wishes import FaultError

TRUTH_ROWS_MAX = 100_000
"""Rows in one answer of /_truth/trades."""

TRUTH_ROWS_AT_ONCE = 1000
"""Rows of /_truth/day that are written without a pause for the tape."""

_STOP_S_MAX = 2.0
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Setup(NamedTuple):
    """Everything that defines an exchange."""

    host: str
    port: int
    items: Iterator[Item]
    history: list[tape.Trade]
    symbols: list[str]
    pace: Pace
    rules: Rules
    rest: RestRules
    seed: int
    exit_at_end: bool
    until_stdin_closes: bool
    faults: list[dict[str, object]]
    pasts: dict[str, Past]
    memory: Memory | None = None
    archive_lag_s: float = 0.0
    stored: Stored | None = None


class Listener:
    """The port: it can stop listening for a while and then reopen on the same number."""

    def __init__(self, host: str, port: int) -> None:
        # A second socket, bound but never listening, reserves the number while nothing listens on it.
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._reserved = self._bound((host, port))
        self.address: tuple[str, int] = self._reserved.getsockname()[:2]
        self._server: asyncio.Server | None = None
        self._listening = False
        self._factory: web.Server | None = None

    def _bound(self, address: tuple[str, int]) -> socket.socket:
        sock = socket.socket(self._family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address)
        except OSError:
            sock.close()
            raise
        return sock

    async def listen(self, factory: web.Server | None = None) -> None:
        """Starts accepting connections; does nothing if it already does."""
        self._factory = factory or self._factory
        if self._listening or self._factory is None:
            return
        self._listening = True
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._factory, sock=self._bound(self.address), backlog=1024)

    def refuse(self) -> None:
        """Starts refusing connections; the open ones stay."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._listening = False

    def close(self) -> None:
        """Releases the port."""
        self.refuse()
        self._reserved.close()


@web.middleware
async def _left(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """A client that leaves before its answer is complete is no mistake of the exchange's, and is not printed as one."""
    try:
        return await handler(request)
    except ConnectionResetError:
        return web.Response()


class Exchange:
    """The parts, connected: tape → truth → streams, truth → REST, and the controls."""

    def __init__(self, setup: Setup, truth_file: TextIO | None = None) -> None:
        self.setup = setup
        self.truth = Truth(setup.symbols, truth_file, setup.memory)
        self.truth.add_history(setup.history)
        for symbol, past in setup.pasts.items():
            self.truth.ledgers[symbol].add_past(past)
        self.hub = Hub(setup.rules)
        self.emission, clock, self.rest = self._replay(setup.stored) if setup.stored else self._tape()
        self.archive = Archive(self.truth, clock, setup.archive_lag_s)
        self.listener = Listener(setup.host, setup.port)
        parts, gate = Parts(self.hub, self.rest, self.archive), Gate(self.listener.refuse, self.listener.listen)
        self.faults = Faults(parts, gate, setup.seed)
        self.began_s = time.monotonic()
        self._runner: web.AppRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.too_early: Counter[str] = Counter()
        self._retry_at_s: dict[str, float] = {}

    def _tape(self) -> tuple[Emission, Clock, Rest]:
        clock = Clock(self.setup.pace.virtual_us, self.truth.newest_us)
        emission = Emission(self.setup.items, self.setup.pace, self.truth, self.hub)
        return emission, clock, Rest(self.truth, self.setup.rest, clock)

    def _replay(self, stored: Stored) -> tuple[Emission, Clock, Rest]:
        self.truth.ledgers = replay.ledgers(stored)
        emission = replay.Replay(stored, self.setup.pace, self.truth, self.hub)
        clock = replay.ReplayClock(emission)
        return emission, clock, StoredRest(self.truth, self.setup.rest, clock, stored.rest)

    @property
    def addresses(self) -> str:
        """The two base addresses, as printed in the first line of output."""
        host, port = self.listener.address
        host = f"[{host}]" if ":" in host else host
        return f"ws://{host}:{port} http://{host}:{port}"

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[_left, self._spoiled])
        app.router.add_get("/stream", self.hub.serve)
        app.router.add_get("/ws", self.hub.serve)
        app.router.add_get("/ws/{streams:.*}", self.hub.serve)
        app.router.add_get("/api/{call:.*}", self._rest)
        app.router.add_get("/_truth", self._show_truth)
        # During a replay the table is the truth, and has no archive.
        if self.setup.stored is None:
            app.router.add_get("/data/{name:.*}", self._archive)
            app.router.add_get("/_truth/trades", self._show_trades)
            app.router.add_get("/_truth/day", self._show_day)
        app.router.add_get("/_state", self._show_state)
        app.router.add_get("/_faults", self._show_faults)
        app.router.add_post("/_faults", self._add_fault)
        app.router.add_delete("/_faults", self._clear_faults)
        return app

    async def start(self) -> None:
        """Starts listening, and starts the tape."""
        self._runner = web.AppRunner(self.application(), handle_signals=False, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await self.listener.listen(self._runner.server)
        for fault in self.setup.faults:
            self.faults.apply(fault)
        self._tasks = [asyncio.create_task(self.emission.run()), asyncio.create_task(self.hub.watch())]

    async def ended(self) -> None:
        """Waits until the tape has ended and the clients have read it. Raises ReplayError."""
        await asyncio.shield(self._tasks[0])
        await self.hub.drained()

    async def say_goodbye(self) -> None:
        """Closes the connections of clients, once they have read what was sent to them."""
        await self.hub.say_goodbye("The tape has ended")

    async def stop(self) -> None:
        """Says goodbye to the clients, and closes everything within a few seconds."""
        if self.setup.stored is not None:
            self.setup.stored.tape.stop()
            self.setup.stored.rest.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in list(self.hub.clients.values()):
            client.close(1001, "Going away")
        until_s = time.monotonic() + _STOP_S_MAX
        while self.hub.clients and time.monotonic() < until_s:
            await asyncio.sleep(0.01)
        self.listener.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self.truth.flush()
        if self.setup.memory is not None:
            self.setup.memory.close()
        if self.setup.stored is not None:
            await asyncio.to_thread(self.setup.stored.close)

    @web.middleware
    async def _spoiled(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Faults act before the exchange answers; its own controls, under /_, are never affected."""
        if request.path.startswith("/_"):
            return await handler(request)
        kind, spoiled = self._kind(request.path)
        now_s = time.monotonic()
        self.too_early[kind] += now_s < self._retry_at_s.get(kind, 0.0)
        answer = await spoiled(request)
        if answer is None:
            answer = await handler(request)
        elif kind == "rest" and not answer.prepared:
            answer.headers["X-MBX-USED-WEIGHT-1M"] = str(self.rest.weight.used)
        if "Retry-After" in answer.headers:
            self._retry_at_s[kind] = now_s + float(answer.headers["Retry-After"])
        return answer

    def _kind(self, path: str) -> tuple[str, Callable[[web.Request], Awaitable[web.StreamResponse | None]]]:
        """What a path belongs to, and what faults may answer instead."""
        if path.startswith("/api/"):
            return "rest", self.faults.call
        return ("archive", self.faults.file) if path.startswith("/data/") else ("handshake", self.faults.handshake)

    async def _rest(self, request: web.Request) -> web.StreamResponse:
        await self.rest.warm(request)
        return self.rest.serve(request)

    async def _archive(self, request: web.Request) -> web.StreamResponse:
        return await self.archive.serve(request)

    async def _show_truth(self, request: web.Request) -> web.Response:
        symbol = request.query.get("symbol")
        if symbol is None:
            return web.json_response(self.truth.summaries())
        if symbol not in self.truth.ledgers:
            return web.json_response({"error": f"no such symbol: {symbol}"}, status=404)
        return web.json_response(self.truth.ledgers[symbol].summary())

    async def _show_trades(self, request: web.Request) -> web.Response:
        """Lines as in the truth file, so their sha256 is the one in /_truth."""
        try:
            ledger = self.truth.ledgers[request.query["symbol"]]
            from_id = int(request.query.get("from_id", "0"))
            limit = min(TRUTH_ROWS_MAX, int(request.query.get("limit", str(TRUTH_ROWS_MAX))))
        except (KeyError, ValueError) as error:
            return web.json_response({"error": f"give symbol=, from_id= and limit=: {error}"}, status=400)
        lines = "".join(map(tape.truth_line, ledger.emitted(from_id, limit)))
        return web.Response(text=lines, content_type="application/x-ndjson")

    async def _show_day(self, request: web.Request) -> web.StreamResponse:
        """All trades of a UTC day, deep history included, as the lines of /_truth/trades."""
        try:
            ledger = self.truth.ledgers[request.query["symbol"]]
            begin_us = day_named(request.query["day"]) * DAY_US
        except (KeyError, ValueError) as error:
            return web.json_response({"error": f"give symbol= and day=YYYY-MM-DD: {error}"}, status=400)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for columns in ledger.between(begin_us, begin_us + DAY_US):
            for begin in range(0, len(columns.ids), TRUTH_ROWS_AT_ONCE):
                part = columns.part(begin, begin + TRUTH_ROWS_AT_ONCE).trades(ledger.symbol)
                await response.write("".join(map(tape.truth_line, part)).encode())
        return response

    async def _show_faults(self, request: web.Request) -> web.Response:
        return web.json_response({"faults": self.faults.names(), **self.faults.state()})

    async def _add_fault(self, request: web.Request) -> web.Response:
        """Switches on one fault, or each of a list."""
        try:
            body = await request.json()
            wishes = body if isinstance(body, list) else [body]
            answers = [self.faults.apply(wish) for wish in wishes]
        except (FaultError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(answers if isinstance(body, list) else answers[0])

    async def _clear_faults(self, request: web.Request) -> web.Response:
        self.faults.clear()
        self._retry_at_s.clear()
        return web.json_response({"cleared": True})

    async def _show_state(self, request: web.Request) -> web.Response:
        return web.json_response(self.state())

    def state(self) -> dict[str, object]:
        """The counters and the open connections, for GET /_state."""
        clients = self.hub.clients.values()
        return {
            "tape": self.emission.state,
            "emitted": self.emission.emitted,
            "uptime_s": round(time.monotonic() - self.began_s, 3),
            "connections": [
                {
                    "index": client.index,
                    "streams": list(client.subscriptions.streams),
                    "frames_sent": client.frames_sent,
                    "backlog_bytes": client.backlog(),
                    "frozen": client.frozen,
                    "age_s": round(time.monotonic() - client.opened_s, 3),
                }
                for client in clients
            ],
            "connections_ever": self.hub.connects,
            "slow_dropped": self.hub.slow_dropped,
            "frames_sent": self.hub.frames_sent,
            "rest_calls": dict(self.rest.calls),
            "archive_calls": dict(self.archive.calls),
            "rest_weight_used": self.rest.weight.used,
            # Calls and handshakes that arrived before the Retry-After of a 429 or 418 had passed.
            "too_early": dict(self.too_early),
            "faults": self.faults.state(),
        }
