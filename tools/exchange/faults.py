"""Fault injection in the stand-in exchange: which faults are on, for which connections, for how long.

Faults are switched on by JSON or by a flag; everything is seeded and bounded. The faults themselves are in
`stream_faults.py` and `answer_faults.py`.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from tools.exchange import answer_faults as answers
from tools.exchange import stream_faults as kinds
from tools.exchange.malformed import BIG_KINDS, HARMLESS, MALFORMED
from tools.exchange.rest import Rest
from tools.exchange.streams import Client, Hub
from tools.exchange.tape import Frame

ACTIVE_MAX = 1000
"""How many faults may be switched on or scheduled at once."""

SECONDS_MAX = 86400.0
COUNT_MAX = 1_000_000

Seconds = Annotated[float, Meta(ge=0, le=SECONDS_MAX)]
Count = Annotated[int, Meta(ge=1, le=COUNT_MAX)]
Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _Fields(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """The fields of a request for a fault; UNSET if not given."""

    fault: str
    target: Literal["all", "current"] | int = "all"
    variant: str | UnsetType = UNSET
    symbol: str | UnsetType = UNSET
    path: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    count: Count | UnsetType = UNSET
    after: Annotated[int, Meta(ge=0, le=COUNT_MAX)] | UnsetType = UNSET
    times: Count | UnsetType = UNSET
    code: Annotated[int, Meta(ge=1000, le=4999)] | UnsetType = UNSET
    status: Annotated[int, Meta(ge=400, le=599)] | UnsetType = UNSET
    retry_after: Annotated[int, Meta(ge=0, le=int(SECONDS_MAX))] | UnsetType = UNSET
    size: Annotated[int, Meta(ge=1, le=64 << 20)] | UnsetType = UNSET
    first: Id | UnsetType = UNSET
    last: Id | UnsetType = UNSET
    seed: int | UnsetType = UNSET
    seconds: Seconds | UnsetType = UNSET
    at: Seconds | UnsetType = UNSET
    every: Annotated[float, Meta(ge=0.01, le=SECONDS_MAX)] | UnsetType = UNSET
    delay: Seconds | UnsetType = UNSET
    lag: Seconds | UnsetType = UNSET
    probability: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET


_DEFAULTS: dict[str, dict[str, Any]] = {
    "freeze": {"delay": 0.0},
    "shutdown": {"delay": 0.0},
    "handshake_status": {"status": 429},
}
_VARIANTS = {"replace": set(MALFORMED), "inject": set(MALFORMED), "restyle": set(HARMLESS), "big": set(BIG_KINDS)}
_MAIN = {
    "freeze": "seconds",
    "shutdown": "seconds",
    "refuse": "seconds",
    "close": "code",
    "big": "size",
    "inject": "variant",
    "rest_lag": "lag",
    "rest_status": "status",
    "handshake_status": "status",
}
"""The field that a bare argument on the command line sets; for every other fault it is the count."""


class FaultError(Exception):
    """An invalid request for a fault; the message names the field and the value."""


class Wish(NamedTuple):
    """A request for a fault, checked."""

    name: str
    args: kinds.Args
    target: str | int
    fields: dict[str, Any]


class Gate(NamedTuple):
    """What faults can do to the port."""

    refuse: Callable[[], None]
    listen: Callable[[], Any]


class Faults:
    """The faults that are on. The exchange consults this before it sends or answers anything."""

    def __init__(self, hub: Hub, rest: Rest, gate: Gate, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._hub, self._rest, self._gate, self._seed = hub, rest, gate, seed
        self._on: list[kinds.Active] = []
        self._timers: set[asyncio.TimerHandle] = set()
        self._scheduled = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked = 0
        self._world = kinds.World(hub, rest, self._later)
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
            self._whole,
        ]
        return {name: (do.__doc__ or "").strip() for table in tables for name, do in table.items()}

    def apply(self, body: object) -> dict[str, object]:
        """Switches on a fault, now or as `at` and `every` say. Returns how many connections it struck, or that it is
        scheduled. Raises FaultError."""
        wish = self._checked(body)
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

    async def _answer(self, table: dict[str, answers.Answer], request: web.Request) -> web.StreamResponse | None:
        now_s = time.monotonic()
        for active in list(self._on):
            args = active.args
            meant = args.path in request.path and args.symbol in ("", request.query.get("symbol"))
            if active.name in table and meant and active.strikes(now_s):
                self.counts[active.name] += 1
                answer = await table[active.name](request, args, self._world)
                if answer is not None:
                    return answer
        self._prune()
        return None

    def _prune(self) -> None:
        now_s = time.monotonic()
        self._on = [active for active in self._on if active.held or not active.over(now_s)]
        spoiling = any(active.name in kinds.FRAMES or active.name == "shuffle" for active in self._on)
        self._hub.alter = self.alter if spoiling else None

    def _checked(self, body: object) -> Wish:
        try:
            wanted = msgspec.convert(body, _Fields)
        except msgspec.ValidationError as error:
            raise FaultError(f"{error}; GET /_faults lists the faults") from None
        fields: dict[str, Any] = msgspec.to_builtins(wanted)
        name, target = fields.pop("fault"), wanted.target
        fields.pop("target", None)
        if name not in self.names():
            raise FaultError(f"fault={name!r}: there is no such fault; GET /_faults lists them")
        if fields.get("variant") and fields["variant"] not in _VARIANTS.get(name, set()):
            raise FaultError(f"variant={fields['variant']!r}: {name} has {sorted(_VARIANTS.get(name, set()))}")
        given: dict[str, Any] = {key: value for key, value in fields.items() if key in kinds.Args._fields}
        if name in kinds.CONNECTIONS and "seconds" in fields:
            given.setdefault("delay", fields["seconds"])
        return Wish(name, kinds.Args(**{**_DEFAULTS.get(name, {}), **given}), target, fields)

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
        active.after = wish.fields.get("after", 0)
        active.probability = wish.fields.get("probability", 1.0)
        if "seconds" in wish.fields:
            active.until_s = time.monotonic() + wish.fields["seconds"]
        # Without a limit of time or number it strikes once.
        active.left = wish.fields.get("count", None if "seconds" in wish.fields else 1)
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


def parse_flag(text: str) -> dict[str, object]:
    """The request in a --fault: NAME, NAME=ARGUMENT, NAME=field:value,field:value or NAME={JSON}. Raises FaultError."""
    name, _, rest = text.partition("=")
    if not rest:
        return {"fault": name}
    if rest.startswith("{"):
        try:
            return {"fault": name, **json.loads(rest)}
        except ValueError as error:
            raise FaultError(f"--fault {text}: {error}") from error
    if ":" not in rest:
        return {"fault": name, _MAIN.get(name, "count"): _value(rest)}
    pairs = [part.partition(":") for part in rest.split(",")]
    return {"fault": name, **{key: _value(value) for key, _, value in pairs}}


def _value(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) and not isinstance(value, bool) else text
