"""The trades of the database, for a replay: read a page at a time, and never written.

Money and times become the tape's integers: a stored price has eight decimals, as on the tape, and a time milliseconds.
"""

import heapq
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from operator import attrgetter
from typing import NamedTuple, TypeVar

import config
import db
from model.amounts import EXACT
from model.times import EPOCH, MILLISECOND
from model.trade import Trade as StoredTrade
from process.retry import backoff_s, jittered
from report.text import iso
from storage import pages
from storage.pages import LATEST, MARGIN, PAGE_TRADES, Place
from tools.exchange.tape import E8, Trade

log = logging.getLogger("replay")
T = TypeVar("T")

TRIES_MAX = 8
"""Of a question that the database does not answer: about two minutes."""
HELD_TRADES_MAX = 50_000
"""Read ahead of the tape, of all symbols together (20 MB)."""
PAGE_TRADES_MIN = 50
NAMED_MAX = 20
"""Symbols in a line for the operator."""
MICROSECOND = timedelta(microseconds=1)

_LATEST_US = (LATEST - EPOCH) // MICROSECOND
_id = attrgetter("trade_id")


class StoredError(Exception):
    """Nothing can be replayed; the message says why, and what is stored."""


class Reader:
    """Asks a database over a connection of its own, one question at a time, from any thread."""

    def __init__(self, settings: config.Settings) -> None:
        self._settings = settings
        self._connection: db.Connection | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()

    def ask(self, question: Callable[[db.Connection], T]) -> T:
        """What `question` returns; it is asked again while the database is away. Raises db.DatabaseError."""
        with self._lock:
            attempt = 0
            while True:
                try:
                    if self._connection is None:
                        self._connection = db.connect(self._settings, read_only=True)
                    return question(self._connection)
                except (db.GoneError, db.ContentionError) as error:
                    self._close()
                    attempt += 1
                    if attempt == TRIES_MAX or self._over.is_set():
                        raise
                    wait_s = jittered(backoff_s(attempt - 1))
                    log.warning("the database does not answer (%s); asking again in %.1f s", error, wait_s)
                self._over.wait(wait_s)

    def stop(self) -> None:
        """Nothing is repeated any more."""
        self._over.set()

    def close(self) -> None:
        """Closes the connection, once the question that is under way is answered."""
        self.stop()
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._connection is not None:
            db.close(self._connection)
            self._connection = None


class Stored(NamedTuple):
    """What is replayed: the trades of `symbols` in [start, end), of a database that two readers ask: one for the tape,
    which reads ahead, and one for REST. `before`: the newest trade of a symbol before `start`, if there is one."""

    tape: Reader
    rest: Reader
    symbols: tuple[str, ...]
    start: datetime
    end: datetime
    before: dict[str, Place]

    def trades(self) -> Iterator[Trade]:
        """All of them by time, each symbol's by rising id, read as they are needed."""
        size = max(PAGE_TRADES_MIN, min(PAGE_TRADES, HELD_TRADES_MAX // len(self.symbols)))
        each = [self._of(symbol, size) for symbol in self.symbols]
        return each[0] if len(each) == 1 else heapq.merge(*each, key=attrgetter("time_us"))

    def _of(self, symbol: str, size: int) -> Iterator[Trade]:
        for part in rising(lambda after: self._page(symbol, after, size), size):
            yield from map(traded, part)

    def _page(self, symbol: str, after: Place | None, size: int) -> list[StoredTrade]:
        return self.tape.ask(lambda c: pages.page(c, symbol, after, (self.start, self.end), size))

    def close(self) -> None:
        """Closes the connections."""
        self.tape.close()
        self.rest.close()


Pages = Callable[[Place | None], list[StoredTrade]]


def rising(page: Pages, size: int) -> Iterator[list[StoredTrade]]:
    """The trades of pages, which are in order of time, by rising id: the two differ by less than MARGIN."""
    after: Place | None = None
    held: list[StoredTrade] = []
    while True:
        found = page(after)
        held += found
        held.sort(key=_id)
        if len(found) < size:
            yield held
            return
        after = pages.place_of(found[-1])
        border = after.timestamp - MARGIN
        # A trade of the next page may have a lower id than one of the last moments.
        late = min((trade.trade_id for trade in held if trade.timestamp >= border), default=0)
        ready = [trade for trade in held if trade.trade_id < late]
        held = held[len(ready) :]
        yield ready


def traded(trade: StoredTrade) -> Trade:
    """A stored trade as one of the tape."""
    return Trade(
        trade.symbol,
        trade.trade_id,
        to_e8(trade.price),
        to_e8(trade.quantity),
        time_us(trade.timestamp),
        trade.buyer_is_maker,
    )


def to_e8(amount: Decimal) -> int:
    """An amount with at most eight decimals as a count of 1e-8."""
    return int(EXACT.multiply(amount, E8))


def time_us(when: datetime) -> int:
    """Microseconds since 1970."""
    return (when - EPOCH) // MICROSECOND


def time_of(microseconds: int) -> datetime:
    """The time of so many microseconds since 1970; what lies far behind all trades becomes LATEST."""
    return EPOCH + min(microseconds, _LATEST_US) * MICROSECOND


class _Found(NamedTuple):
    symbols: tuple[str, ...]
    start: datetime
    end: datetime
    before: dict[str, Place]


def find(
    settings: config.Settings, symbols: Sequence[str] | None, start: datetime | None, end: datetime | None
) -> Stored:
    """What is to be replayed; None: all symbols, from the first stored trade, to the last. Raises StoredError for what
    is not there, db.DatabaseError."""
    reader = Reader(settings)
    found = reader.ask(lambda c: _find(c, settings.place, symbols, (start, end)))
    return Stored(reader, Reader(settings), *found)


def _find(
    connection: db.Connection,
    place: str,
    symbols: Sequence[str] | None,
    times: tuple[datetime | None, datetime | None],
) -> _Found:
    known = db.symbols(connection)
    wanted = tuple(known if symbols is None else symbols)
    if unknown := [symbol for symbol in wanted if symbol not in known]:
        there = ", ".join(known[:NAMED_MAX]) or "none"
        raise StoredError(f"--symbols: no trade of {unknown[0]} is stored in database {place}; stored: {there}")
    if not wanted:
        raise StoredError(f"no trade is stored in database {place}")
    ends = [one for symbol in wanted if (one := pages.ends(connection, symbol))]
    first, last = min(one[0] for one in ends), max(one[1] for one in ends)
    start, end = times[0] or first, times[1] or last + MILLISECOND
    if start >= end:
        raise StoredError(f"--start {iso(start)} is not before --end {iso(end)}: nothing lies between them")
    if not any(pages.page(connection, symbol, None, (start, end), 1) for symbol in wanted):
        raise StoredError(
            f"no trade of {', '.join(wanted[:NAMED_MAX])} is stored from --start {iso(start)} to --end {iso(end)};"
            f" those in database {place} are from {iso(first)} to {iso(last)}"
        )
    earlier = {symbol: db.price_as_of(connection, symbol, start - MILLISECOND) for symbol in wanted}
    return _Found(wanted, start, end, {name: pages.place_of(trade) for name, trade in earlier.items() if trade})
