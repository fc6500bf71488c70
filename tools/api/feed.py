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
from storage.pages import Place
from storage.trades import PARTS_MAX, prices_as_of, time_spans
from tools.api import shapes
from tools.api.days import Days
from tools.api.hub import Beat, Begin, Hub, Listener, Trades
from tools.api.sessions import AwayError, Sessions
from tools.api.settings import ApiSettings
from tools.api.shapes import Status, SymbolStatus
from tools.api.symbol_feed import TAPE_TRADES, Line, Missing, Start
from tools.api.watch import CaptureWatch

log = logging.getLogger("api")

POLL_S = 0.125
TICK_S = 0.25
STATUS_S = 1.0
AWAY_S = 1.0
"""How often it is looked whether the database is back."""
READ_TRADES_MAX = 2_000
"""Of a symbol at once; the next are read without a pause."""
LOOK_S = 5.0
"""How often every symbol is looked at where they are many."""
RENEWED_SYMBOLS = 20
"""The growing candles of so many are read again each second, of those of which something was stored late."""
LOOK_BACK_SYMBOLS = 100
"""Of so many it is found out each second what the prices were before."""
SILENT_S = 2.0
"""Whoever refuses does so at once; a database that takes longer to fail is there, but does not answer."""
BEFORE = {"1m": timedelta(minutes=1), "1h": timedelta(hours=1), "24h": timedelta(days=1)}


class Late(NamedTuple):
    """A run of ids that is missing no more, and the trades that were stored for it."""

    run: Run
    trades: list[db.Trade]


class Before(NamedTuple):
    """The trades whose prices were the prices before, and when they were looked for, on the monotonic clock."""

    at: float
    trades: dict[str, answers.Trade | None]


_UNKNOWN = Before(0.0, dict.fromkeys(BEFORE))
_NOTHING = OpenGaps(0, 0)


class Feed(threading.Thread):
    """Reads for the listeners of `hub` until `stop`; keeps watch on `sessions` for everybody."""

    def __init__(self, settings: ApiSettings, sessions: Sessions, hub: Hub) -> None:
        super().__init__(name="feed", daemon=True)
        self._settings = settings
        self._sessions = sessions
        self._hub = hub
        self._capture = CaptureWatch(settings.settings.capture_dir)
        self._days = Days()
        self._stopped = threading.Event()
        self._lines: dict[str, Line] = {}
        self._joining: list[Listener] = []
        self._before: dict[str, Before] = {}
        self._tick_at = self._status_at = self._look_at = 0.0
        # As of the last status, so that a symbol of which nothing is missing costs no question more.
        self._gaps: dict[str, OpenGaps] = {}
        # Those of which something may have been stored that their growing candles do not have; the first ones first.
        self._stale: dict[str, None] = {}
        hub.on_stall(lambda: self._status({}, None, None, "silent"))

    def stop(self) -> None:
        """Ends the thread soon."""
        self._stopped.set()

    def run(self) -> None:
        wait_s = 0.0
        while not self._stopped.wait(wait_s):
            began_at = time.monotonic()
            try:
                wait_s = self._step() if self._sessions.revive() else self._away(began_at)
            except AwayError:
                wait_s = self._away(began_at)
            except Exception:
                # A defect, but the streams may do better with the next trades than without any.
                log.exception("the feed fails")
                wait_s = AWAY_S

    def _away(self, began_at: float) -> float:
        trouble = "silent" if time.monotonic() - began_at > SILENT_S else "away"
        self._hub.post_status(self._status({}, None, None, trouble))
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
            status = self._sessions.ask(self._ask_status)
            # Before the status tells of it: then the page reads its candles, and those of the next ticks are no older.
            self._renew(singly)
            self._hub.post_status(status)
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
        wanted = {symbol for listener in self._joining for symbol in listener.symbols}
        lines = {symbol: line for symbol, line in self._lines.items() if symbol in wanted}
        # What is known already stays, so that the next status sees how it has changed.
        self._gaps = self._sessions.ask(stored_gaps.count_open_gaps) | self._gaps
        ticks = {
            symbol: tick
            for symbol, line in lines.items()
            if (tick := line.snapshot(self._missing(symbol, line.growing) if symbol in self._gaps else {}))
        }
        self._hub.post_begin(self._joining, Begin({symbol: line.seen.high for symbol, line in lines.items()}, ticks))
        self._joining = []

    def _read(self, singly: bool) -> bool:
        """Hands on what is new; whether there may be more already."""
        places = {symbol: line.place for symbol, line in self._lines.items()}
        found = self._sessions.ask(lambda c: pages.newer(c, self._moved(c, places), READ_TRADES_MAX))
        for symbol, trades in found.items():
            fresh = self._lines[symbol].add(trades)
            if singly and fresh:
                self._hub.post([_message(symbol, fresh)])
        return any(len(trades) == READ_TRADES_MAX for trades in found.values())

    def _moved(self, connection: Connection, places: dict[str, Place]) -> dict[str, Place]:
        """Those of `places` behind which something may be new; all of them, as long as they are one statement.

        Of many symbols, most have nothing new, so their newest times are read first. A trade whose time is not above
        that of the newest one is not seen by that: for it, all are looked at now and then.
        """
        now = time.monotonic()
        if len(places) <= PARTS_MAX or now >= self._look_at:
            self._look_at = now + LOOK_S
            return places
        times = time_spans(connection)
        return {
            symbol: place for symbol, place in places.items() if symbol in times and times[symbol][1] > place.timestamp
        }

    def _tick(self, now: float) -> None:
        for symbol, line in self._lines.items():
            tick = line.tick(now, self._missing(symbol, line.grown) if symbol in self._gaps else {})
            if tick is not None:
                self._hub.post([Beat(symbol, line.seen.high, msgspec.json.encode(tick))])

    def _missing(self, symbol: str, candles: Sequence[Candle]) -> Missing:
        """How many ids are missing in each of `candles`, if any are."""
        return self._sessions.ask(partial(_missing, candles=candles)) if candles else {}

    def _late(self, singly: bool) -> None:
        """Hands on what was stored below the highest id since the stream passed it."""
        for symbol, line in self._lines.items():
            if line.seen.holes and not singly:
                # They may be filled before a status counts them.
                self._stale[symbol] = None
                line.seen.holes.clear()
            if line.seen.holes:
                question = partial(_late, symbol=symbol, holes=list(line.seen.holes))
                for late in self._sessions.ask(question):
                    line.seen.fill(late.run)
                    self._stale[symbol] = None
                    self._hub.post([_message(symbol, late.trades)])

    def _renew(self, singly: bool) -> None:
        """Reads the growing candles of those symbols again of which something was stored below their highest ids."""
        for symbol in list(self._stale)[:RENEWED_SYMBOLS]:
            del self._stale[symbol]
            if (line := self._lines.get(symbol)) is None:
                continue
            question = partial(pages.newer_and_growing, symbol=symbol, place=line.place, size=READ_TRADES_MAX)
            found = self._sessions.ask(question)
            if found is None:
                # There is more to read first.
                self._stale[symbol] = None
            elif (fresh := line.renew(*found)) and singly:
                self._hub.post([_message(symbol, fresh)])

    def _ask_status(self, connection: Connection) -> Status:
        counts = stored_gaps.count_open_gaps(connection)
        for symbol in self._lines:
            if counts.get(symbol) != self._gaps.get(symbol):
                self._stale[symbol] = None
        self._gaps = counts
        self._look_back(connection)
        self._days.look(connection, {symbol: line.newest for symbol, line in self._lines.items()})
        symbols = {
            symbol: _status(
                line,
                counts.get(symbol, _NOTHING),
                self._settings.stale_s(symbol),
                (self._before[symbol], self._days.of(symbol)),
            )
            for symbol, line in self._lines.items()
        }
        newest = max((last for _, last in time_spans(connection).values()), default=None)
        return self._status(symbols, counts, newest)

    def _look_back(self, connection: Connection) -> None:
        """Finds the trades whose prices were the prices before; of many symbols those of some at a time, in turns."""
        self._before = {symbol: self._before.get(symbol, _UNKNOWN) for symbol in self._lines}
        turns = sorted(self._lines, key=lambda symbol: self._before[symbol].at)[:LOOK_BACK_SYMBOLS]
        asked = {
            symbol: [(symbol, newest.timestamp - ago) for ago in BEFORE.values()]
            for symbol in turns
            if (newest := self._lines[symbol].newest) is not None
        }
        found = prices_as_of(connection, [one for times in asked.values() for one in times])
        now = time.monotonic()
        for symbol, times in asked.items():
            prices = [answers.maybe(found[one]) for one in times]
            self._before[symbol] = Before(now, dict(zip(BEFORE, prices, strict=True)))

    def _status(
        self,
        symbols: dict[str, SymbolStatus],
        counts: dict[str, OpenGaps] | None,
        newest: datetime | None,
        trouble: str | None = None,
    ) -> Status:
        """`counts`: how much is missing of every symbol there is; None: the database does not tell, because of
        `trouble`."""
        settings = self._settings.settings
        now = answers.time(datetime.now(UTC))
        total: tuple[int | None, int | None] = (None, None)
        if counts is not None:
            total = sum(one.gaps for one in counts.values()), sum(one.missing for one in counts.values())
        about = counts is not None, trouble, self._capture.look(), settings.mysql_database, settings.demo
        return Status(now, *about, None if newest is None else answers.time(newest), *total, symbols)


def _start(connection: Connection, symbol: str) -> Start:
    return Start(*pages.newest_and_growing(connection, symbol, TAPE_TRADES))


def _missing(connection: Connection, candles: Sequence[Candle]) -> Missing:
    """Coarse ones first: what is within one in which nothing is missing is not asked for."""
    found: dict[tuple[int, datetime], int] = {}
    whole: list[tuple[datetime, datetime]] = []
    for one in sorted(candles, key=lambda candle: -candle.resolution):
        begin, end = one.timestamp, one.timestamp + timedelta(seconds=one.resolution)
        if any(since <= begin and end <= until for since, until in whole):
            continue
        if missing := stored_gaps.missing_in(connection, one.symbol, begin, end):
            found[one.resolution, begin] = missing
        else:
            whole.append((begin, end))
    return found


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


def _status(
    line: Line, missing: OpenGaps, stale_s: float | None, past: tuple[Before, shapes.LastDay | None]
) -> SymbolStatus:
    health = shapes.symbol_health(line.newest, missing, stale_s)
    told = msgspec.structs.asdict(health)
    before, day = past
    return SymbolStatus(**told, per_second=line.per_second, lag_ms=line.lag_ms, before=before.trades, day=day)
