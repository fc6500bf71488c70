"""The one thread that reads what is new, for all streams together: twenty dashboards ask the database no more than one.

It sleeps while nobody listens. What it has read it hands to the hub; a trade that is stored late, because a gap was
filled, it hands on as well.
"""

import logging
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

import msgspec

import db
from db import Connection
from model.candles import Candle
from model.ids import Run, without
from report import answers
from storage import gaps as stored_gaps
from storage import pages
from storage.gaps import OpenGaps
from tools.api import shapes
from tools.api.hub import Beat, Begin, Hub, Listener, Trades, Word
from tools.api.sessions import AwayError, Sessions
from tools.api.settings import ApiSettings
from tools.api.shapes import Status, SymbolStatus
from tools.api.symbol_feed import TAPE_TRADES, Line, Missing, Start

log = logging.getLogger("api")

POLL_S = 0.125
TICK_S = 0.25
STATUS_S = 1.0
AWAY_S = 1.0
"""How often it is looked whether the database is back."""
READ_TRADES_MAX = 2_000
"""Of a symbol at once; the next are read without a pause."""
BEFORE = {"1m": timedelta(minutes=1), "1h": timedelta(hours=1), "24h": timedelta(days=1)}


class Late(NamedTuple):
    """A run of ids that is missing no more, and the trades that were stored for it."""

    run: Run
    trades: list[db.Trade]


class Feed(threading.Thread):
    """Reads for the listeners of `hub` until `stop`; keeps watch on `sessions` for everybody."""

    def __init__(self, settings: ApiSettings, sessions: Sessions, hub: Hub) -> None:
        super().__init__(name="feed", daemon=True)
        self._settings = settings
        self._sessions = sessions
        self._hub = hub
        self._stopped = threading.Event()
        self._lines: dict[str, Line] = {}
        self._joining: list[Listener] = []
        self._tick_at = self._status_at = 0.0
        # As of the last status, so that a symbol of which nothing is missing costs no question more.
        self._gapped: frozenset[str] = frozenset()

    def stop(self) -> None:
        """Ends the thread soon."""
        self._stopped.set()

    def run(self) -> None:
        wait_s = 0.0
        while not self._stopped.wait(wait_s):
            try:
                wait_s = self._step() if self._sessions.revive() else self._away()
            except AwayError:
                wait_s = self._away()
            except Exception:
                # A defect, but the streams may do better with the next trades than without any.
                log.exception("the feed fails")
                wait_s = AWAY_S

    def _away(self) -> float:
        self._hub.post_word(self._word({}, database=False))
        return AWAY_S

    def _step(self) -> float:
        """One round; the seconds until the next."""
        # In this order: who has joined is among those who want something.
        self._joining += self._hub.joining()
        symbols, singly = self._hub.wanted()
        self._lines = {symbol: self._lines.get(symbol) or self._line(symbol) for symbol in symbols}
        if not symbols:
            return POLL_S
        self._begin()
        full = self._read(singly)
        now = time.monotonic()
        if now >= self._tick_at:
            self._tick_at = now + TICK_S - POLL_S / 2
            self._tick(now)
        if now >= self._status_at:
            self._status_at = now + STATUS_S
            self._late(singly)
            self._hub.post_word(self._word(self._sessions.ask(self._symbols), database=True))
        return 0.0 if full else POLL_S

    def _line(self, symbol: str) -> Line:
        return Line(self._sessions.ask(partial(_start, symbol=symbol)), time.monotonic())

    def _begin(self) -> None:
        """Lets those begin who have joined, at what is known now."""
        if not self._joining:
            return
        # What was read and not told yet belongs to those who listen already.
        self._tick(time.monotonic())
        for listener in self._joining:
            for symbol, seen in listener.seen.items():
                if symbol in self._lines and not listener.ticks:
                    self._lines[symbol].seen.lose(seen.holes)
        highs = {symbol: line.seen.high for symbol, line in self._lines.items()}
        ticks = {
            symbol: tick
            for symbol, line in self._lines.items()
            if (tick := line.snapshot(self._missing(symbol, line.growing)))
        }
        self._hub.post_begin(self._joining, Begin(highs, ticks))
        self._joining = []

    def _read(self, singly: bool) -> bool:
        """Hands on what is new; whether there may be more already."""
        places = {symbol: line.place for symbol, line in self._lines.items()}
        found = self._sessions.ask(
            lambda c: {symbol: pages.newer(c, symbol, place, READ_TRADES_MAX) for symbol, place in places.items()}
        )
        for symbol, trades in found.items():
            fresh = self._lines[symbol].add(trades)
            if singly and fresh:
                self._hub.post([_message(symbol, fresh)])
        return any(len(trades) == READ_TRADES_MAX for trades in found.values())

    def _tick(self, now: float) -> None:
        for symbol, line in self._lines.items():
            tick = line.tick(now, self._missing(symbol, line.grown) if symbol in self._gapped else {})
            if tick is not None:
                self._hub.post([Beat(symbol, line.seen.high, msgspec.json.encode(tick))])

    def _missing(self, symbol: str, candles: Sequence[Candle]) -> Missing:
        """How many ids are missing in each of `candles`."""
        if not candles:
            return {}
        return self._sessions.ask(lambda c: {(one.resolution, one.timestamp): _missing(c, one) for one in candles})

    def _late(self, singly: bool) -> None:
        """Hands on what was stored below the highest id since the stream passed it."""
        for symbol, line in self._lines.items():
            if not singly:
                line.seen.holes.clear()
            if line.seen.holes:
                question = partial(_late, symbol=symbol, holes=list(line.seen.holes))
                for late in self._sessions.ask(question):
                    line.seen.fill(late.run)
                    self._hub.post([_message(symbol, late.trades)])

    def _symbols(self, connection: Connection) -> dict[str, SymbolStatus]:
        missing = stored_gaps.count_open_gaps(connection)
        self._gapped = frozenset(missing)
        return {
            symbol: _status(connection, line, missing.get(symbol, OpenGaps(0, 0)), self._settings.stale_s(symbol))
            for symbol, line in self._lines.items()
        }

    def _word(self, symbols: dict[str, SymbolStatus], database: bool) -> Word:
        settings = self._settings.settings
        now = answers.time(datetime.now(UTC))
        status = Status(now, database, settings.mysql_database, settings.demo, symbols)
        return Word(database, msgspec.json.encode(status))


def _start(connection: Connection, symbol: str) -> Start:
    return Start(*pages.newest_and_growing(connection, symbol, TAPE_TRADES))


def _missing(connection: Connection, candle: Candle) -> int:
    end = candle.timestamp + timedelta(seconds=candle.resolution)
    return stored_gaps.missing_in(connection, candle.symbol, candle.timestamp, end)


def _message(symbol: str, trades: Sequence[db.Trade]) -> Trades:
    return Trades(symbol, [(trade.trade_id, msgspec.json.encode(answers.trade(trade))) for trade in trades])


def _late(connection: Connection, symbol: str, holes: list[Run]) -> list[Late]:
    """What is stored of `holes`: an id that was passed and is in no open gap."""
    for gap in db.open_gaps(connection, symbol):
        holes = without(holes, (gap.first_trade_id, gap.last_trade_id))
    found: list[Late] = []
    for first, last in holes:
        trades = pages.with_ids(connection, symbol, first, last, READ_TRADES_MAX)
        done = last if len(trades) < READ_TRADES_MAX else trades[-1].trade_id
        found.append(Late((first, done), trades))
    return found


def _status(connection: Connection, line: Line, missing: OpenGaps, stale_s: float | None) -> SymbolStatus:
    health = shapes.symbol_health(line.newest, missing, stale_s)
    before: dict[str, answers.Trade | None] = dict.fromkeys(BEFORE)
    if line.newest is not None:
        for name, ago in BEFORE.items():
            then = line.newest.timestamp - ago
            before[name] = answers.maybe(db.price_as_of(connection, line.newest.symbol, then))
    return SymbolStatus(**msgspec.structs.asdict(health), per_second=line.per_second, lag_ms=line.lag_ms, before=before)
