"""Fault injection in the stand-in exchange: which faults are on, for which connections, for how long.

Faults are switched on by JSON or by a flag; everything is seeded and bounded. The faults themselves are in
`stream_faults.py`, `answer_faults.py` and `archive_faults.py`.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from aiohttp import web

from tools.exchange import answer_faults as answers
from tools.exchange import archive_faults as files
from tools.exchange import stream_faults as kinds
from tools.exchange.archive import Archive, Recipe
from tools.exchange.rest import Rest
from tools.exchange.streams import Client, Hub
from tools.exchange.tape import Frame
from tools.exchange.wishes import COUNT_MAX, FaultError, Wish, checked

ACTIVE_MAX = 1000
"""How many faults may be switched on or scheduled at once."""


class Parts(NamedTuple):
    """The parts of the exchange that faults can reach."""

    hub: Hub
    rest: Rest
    archive: Archive


class Gate(NamedTuple):
    """What faults can do to the port."""

    refuse: Callable[[], None]
    listen: Callable[[], Any]


class Faults:
    """The faults that are on. The exchange consults this before it sends or answers anything."""

    def __init__(self, parts: Parts, gate: Gate, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._hub, self._rest, self._gate, self._seed = parts.hub, parts.rest, gate, seed
        parts.archive.recipe = self._recipe
        self._on: list[kinds.Active] = []
        self._timers: set[asyncio.TimerHandle] = set()
        self._scheduled = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked = 0
        self._world = kinds.World(*parts, self._later)
        self._whole: dict[str, Callable[[Wish], int]] = {
            "refuse": self._refuse,
            "rest_lag": self._rest_lag,
            "rest_hole": self._rest_hole,
            "rest_late": self._rest_late,
            "rest_symbol": self._rest_symbol,
        }

    def names(self) -> dict[str, str]:
        """All faults, each with a description."""
        tables: list[dict[str, Any]] = [
            kinds.FRAMES,
            {"shuffle": kinds.shuffle},
            kinds.CONNECTIONS,
            answers.HANDSHAKES,
            answers.CALLS,
            files.ARCHIVE,
            files.CONTENT,
            self._whole,
        ]
        said = {name: (do.__doc__ or "").strip() for table in tables for name, do in table.items()}
        return {name: f"{text} {files.LASTS}" if name in files.CONTENT else text for name, text in said.items()}

    def apply(self, body: object) -> dict[str, object]:
        """Switches on a fault, now or as `at` and `every` say. Returns how many connections it struck, or that it is
        scheduled. Raises FaultError."""
        wish = checked(body, self.names())
        if len(self._on) + self._scheduled >= ACTIVE_MAX:
            raise FaultError(f"{ACTIVE_MAX} faults are already on; DELETE /_faults switches them off")
        if "at" in wish.fields or "every" in wish.fields:
            every_s, times = wish.fields.get("every", 0.0), wish.fields.get("times", COUNT_MAX)
            self._schedule(wish, wish.fields.get("at", every_s), every_s, times if every_s else 1)
            return {"fault": wish.name, "scheduled": True}
        return {"fault": wish.name, "applied": self._do(wish)}

    def clear(self) -> None:
        """Switches everything off: no fault strikes any more, frozen connections continue, REST has every trade."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._scheduled = 0
        self._on.clear()
        self._hub.alter = None
        self._listen()
        self._rest.lag_s = self._rest.rules.lag_s
        self._rest.late_ids = 0
        self._rest.statuses.clear()
        for ledger in self._rest.truth.ledgers.values():
            ledger.holes.clear()
        for client in self._hub.clients.values():
            client.frozen_until_s = 0.0

    def state(self) -> dict[str, object]:
        """What is on, and how often each fault has struck."""
        self._prune()
        on = [{"fault": active.name, "target": active.target, "left": active.left} for active in self._on]
        return {"struck": dict(self.counts), "on": on, "scheduled": self._scheduled}

    def alter(self, frames: list[Frame], index: int | None) -> list[Frame]:
        """The frames after the faults, on their way to all connections (None) or to one."""
        now_s = time.monotonic()
        for active in self._on:
            if active.target != index:
                continue
            if active.name == "shuffle":
                shuffled = kinds.shuffle(active, frames, now_s)
                self.counts["shuffle"] += shuffled != frames
                frames = shuffled
            elif active.name in kinds.FRAMES:
                frames = self._altered(active, frames, now_s)
        if index is None:
            self._prune()
        return frames

    def _altered(self, active: kinds.Active, frames: list[Frame], now_s: float) -> list[Frame]:
        do, symbol, out = kinds.FRAMES[active.name], active.args.symbol, list[Frame]()
        for frame in frames:
            if frame.stream in active.held:
                out += do(active, frame, self._world)
            elif frame.trade is None or symbol not in ("", frame.trade.symbol) or not active.strikes(now_s):
                out.append(frame)
            else:
                self.counts[active.name] += 1
                out += do(active, frame, self._world)
        return out

    async def handshake(self, request: web.Request) -> web.StreamResponse | None:
        """The answer to a handshake instead of the exchange's; None: let the exchange answer."""
        return await self._answer(answers.HANDSHAKES, request)

    async def call(self, request: web.Request) -> web.StreamResponse | None:
        """The answer to a REST call instead of the exchange's; None: let the exchange answer."""
        return await self._answer(answers.CALLS, request)

    async def file(self, request: web.Request) -> web.StreamResponse | None:
        """The answer to a request for a file of the archive instead of the archive's; None: let it answer."""
        return await self._answer(files.ARCHIVE, request)

    def _recipe(self, path: str) -> Recipe:
        """How the file with that path is made now: with the faults that strike it, and struck it before."""
        now_s, striking = time.monotonic(), list[kinds.Active]()
        for active in self._on:
            meant = active.args.path in path and active.args.symbol in ("", files.symbol_of(path))
            if active.name not in files.CONTENT or not meant or now_s >= active.until_s:
                continue
            if path not in active.files and active.strikes(now_s):
                self.counts[active.name] += 1
                active.files.add(path)
            if path in active.files:
                striking.append(active)
        return files.recipe(striking)

    async def _answer(self, table: dict[str, answers.Answer], request: web.Request) -> web.StreamResponse | None:
        now_s = time.monotonic()
        for active in list(self._on):
            args = active.args
            symbol = request.query.get("symbol", files.symbol_of(request.path))
            meant = args.path in request.path and args.symbol in ("", symbol)
            if active.name in table and meant and files.is_meant(active, request.path) and active.strikes(now_s):
                self.counts[active.name] += 1
                answer = await table[active.name](request, args, self._world)
                if answer is not None:
                    return answer
        self._prune()
        return None

    def _prune(self) -> None:
        now_s = time.monotonic()
        self._on = [active for active in self._on if active.lasts(now_s)]
        spoiling = any(active.name in kinds.FRAMES or active.name == "shuffle" for active in self._on)
        self._hub.alter = self.alter if spoiling else None

    def _schedule(self, wish: Wish, in_s: float, every_s: float, times: int) -> None:
        def strike() -> None:
            self._scheduled -= 1
            self._do(wish)
            if times > 1:
                self._schedule(wish, every_s, every_s, times - 1)

        self._scheduled += 1
        self._later(in_s, strike)

    def _later(self, in_s: float, do: Callable[[], object]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            do()

        timer = asyncio.get_running_loop().call_later(in_s, run)
        self._timers.add(timer)

    def _do(self, wish: Wish) -> int:
        if wish.name in self._whole:
            self.counts[wish.name] += 1
            return self._whole[wish.name](wish)
        clients = self._clients(wish.target)
        if wish.name in kinds.CONNECTIONS:
            for client in clients:
                self.counts[wish.name] += 1
                kinds.CONNECTIONS[wish.name](client, wish.args, self._world)
            return len(clients)
        targets: list[int | None] = [None] if wish.target == "all" else [client.index for client in clients]
        self._on += [self._active(wish, target) for target in targets]
        self._prune()
        return len(targets)

    def _clients(self, target: str | int) -> list[Client]:
        clients = [client for _, client in sorted(self._hub.clients.items()) if not client.closing]
        if not isinstance(target, int):
            return clients
        if target < 0:
            return clients[target:][:1] if -target <= len(clients) else []
        return [client for client in clients if client.index == target]

    def _active(self, wish: Wish, target: int | None) -> kinds.Active:
        self._asked += 1
        rng = random.Random(wish.fields.get("seed", f"{self._seed}:{self._asked}:{wish.name}"))
        active = kinds.Active(wish.name, wish.args, target, rng)
        active.number = self._asked
        active.after = wish.fields.get("after", 0)
        active.probability = wish.fields.get("probability", 1.0)
        if "seconds" in wish.fields:
            active.until_s = time.monotonic() + wish.fields["seconds"]
        # Without a limit of time or number it strikes once; what is in a file stays as it is.
        endless = "seconds" in wish.fields or wish.name in files.CONTENT
        active.left = wish.fields.get("count", None if endless else 1)
        return active

    def _refuse(self, wish: Wish) -> int:
        """The port is closed for `seconds` (default 1): streams, REST and these controls refuse connections."""
        self._gate.refuse()
        self._later(wish.fields.get("seconds", 1.0), self._listen)
        return 1

    def _listen(self) -> None:
        task = asyncio.get_running_loop().create_task(self._gate.listen())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _rest_lag(self, wish: Wish) -> int:
        """REST is `lag` seconds behind the stream, for `seconds` (default: until switched off)."""
        self._rest.lag_s = wish.args.lag
        if "seconds" in wish.fields:
            self._later(wish.fields["seconds"], lambda: setattr(self._rest, "lag_s", self._rest.rules.lag_s))
        return 1

    def _rest_hole(self, wish: Wish) -> int:
        """REST lacks ids `first` to `last` of `symbol` (default: of all symbols) and silently skips them."""
        ledgers = self._rest.truth.ledgers
        chosen = [ledger for name, ledger in ledgers.items() if wish.args.symbol in ("", name)]
        for ledger in chosen:
            ledger.holes.append((wish.args.first, wish.args.last or wish.args.first))
        return len(chosen)

    def _rest_late(self, wish: Wish) -> int:
        """historicalTrades begins `count` ids (default 50) behind the one asked for, for `seconds` (default: until
        switched off)."""
        self._rest.late_ids = wish.fields.get("count", 50)
        if "seconds" in wish.fields:
            self._later(wish.fields["seconds"], lambda: setattr(self._rest, "late_ids", 0))
        return 1

    def _rest_symbol(self, wish: Wish) -> int:
        """exchangeInfo gives `symbol` the status `reason` (default BREAK)."""
        self._rest.statuses[wish.args.symbol] = wish.args.reason or "BREAK"
        return 1
