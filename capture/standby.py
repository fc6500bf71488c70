"""Watches the connections that read the same streams: replaces the dead and the late, renews those about to be cut.

Everything is decided in `tick`, which the main thread calls a few times a second, from counters that the connections'
own threads write; the connections never wait for it. Who asks for the sums from another thread waits for its end.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

log = logging.getLogger("watch")


class Watched(Protocol):
    """What is watched: see ws_client.Connection."""

    name: str
    frames: int
    parsed: int
    refused: int
    connects: int
    verdicts: Counter[str]
    others: Counter[str]
    newest: dict[str, int]
    opened_at: float | None
    shutdown_announced: bool

    @property
    def signs(self) -> int: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def drop(self) -> None: ...
    def is_alive(self) -> bool: ...
    def join(self, timeout: float | None = None) -> None: ...


@dataclass
class Totals:
    """The counters of several connections, in frames and trades; `others`: frames of other kinds, by name."""

    frames: int = 0
    parsed: int = 0
    reconnects: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)

    def __add__(self, more: "Totals") -> "Totals":
        return Totals(
            self.frames + more.frames,
            self.parsed + more.parsed,
            self.reconnects + more.reconnects,
            self.verdicts + more.verdicts,
            self.others + more.others,
        )


def totals_of(connections: Iterable[Watched]) -> Totals:
    """Their counters together."""
    return sum(
        (
            Totals(one.frames, one.parsed, max(0, one.connects - 1), Counter(one.verdicts), Counter(one.others))
            for one in connections
        ),
        Totals(),
    )


class Limits(NamedTuple):
    """In seconds. Binance pings every 20 s and cuts a connection at 24 h (web-socket-streams.md)."""

    silent_s_max: float = 60.0
    """A connection on which nothing arrives for this long, no frame and no ping, is replaced."""
    behind_s_max: float = 5.0
    """So is one that has not delivered within this time what a sibling had delivered before."""
    renew_s: float = 23 * 3_600.0
    """Renewing before the cut loses nothing: the new connection delivers before the old one is closed."""
    renew_stagger_s: float = 1_800.0
    take_over_s_max: float = 60.0
    """An old connection is kept for at most this long while its successor is open but delivers nothing."""
    join_s_max: float = 5.0


class _Slot:
    """A watched connection, the symbols that it reads, and what was last seen of it."""

    def __init__(self, connection: Watched, symbols: frozenset[str], now: float) -> None:
        self.connection = connection
        self.symbols = symbols
        self.started_at = now
        self._signs = -1
        self._signed_at = now
        self._baseline: dict[str, int] = {}
        self._target: dict[str, int] = {}
        self._target_at = now

    def silent_s(self, now: float) -> float:
        """The seconds since anything arrived; 0 while it is not open, since it then reconnects on its own."""
        if self.connection.opened_at is None or self.connection.signs != self._signs:
            self._signs, self._signed_at = self.connection.signs, now
        return now - self._signed_at

    def behind_s(self, newest: dict[str, int], now: float, settle_s: float) -> float:
        """For how many seconds this connection has not reached a point that a sibling had reached.

        What was delivered until `settle_s` after it opened does not count: the exchange does not send it again. Nor
        do symbols that only a sibling reads: that of a renewed group may read other ones.
        """
        opened_at, mine = self.connection.opened_at, self.connection.newest
        if opened_at is None or now - opened_at < settle_s:
            self._baseline, self._target = newest, {}
        if any(mine.get(symbol, 0) < trade_id for symbol, trade_id in self._target.items()):
            return now - self._target_at
        self._target_at = now
        self._target = {
            symbol: newest[symbol]
            for symbol in self.symbols & newest.keys()
            if newest[symbol] > self._baseline.get(symbol, 0)
        }
        return 0.0

    def begin(self, newest: dict[str, int]) -> None:
        """From now on it is compared with its siblings: by what comes after `newest`."""
        self._baseline = newest


Make = Callable[[str], tuple[Watched, Sequence[str]]]
"""Makes a connection of a name, and says which symbols it reads."""


class Standby:
    """N connections side by side; whichever delivers a trade first wins, so one may die without a loss."""

    def __init__(self, make: Make, size: int, limits: Limits, now: float) -> None:
        self._make = make
        self._limits = limits
        self._made = 0
        # The metrics are read by other threads: while a connection is replaced, they would miss it or count it twice.
        self._lock = threading.Lock()
        self._past = Totals()
        self._leaving: list[Watched] = []
        self._current = [self._watched(now) for _ in range(size)]
        self._next: dict[int, _Slot] = {}
        # For as long as the capture runs: a rare symbol is not forgotten with the connection that brought it.
        self._newest: dict[str, int] = {}

    def tick(self, now: float) -> None:
        """Looks at each connection once."""
        with self._lock:
            self._tick(now)

    def _tick(self, now: float) -> None:
        newest = self.newest()
        for slot in range(len(self._current)):
            self._look_after(slot, newest, now)
            if slot in self._next:
                self._take_over(slot, newest, now)
        for connection in self._leaving:
            connection.join(0)
        # Only once nothing can be counted any more; its name is forgotten, one is gone each day.
        ended = [one for one in self._leaving if not one.is_alive()]
        if ended:
            self._past += totals_of(ended)
            self._note(ended)
            self._leaving = [one for one in self._leaving if one not in ended]
            # Of the symbols that are not read any more nothing is kept, so that it does not grow for years.
            read = frozenset[str]().union(*(watched.symbols for watched in self._all()))
            self._newest = {symbol: trade_id for symbol, trade_id in self._newest.items() if symbol in read}

    def stop(self) -> None:
        """Stops all connections and waits for their threads."""
        connections = [watched.connection for watched in self._all()]
        for connection in connections:
            connection.stop()
        for connection in connections + self._leaving:
            connection.join(self._limits.join_s_max)

    def renew(self, now: float) -> None:
        """Opens a successor for each connection; the old one is closed once that delivers."""
        with self._lock:
            for slot in range(len(self._current)):
                if slot not in self._next:
                    self._next[slot] = self._watched(now)

    def connections(self) -> list[Watched]:
        """The connections that there are, with those that are leaving."""
        return self._leaving + [watched.connection for watched in self._all()]

    def totals(self) -> Totals:
        """The counters of all connections so far."""
        with self._lock:
            return self._past + totals_of(self.connections())

    @property
    def renewing(self) -> bool:
        """Whether a successor is about to take over."""
        return bool(self._next)

    @property
    def open(self) -> int:
        """How many are open now."""
        with self._lock:
            return sum(watched.connection.opened_at is not None for watched in self._all())

    def read(self, since: float) -> frozenset[str]:
        """The symbols that a connection has read without a cut from `since` until now."""
        opened = ((watched.symbols, watched.connection.opened_at) for watched in self._all())
        return frozenset[str]().union(*(symbols for symbols, at in opened if at is not None and at <= since))

    def _all(self) -> Iterator[_Slot]:
        yield from self._current
        yield from self._next.values()

    def _watched(self, now: float) -> _Slot:
        self._made += 1
        connection, symbols = self._make(f"connection {self._made}")
        connection.start()
        return _Slot(connection, frozenset(symbols), now)

    def newest(self) -> dict[str, int]:
        """The newest id of each symbol that any connection has delivered, those that have ended too."""
        self._note(self.connections())
        return self._newest.copy()

    def _note(self, connections: Iterable[Watched]) -> None:
        for connection in connections:
            for symbol, trade_id in list(connection.newest.items()):
                if trade_id > self._newest.get(symbol, 0):
                    self._newest[symbol] = trade_id

    def _look_after(self, slot: int, newest: dict[str, int], now: float) -> None:
        watched = self._current[slot]
        connection, limits = watched.connection, self._limits
        silent_s = watched.silent_s(now)
        if silent_s >= limits.silent_s_max:
            self._replace(slot, f"nothing arrived for {silent_s:.0f} s", now)
        elif watched.behind_s(newest, now, limits.behind_s_max) >= limits.behind_s_max:
            self._replace(slot, f"it is {limits.behind_s_max:.0f} s behind its sibling", now)
        elif connection.opened_at is None or slot in self._next:
            return
        elif connection.shutdown_announced:
            log.info("%s will be shut down by the exchange: renewing it now", connection.name)
            self._next[slot] = self._watched(now)
        elif now - connection.opened_at >= limits.renew_s - slot * limits.renew_stagger_s:
            log.info("%s is %.1f h old: renewing it", connection.name, (now - connection.opened_at) / 3_600)
            self._next[slot] = self._watched(now)

    def _replace(self, slot: int, why: str, now: float) -> None:
        """Cuts the socket; the connection's thread then opens the next one."""
        watched = self._current[slot]
        log.warning("%s: %s: replacing it", watched.connection.name, why)
        watched.connection.drop()
        self._current[slot] = _Slot(watched.connection, watched.symbols, now)

    def _take_over(self, slot: int, newest: dict[str, int], now: float) -> None:
        """Gives the slot to the successor once it delivers, or once the old connection was kept long enough."""
        old, new = self._current[slot].connection, self._next[slot]
        # A successor that cannot connect, because the exchange lets nobody in, must not end one that still delivers.
        if new.connection.opened_at is None:
            return
        if not new.connection.parsed and now - new.started_at < self._limits.take_over_s_max:
            return
        self._current[slot] = self._next.pop(slot)
        # What came before it opened never comes on it, however long it took to its first trade.
        new.begin(newest)
        self._leaving.append(old)
        old.stop()
