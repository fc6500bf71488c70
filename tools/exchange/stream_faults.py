"""What can go wrong on a stream of the stand-in exchange: one small function per fault, in two tables.

FRAMES spoils trades on their way; CONNECTIONS does something to an open connection. `faults.py` decides when and for
which connections; what can go wrong with a handshake or a REST call is in `answer_faults.py`.
"""

import random
import time
from collections.abc import Callable
from typing import NamedTuple

from tools.exchange import malformed
from tools.exchange.archive import Archive
from tools.exchange.rest import Rest
from tools.exchange.streams import INTERLEAVED, Client, Hub
from tools.exchange.tape import BINARY, CONTINUATION, PING, TEXT, Form, Frame, Trade, TradeFrame, wrap

FOREVER_S = 10 * 365 * 86400.0
"""How long a freeze without an end lasts."""

POISON_ID_OFFSET = 1_000_000
"""How far an injected frame's id is above the last real one, so that a client that accepts it is noticed."""

HOLD_S_MAX = 1.0
"""The longest time that a frame waits for its successor to be swapped with it."""


class World(NamedTuple):
    """The parts of the exchange that faults can reach."""

    hub: Hub
    rest: Rest
    archive: Archive
    later: Callable[[float, Callable[[], object]], object]


class Args(NamedTuple):
    """The arguments of any fault. Times are in seconds."""

    code: int = 1001
    reason: str = ""
    status: int = 500
    retry_after: int = 1
    delay: float = 1.0
    size: int = 10 << 20
    variant: str = ""
    symbol: str = ""
    path: str = ""
    lag: float = 5.0
    first: int = 0
    last: int = 0
    rows: int = 0


class Active:
    """A fault that is switched on: its target (a connection's index, or None for all), how often and how long."""

    def __init__(self, name: str, args: Args, target: int | None, rng: random.Random) -> None:
        self.name = name
        self.args = args
        self.target = target
        self.rng = rng
        self.left: int | None = None
        self.after = 0
        self.until_s = float("inf")
        self.probability = 1.0
        self.held: dict[str, Frame] = {}
        self.number = 0
        self.files: set[str] = set()

    def over(self, now_s: float) -> bool:
        """Whether it will never strike again."""
        return self.left == 0 or now_s >= self.until_s

    def lasts(self, now_s: float) -> bool:
        """Whether it is still on: it may strike, holds a frame back, or has changed a file, which stays changed."""
        return bool(self.held) or not self.over(now_s) or (bool(self.files) and now_s < self.until_s)

    def strikes(self, now_s: float) -> bool:
        """Whether it strikes this time; counts it."""
        if self.over(now_s):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        if self.probability < 1.0 and self.rng.random() >= self.probability:
            return False
        if self.left is not None:
            self.left -= 1
        return True


class Spoiled(Frame):
    """A frame whose bytes on the wire are what `make` turns its text into."""

    __slots__ = ("base", "make")

    def __init__(self, base: Frame, make: Callable[[bytes], bytes]) -> None:
        super().__init__(base.stream, base.trade)
        self.base = base
        self.make = make

    def text(self, form: Form) -> bytes:
        """The original text."""
        return self.base.text(form)

    def wire(self, form: Form) -> bytes:
        """The spoiled bytes."""
        return self.make(self.base.text(form))


FrameFault = Callable[[Active, Frame, World], list[Frame]]
ConnectionFault = Callable[[Client, Args, World], None]


# Frames: the frames that are sent instead of this one.


def skip(active: Active, frame: Frame, world: World) -> list[Frame]:
    """The frame is never sent; the trade is in the truth, and REST has it."""
    return []


def double(active: Active, frame: Frame, world: World) -> list[Frame]:
    """The frame is sent twice."""
    return [frame, frame]


def swap(active: Active, frame: Frame, world: World) -> list[Frame]:
    """The frame and the next one of its stream swap places."""
    held = active.held.pop(frame.stream, None)
    if held is not None:
        return [frame, held]
    active.held[frame.stream] = frame
    world.later(HOLD_S_MAX, lambda: _release(active, frame, world))
    return []


def _release(active: Active, frame: Frame, world: World) -> None:
    if active.held.get(frame.stream) is frame:
        del active.held[frame.stream]
        _resend(active.target, frame, world)


def _resend(target: int | None, frame: Frame, world: World) -> None:
    for client in list(world.hub.clients.values()):
        if target in (None, client.index) and client.wants(frame.stream):
            world.hub.send(client, [frame])


def delay(active: Active, frame: Frame, world: World) -> list[Frame]:
    """The frame is sent `delay` seconds later."""
    world.later(active.args.delay, lambda: _resend(active.target, frame, world))
    return []


def truncate(active: Active, frame: Frame, world: World) -> list[Frame]:
    """The frame's JSON is cut off at a seeded place."""
    part = active.rng.uniform(0.05, 0.99)
    return [Spoiled(frame, lambda text: wrap(text[: max(1, int(len(text) * part))]))]


def fragment(active: Active, frame: Frame, world: World) -> list[Frame]:
    """The message is complete, but is sent as a frame and continuations, with a ping between them."""
    parts = active.rng.randint(2, 5)
    return [Spoiled(frame, lambda text: _fragments(text, parts))]


def _fragments(text: bytes, parts: int) -> bytes:
    step = -(-len(text) // parts)
    pieces = [text[start : start + step] for start in range(0, len(text), step)]
    wires = [
        wrap(piece, TEXT if n == 0 else CONTINUATION, final=n == len(pieces) - 1) for n, piece in enumerate(pieces)
    ]
    # Control frames may come between the fragments of a message (RFC 6455, 5.4), which some readers do not handle.
    return wires[0] + wrap(INTERLEAVED, PING) + b"".join(wires[1:])


def binary(active: Active, frame: Frame, world: World) -> list[Frame]:
    """The JSON is sent in a binary frame."""
    return [Spoiled(frame, lambda text: wrap(text, BINARY))]


def replace(active: Active, frame: Frame, world: World) -> list[Frame]:
    """A malformed variant is sent instead of the frame (a seeded one, or `variant`)."""
    vary = malformed.MALFORMED[active.args.variant or active.rng.choice(list(malformed.MALFORMED))]
    return [Spoiled(frame, lambda text: wrap(vary(text)))]


def restyle(active: Active, frame: Frame, world: World) -> list[Frame]:
    """The same trade is sent as different JSON: more keys, another order, spaces (a seeded one, or `variant`)."""
    vary = malformed.HARMLESS[active.args.variant or active.rng.choice(list(malformed.HARMLESS))]
    return [Spoiled(frame, lambda text: wrap(vary(text)))]


FRAMES: dict[str, FrameFault] = {
    "skip": skip,
    "double": double,
    "swap": swap,
    "delay": delay,
    "truncate": truncate,
    "fragment": fragment,
    "binary": binary,
    "replace": replace,
    "restyle": restyle,
}


def shuffle(active: Active, frames: list[Frame], now_s: float) -> list[Frame]:
    """Trades of one symbol and one millisecond are sent in a seeded order."""
    groups: dict[tuple[str, int], list[int]] = {}
    for place, frame in enumerate(frames):
        if frame.trade is not None:
            groups.setdefault((frame.stream, frame.trade.time_us // 1000), []).append(place)
    out = list(frames)
    for places in groups.values():
        if len(places) > 1 and active.strikes(now_s):
            for place, other in zip(places, active.rng.sample(places, len(places)), strict=True):
                out[place] = frames[other]
    return out


# Connections: what happens to one that is open.


def reset_connection(client: Client, args: Args, world: World) -> None:
    """TCP reset."""
    client.reset()


def close(client: Client, args: Args, world: World) -> None:
    """Close frame with `code` and `reason`."""
    client.close(args.code, args.reason)


def abrupt(client: Client, args: Args, world: World) -> None:
    """The socket is closed without a close frame (the client sees 1006)."""
    client.abort()


def freeze(client: Client, args: Args, world: World) -> None:
    """Half-open for `delay` seconds, 0: for ever. The socket stays open, nothing is sent, not even pings or answers."""
    client.frozen_until_s = time.monotonic() + (args.delay or FOREVER_S)


def thaw(client: Client, args: Args, world: World) -> None:
    """A frozen connection continues; trades made meanwhile are not sent."""
    client.frozen_until_s = 0.0


def shutdown(client: Client, args: Args, world: World) -> None:
    """The serverShutdown event; the connection is closed `delay` seconds later (0: never)."""
    event = {"e": "serverShutdown", "E": time.time_ns() // 1_000_000}
    client.say({"stream": "!serverShutdown", "data": event} if client.form.combined else event)
    if args.delay:
        world.later(args.delay, lambda: client.close(1001, "Going away"))


def age(client: Client, args: Args, world: World) -> None:
    """The connection has reached its maximum age, 24 hours."""
    client.opened_s = time.monotonic() - world.hub.rules.max_age_s - 1


def inject(client: Client, args: Args, world: World) -> None:
    """An extra malformed frame (`variant`; default: one of each)."""
    text = poison(client, world).text(client.form)
    for name in [args.variant] if args.variant else malformed.MALFORMED:
        client.write(wrap(malformed.MALFORMED[name](text)), 1)


def big(client: Client, args: Args, world: World) -> None:
    """An extra frame of `size` bytes (`variant`: garbage, string, symbol, list)."""
    text = poison(client, world).text(client.form)
    client.write(wrap(malformed.big(args.variant or "symbol", args.size, text)), 1)


def raw(client: Client, args: Args, world: World) -> None:
    """An extra text frame with the text of `reason`."""
    client.write(wrap(args.reason.encode()), 1)


def poison(client: Client, world: World) -> TradeFrame:
    """A trade that never happened, of a symbol that the client listens to, with an id that no real trade has."""
    ledgers = world.rest.truth.ledgers
    symbol = next((name for name in ledgers if client.wants(f"{name.lower()}@trade")), next(iter(ledgers)))
    ids = ledgers[symbol].ids
    now_us = time.time_ns() // 1000
    trade = Trade(symbol, (ids[-1] if ids else 0) + POISON_ID_OFFSET, 66_600_000_000, 100_000, now_us, True)
    return TradeFrame(f"{symbol.lower()}@trade", trade, now_us)


CONNECTIONS: dict[str, ConnectionFault] = {
    "reset": reset_connection,
    "close": close,
    "abrupt": abrupt,
    "freeze": freeze,
    "thaw": thaw,
    "shutdown": shutdown,
    "age": age,
    "inject": inject,
    "big": big,
    "raw": raw,
}
