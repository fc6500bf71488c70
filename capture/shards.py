"""The streams of all symbols, spread over groups of connections: each group reads some of them, and has its standby.

The address of a connection has a length that the exchange takes, and a connection carries only so many streams
(web-socket-streams.md): so many symbols need several groups. A group that changes its symbols is renewed like a
connection before its cut: the successors deliver before the old ones are closed.
"""

import logging
from collections.abc import Callable, Sequence

from capture.shared import Shared
from capture.standby import Limits, Standby, Totals, Watched

log = logging.getLogger("watch")

STREAMS_MAX = 200
"""Of a connection; Binance allows 1,024, but the address gets too long before."""
ADDRESS_BYTES_MAX = 4_000
"""About 8,000 were taken once, as users found; 4 KB are safe."""
STAGGER_S = 120.0
STAGGERED_MAX = 60
"""Each group renews its connections so much before the one before it, so that they do not all come back together."""

Connect = Callable[[str, Shared], Watched]


class _Shard:
    """A group of connections that read the same streams."""

    def __init__(self, connect: Connect, shared: Shared, size: int, limits: Limits, now: float) -> None:
        self.shared = shared
        self.changed = False
        # Each connection reads the streams as they are when it is made.
        self.standby = Standby(lambda name: (connect(name, self.shared), self.shared.symbols), size, limits, now)

    def has_room_for(self, symbol: str) -> bool:
        return _fits(self.shared._replace(symbols=(*self.shared.symbols, symbol)))


class Shards:
    """All groups. `connect` makes a connection of a name and of what it shares with the others."""

    def __init__(self, connect: Connect, shared: Shared, size: int, limits: Limits, now: float) -> None:
        self._connect = connect
        self._size = size
        self._limits = limits
        self._shards: list[_Shard] = []
        self._template = shared._replace(symbols=())
        self._several = len(parts := _spread(shared)) > 1
        for part in parts:
            self._open(part, now)
        if self._several:
            log.info(
                "%s symbols are read by %d groups of %d connections each", f"{len(shared.symbols):,}", len(parts), size
            )

    def tick(self, now: float) -> None:
        """Looks at each connection once, and renews the groups whose symbols have changed."""
        for shard in self._shards:
            if shard.changed and not shard.standby.renewing:
                shard.changed = False
                shard.standby.renew(now)
            shard.standby.tick(now)

    def change(self, joined: Sequence[str], left: Sequence[str], now: float) -> None:
        """Subscribes to symbols that are new, at once; the streams of those that left, which are silent, go with the
        next renewal of their connections."""
        gone = frozenset(left)
        for shard in self._shards:
            if not gone.isdisjoint(shard.shared.symbols):
                kept = tuple(symbol for symbol in shard.shared.symbols if symbol not in gone)
                shard.shared = shard.shared._replace(symbols=kept)
        waiting = list[str]()
        for symbol in joined:
            room = [shard for shard in self._shards if shard.has_room_for(symbol)]
            if not room:
                waiting.append(symbol)
                continue
            shard = min(room, key=lambda one: len(one.shared.symbols))
            shard.shared = shard.shared._replace(symbols=(*shard.shared.symbols, symbol))
            shard.changed = True
        for part in _spread(self._template._replace(symbols=tuple(waiting))) if waiting else ():
            self._several = True
            self._open(part, now)

    def renew(self, symbols: Sequence[str], now: float) -> list[str]:
        """Opens a successor for each connection of the groups that read one of `symbols`; returns all symbols of
        these groups."""
        renewed = [shard for shard in self._shards if not frozenset(symbols).isdisjoint(shard.shared.symbols)]
        for shard in renewed:
            shard.standby.renew(now)
        return [symbol for shard in renewed for symbol in shard.shared.symbols]

    def stop(self) -> None:
        """Stops all connections, and waits for their threads."""
        # All at once, because each takes a moment to say goodbye.
        for shard in self._shards:
            for connection in shard.standby.connections():
                connection.stop()
        for shard in self._shards:
            shard.standby.stop()

    def totals(self) -> Totals:
        """The counters of all connections so far."""
        return sum((shard.standby.totals() for shard in self._shards), Totals())

    def newest(self) -> dict[str, int]:
        """The newest id of each symbol that any connection has delivered since the start."""
        found: dict[str, int] = {}
        for shard in self._shards:
            # One that left a group and came back to another may still be read by both.
            for symbol, newest in shard.standby.newest().items():
                found[symbol] = max(newest, found.get(symbol, 0))
        return found

    def unread(self, since: float) -> frozenset[str]:
        """The symbols that no connection has read without a cut from `since` until now: a trade may be missed."""
        unread = (frozenset(shard.shared.symbols) - shard.standby.read(since) for shard in self._shards)
        return frozenset[str]().union(*unread)

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return len(self._shards)

    @property
    def open(self) -> int:
        """How many connections are open now."""
        return sum(shard.standby.open for shard in self._shards)

    @property
    def closed(self) -> int:
        """How many groups have no open connection now, so that no trade of their symbols can come."""
        return sum(not shard.standby.open for shard in self._shards)

    def _open(self, symbols: tuple[str, ...], now: float) -> None:
        before = len(self._shards)
        suffix = f" of group {before + 1}" if self._several else ""
        earlier_s = STAGGER_S * (before % STAGGERED_MAX)
        limits = self._limits._replace(renew_s=max(self._limits.renew_s / 2, self._limits.renew_s - earlier_s))
        shared = self._template._replace(symbols=symbols)

        def connect(name: str, shared: Shared) -> Watched:
            return self._connect(f"{name}{suffix}", shared)

        self._shards.append(_Shard(connect, shared, self._size, limits, now))


def _fits(shared: Shared) -> bool:
    return len(shared.symbols) <= STREAMS_MAX and len(shared.stream_url) <= ADDRESS_BYTES_MAX


def _spread(shared: Shared) -> list[tuple[str, ...]]:
    """The symbols in as many groups as are needed, dealt out in turn, so that the busy ones are not all in one."""
    groups = -(-len(shared.symbols) // STREAMS_MAX)
    while True:
        parts = [shared.symbols[first::groups] for first in range(groups)]
        if groups >= len(shared.symbols) or all(_fits(shared._replace(symbols=part)) for part in parts):
            return parts
        groups += 1
