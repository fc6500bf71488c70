"""REST during a replay: answers from the table, of what has happened by the tape's clock and nothing later.

An aggregate has the id of its first trade, since nobody counts all trades of years: ids of aggregates rise, with holes.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from functools import reduce
from itertools import islice

from aiohttp import web

import db
from model import candles as model_candles
from model.amounts import EXACT
from model.candles import MINUTE, Candle
from model.times import MILLISECOND, floor_ms
from model.trade import Trade as StoredTrade
from storage import pages, ranges
from storage.pages import LATEST, Place
from tools.exchange import parameters as given
from tools.exchange.bars import Ask, Bar, in_a_row, merged, periods
from tools.exchange.ledger import Aggregate, Ledger, Truth
from tools.exchange.replay import ReplayClock, Replayed
from tools.exchange.rest import Rest, RestRules
from tools.exchange.stored import Reader, time_of, time_us, to_e8, traded
from tools.exchange.tape import E8, Trade

log = logging.getLogger("replay")

SECOND_US = 1_000_000
LOOK_BACK_TRADES_MAX = 50_000
"""Read to find the last aggregates before a time, of which one may be many trades."""
SECOND_TRADES_MAX = 100_000
"""Of the second that is not over yet."""
_E16 = E8 * E8
_READS = ("historicalTrades", "trades", "aggTrades", "klines", "ticker/24hr")


class StoredRest(Rest):
    """The calls under /api/v3, answered from the table."""

    def __init__(self, truth: Truth, rules: RestRules, clock: ReplayClock, reader: Reader) -> None:
        super().__init__(truth, rules, clock)
        self._reader = reader

    async def warm(self, request: web.Request) -> None:
        """Reads what the answer needs in a thread, while the tape goes on."""
        call = request.path.removeprefix("/api/v3/")
        if call in _READS:
            with contextlib.suppress(given.ApiError):
                given.check_names(request)
                micro = request.headers.get("X-MBX-TIME-UNIT", "").upper() == "MICROSECOND"
                request["answer"] = await asyncio.to_thread(self.answer, request, micro)

    def answer(self, request: web.Request, micro: bool) -> object:
        """As of any exchange, but read once."""
        if "answer" in request:
            return request["answer"]
        try:
            return super().answer(request, micro)
        except db.DatabaseError as error:
            log.warning("%s cannot be answered: %s", request.path, error)
            raise given.ApiError(-1000, "An unknown error occurred while processing the request.", 503) from error

    def _now(self, micro: bool) -> int:
        return self.clock.now_us() // (1 if micro else 1000)

    def newest(self, ledger: Ledger, limit: int, shown: int) -> list[Trade]:
        """The last `limit` trades that have happened, oldest first."""
        place = _place(ledger)
        if place is None:
            return []
        found = self._reader.ask(lambda c: pages.newest_until(c, ledger.symbol, place, limit))
        return list(_visible(ledger, sorted(map(traded, found), key=lambda trade: trade.trade_id)))

    def from_id(self, ledger: Ledger, from_id: int, limit: int) -> list[Trade]:
        """The first `limit` trades from an id on, of those that have happened."""
        return list(islice(_visible(ledger, self._rising(ledger, from_id, limit)), limit))

    def _rising(self, ledger: Ledger, from_id: int, size: int) -> Iterator[Trade]:
        """The trades from an id on, read by `size` at a time."""
        place, first = _place(ledger), max(0, from_id)
        while place is not None and first <= place.trade_id:
            ids = first, place.trade_id
            page = self._reader.ask(lambda c, ids=ids: pages.by_id(c, ledger.symbol, ids, size))  # type: ignore[misc]
            yield from map(traded, page.trades)
            if page.next_id is None:
                return
            first = page.next_id

    def aggregates(
        self, ledger: Ledger, limit: int, from_id: int | None, times_us: tuple[int | None, int | None]
    ) -> list[Aggregate]:
        """Up to `limit` aggregates: from an id on, in a time range (both ends inclusive), or the newest."""
        start_us, end_us = times_us
        if from_id is None and start_us is None:
            return self._last_aggregates(ledger, limit, end_us)
        if from_id is None and start_us is not None:
            from_id = self._id_at(ledger, start_us)
        if from_id is None:
            return []
        # With the trade before, since the id may be that of a trade within an aggregate, which begins before.
        trades = self._rising(ledger, from_id - 1, max(limit, 100))
        found: list[Aggregate] = []
        for group in _groups(trades):
            if end_us is not None and group[0].time_us > end_us:
                break
            if group[0].trade_id >= from_id:
                found.append(_aggregate(group))
            if len(found) == limit:
                break
        return found

    def _id_at(self, ledger: Ledger, start_us: int) -> int | None:
        """The id of the first trade at that time or later."""
        times = time_of(start_us), LATEST
        found = self._reader.ask(lambda c: pages.page(c, ledger.symbol, None, times, 1))
        return found[0].trade_id if found else None

    def _last_aggregates(self, ledger: Ledger, limit: int, end_us: int | None) -> list[Aggregate]:
        place = _place(ledger)
        if place is None:
            return []
        place = place if end_us is None else place._replace(timestamp=min(place.timestamp, floor_ms(time_of(end_us))))
        size = limit * 3
        while True:
            found = self._reader.ask(lambda c, size=size: pages.newest_until(c, ledger.symbol, place, size))  # type: ignore[misc]
            trades = sorted(map(traded, found), key=lambda trade: trade.trade_id)
            groups = [_aggregate(group) for group in _groups(trades)]
            # What stands first may have begun before what was read.
            if len(groups) > limit or len(found) < size or size >= LOOK_BACK_TRADES_MAX:
                return groups[-limit:]
            size *= 4

    def klines(self, ledger: Ledger, ask: Ask) -> list[tuple[int, Bar]]:
        """The bars that are wanted, up to the running one, with their open times."""
        place = _place(ledger)
        ends = self._reader.ask(lambda c: pages.ends(c, ledger.symbol)) if place else None
        if place is None or ends is None:
            return []
        unit, happened_us = ask.unit_us, time_us(place.timestamp)
        numbers = periods(ask, time_us(ends[0]), max(happened_us, self.clock.now_us()))
        if not numbers:
            return []
        running = happened_us // unit
        start, over = time_of(numbers.start * unit), time_of(min(running, numbers.stop) * unit)
        found = {time_us(one.timestamp) // unit: _bar(one) for one in self._candles(ledger, unit, start, over)}
        if running in numbers and (bar := self._span(ledger, place, time_of(running * unit))[0]):
            found[running] = bar
        before = self._reader.ask(lambda c: db.price_as_of(c, ledger.symbol, start - MILLISECOND))
        return in_a_row(numbers, unit, found, to_e8(before.price) if before else 0)

    def span(self, ledger: Ledger, begin_us: int) -> tuple[Bar | None, int, int]:
        """The bar of all trades since the second of that time (None: there are none), its first and its last id."""
        place = _place(ledger)
        if place is None:
            return None, -1, -1
        bar, first = self._span(ledger, place, time_of(begin_us // SECOND_US * SECOND_US))
        return bar, first, place.trade_id

    def _span(self, ledger: Ledger, place: Place, begin: datetime) -> tuple[Bar | None, int]:
        """The bar of what has happened from a second on, and its first id: seconds, minutes, seconds and trades."""
        second = model_candles.floor(place.timestamp, 1)
        low = min(model_candles.ceil(begin, MINUTE), second)
        high = max(low, model_candles.floor(place.timestamp, MINUTE))
        parts = [(SECOND_US, begin, low), (MINUTE * SECOND_US, low, high), (SECOND_US, high, second)]
        candles = [one for part in parts for one in self._candles(ledger, *part)]
        found = self._reader.ask(
            lambda c: pages.page(
                c, ledger.symbol, None, (max(begin, second), place.timestamp + MILLISECOND), SECOND_TRADES_MAX
            )
        )
        trades = sorted((one for one in found if one.trade_id <= place.trade_id), key=lambda one: one.trade_id)
        bars = [*map(_bar, candles), *map(_bar_of, trades)]
        ids = [*(one.first_trade_id for one in candles), *(one.trade_id for one in trades)]
        return (reduce(merged, bars), min(ids)) if bars else (None, -1)

    def _candles(self, ledger: Ledger, unit_us: int, start: datetime, end: datetime) -> list[Candle]:
        if start >= end:
            return []
        return self._reader.ask(lambda c: ranges.candles(c, ledger.symbol, unit_us // SECOND_US, start, end))


def _place(ledger: Ledger) -> Place | None:
    assert isinstance(ledger, Replayed)
    return ledger.place


def _visible(ledger: Ledger, trades: Iterable[Trade]) -> Iterator[Trade]:
    """Without those that a fault hides."""
    return (trade for trade in trades if not ledger.hides(trade.trade_id))


def _groups(trades: Iterable[Trade]) -> Iterator[list[Trade]]:
    """Trades with consecutive ids, of one taker order at one price."""
    group: list[Trade] = []
    for trade in trades:
        if group and _belongs(group[-1], trade):
            group.append(trade)
        else:
            if group:
                yield group
            group = [trade]
    if group:
        yield group


def _belongs(before: Trade, trade: Trade) -> bool:
    same = before.time_us == trade.time_us and before.price_e8 == trade.price_e8
    return same and before.buyer_is_maker == trade.buyer_is_maker and before.trade_id + 1 == trade.trade_id


def _aggregate(group: Sequence[Trade]) -> Aggregate:
    return Aggregate(group[0].trade_id, group[0], group[-1], sum(trade.quantity_e8 for trade in group))


def _bar(candle: Candle) -> Bar:
    return Bar(
        to_e8(candle.open),
        to_e8(candle.high),
        to_e8(candle.low),
        to_e8(candle.close),
        to_e8(candle.volume),
        _to_e16(candle.quote_volume),
        candle.trades,
        to_e8(candle.taker_buy_volume),
        _to_e16(candle.taker_buy_quote_volume),
    )


def _to_e16(amount: Decimal) -> int:
    return int(EXACT.multiply(amount, _E16))


def _bar_of(trade: StoredTrade) -> Bar:
    price, quantity = to_e8(trade.price), to_e8(trade.quantity)
    taken = not trade.buyer_is_maker
    quote = price * quantity
    return Bar(price, price, price, price, quantity, quote, 1, quantity * taken, quote * taken)
