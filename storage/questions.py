"""The questions: each is one function that returns one named tuple, which the report's text, its JSON and the API show.

How another is added is told in docs/adding.md.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from operator import attrgetter
from typing import NamedTuple

from model.amounts import average_price
from model.candles import Candle
from model.gaps import missing_in_each
from model.times import MILLISECOND, floor_ms
from model.trade import Trade
from storage import gaps as stored_gaps
from storage import pages, ranges, trades
from storage.errors import guard
from storage.ranges import MinMax
from storage.session import Connection
from storage.transaction import in_snapshot

SCAN_TRADES_MAX = 200_000
"""The answer about a range of up to so many trades is compared with that of a scan, which takes about 0.1 s."""
SCAN_TRIES = 3
"""The answers come one after the other, and trades may be stored between them."""

_price = attrgetter("price")


class Aged(NamedTuple):
    """A trade and its age at the time that was asked about; negative if the exchange's clock runs ahead."""

    trade: Trade
    age_ms: int


class Latest(NamedTuple):
    """The newest stored trade, its age at the time that was asked about, and how many ids are in the open gaps that
    reach up to its millisecond."""

    trade: Trade
    age_ms: int
    missing: int


class Second(NamedTuple):
    """What traded in the second of `time`; of several trades at the low or the high the earliest is given.

    `as_of`: the last trade up to `time`, whose price was the price then. `missing`: how many ids are in the open gaps
    that reach into the second, or from `as_of` into it: as long as there are any, each of the others may be wrong.
    """

    symbol: str
    time: datetime
    second: datetime
    trades: Sequence[Trade]
    first: Trade | None
    low: Trade | None
    high: Trade | None
    last: Trade | None
    as_of: Aged | None
    missing: int


FIRST_ID = 1
"""The exchange's number of the first trade of a symbol, or 0: before that there was none."""


class Outside(NamedTuple):
    """The time of the oldest stored trade, if what is asked about reaches before it, and that of the newest, if it
    reaches behind that: nobody knows what traded there. None: it does not."""

    before: datetime | None = None
    after: datetime | None = None


class Instant(NamedTuple):
    """The price at an instant: that of `as_of`, the last trade up to and including its millisecond; None: none before.

    `missing`: how many ids are in the open gaps from which a trade may lie between `as_of` and the instant.
    `is_newest`: no later trade is stored, so that nobody knows whether another came by then. In both cases the price
    may have been another.
    """

    symbol: str
    time: datetime
    as_of: Aged | None
    missing: int
    is_newest: bool


class Range(NamedTuple):
    """What traded in [start, end); of several trades at the low or the high the earliest is given.

    `as_of`: if nothing traded, the last trade before, whose price was the price at `start`. `missing`: as in Second.
    `equals_scan`: whether a scan of the stored trades gives the same; None: not compared.
    """

    symbol: str
    start: datetime
    end: datetime
    count: int  # type: ignore[assignment]  # a tuple's own count() is not needed
    missing: int
    first: Trade | None = None
    low: Trade | None = None
    high: Trade | None = None
    last: Trade | None = None
    as_of: Aged | None = None
    equals_scan: bool | None = None


class Candles(NamedTuple):
    """The candles of `resolution` seconds that begin in [start, end), oldest first; where nothing traded is none.

    `missing`: for each, how many ids are in the open gaps that reach into it; those of a gap that reaches into several
    count in each, since nobody knows to which they belong.
    """

    symbol: str
    resolution: int
    start: datetime
    end: datetime
    candles: Sequence[Candle]
    missing: Sequence[int]


class Volume(NamedTuple):
    """What was traded in [start, end), in exact sums; the parts in which the taker bought; and the average price.

    `vwap`: quote_volume / volume, rounded to 8 decimals, half to even; None: nothing traded. `missing`: how many ids
    are in the open gaps that reach into the range.
    """

    symbol: str
    start: datetime
    end: datetime
    count: int  # type: ignore[assignment]  # a tuple's own count() is not needed
    volume: Decimal
    quote_volume: Decimal
    taker_buy_volume: Decimal
    taker_buy_quote_volume: Decimal
    vwap: Decimal | None
    missing: int


# The ids that are missing are read at the moment of the trades: a gap that was filled in between would be told of
# neither by the answer, which is without its trades, nor by the gaps.


@in_snapshot
def latest_price(connection: Connection, symbol: str, now: datetime) -> Latest | None:
    """The newest trade and its age `now`; None: there is none."""
    found = _aged(trades.latest(connection, symbol), now)
    if found is None:
        return None
    when = found.trade.timestamp
    return Latest(*found, stored_gaps.missing_in(connection, symbol, when, when + MILLISECOND))


@in_snapshot
def latest_prices(
    connection: Connection, now: datetime, after: str = "", size: int = trades.EVERY_SYMBOL
) -> list[Latest]:
    """The same for each symbol, in order: of the first `size` behind `after`. Statements: as latest_of_all()."""
    missing = stored_gaps.missing_at_newest(connection)
    return [
        Latest(trade, (now - trade.timestamp) // MILLISECOND, missing.get(trade.symbol, 0))
        for trade in trades.latest_of_all(connection, after, size)
    ]


@in_snapshot
def price_at(connection: Connection, symbol: str, time: datetime) -> Second:
    """What traded in the second of `time`, and the price as of `time`."""
    found, then = trades.trades_in_second(connection, symbol, time), floor_ms(time)
    before = next((trade for trade in reversed(found) if trade.timestamp <= then), None)
    as_of = _aged(before or trades.price_as_of(connection, symbol, time), time)
    first = low = high = last = None
    if found:
        # min() and max() return the earliest of equal ones, since the trades are in order.
        first, low, high, last = found[0], min(found, key=_price), max(found, key=_price), found[-1]
    # What is missing between the last trade before and the second reaches into the second too.
    second = time.replace(microsecond=0)
    missing = stored_gaps.missing_in(connection, symbol, second, second + timedelta(seconds=1))
    return Second(symbol, time, second, found, first, low, high, last, as_of, missing)


@in_snapshot
def price_at_instant(connection: Connection, symbol: str, time: datetime) -> Instant:
    """The price at the end of the millisecond of `time`."""
    as_of = _aged(trades.price_as_of(connection, symbol, time), time)
    if as_of is None:
        return Instant(symbol, time, None, 0, is_newest=False)
    begin, trade_id = as_of.trade.timestamp, as_of.trade.trade_id
    gaps = stored_gaps.gaps_in(connection, symbol, begin, floor_ms(time) + MILLISECOND)
    # What is missing right before that trade came before it, unless times run back.
    missing = sum(gap.missing for gap in gaps if gap.first_trade_id > trade_id or gap.timestamp_after > begin)
    return Instant(symbol, time, as_of, missing, trades.latest(connection, symbol) == as_of.trade)


@in_snapshot
def low_and_high(connection: Connection, symbol: str, start: datetime, end: datetime) -> Range:
    """The low and the high of the price in [start, end); as quick for years as for a minute."""
    found = ranges.min_max(connection, symbol, start, end)
    missing = stored_gaps.missing_in(connection, symbol, start, end)
    if found is None:
        before = trades.price_as_of(connection, symbol, start)
        return Range(symbol, start, end, 0, missing, as_of=_aged(before, start))
    return _range(found, start, end, missing)


def compared(connection: Connection, answer: Range) -> Range:
    """`answer` with whether a scan of the trades gives the same, if they are not too many."""
    asked = answer.symbol, answer.start, answer.end
    if not 0 < answer.count <= SCAN_TRADES_MAX:
        return answer
    for _ in range(SCAN_TRIES):
        scanned = ranges.min_max_by_scan(connection, *asked)
        if scanned and _range(scanned, answer.start, answer.end, answer.missing) == answer:
            return answer._replace(equals_scan=True)
        answer = low_and_high(connection, *asked)
    return answer._replace(equals_scan=False)


@in_snapshot
def range_and_volume(connection: Connection, symbol: str, start: datetime, end: datetime) -> tuple[Range, Volume]:
    """Both at one moment, so that they are about the same trades."""
    return low_and_high(connection, symbol, start, end), volume(connection, symbol, start, end)


@in_snapshot
def candles(connection: Connection, symbol: str, resolution: int, start: datetime, end: datetime) -> Candles:
    """The candles that begin in [start, end)."""
    asked = symbol, resolution, start, end
    return _candles(connection, asked, ranges.candles(connection, *asked))


@in_snapshot
def last_candles(connection: Connection, symbol: str, resolution: int, end: datetime, size: int) -> Candles | None:
    """The last `size` candles that begin before `end`; None: there is none."""
    found = pages.last_candles(connection, symbol, resolution, end, size)
    return _candles(connection, (symbol, resolution, found[0].timestamp, end), found) if found else None


def _candles(connection: Connection, asked: tuple[str, int, datetime, datetime], found: Sequence[Candle]) -> Candles:
    symbol, resolution, _, _ = asked
    length, gaps = timedelta(seconds=resolution), []
    if found:
        gaps = stored_gaps.gaps_in(connection, symbol, found[0].timestamp, found[-1].timestamp + length)
    missing = missing_in_each(gaps, [candle.timestamp for candle in found], length)
    return Candles(*asked, found, missing)


def volume(connection: Connection, symbol: str, start: datetime, end: datetime) -> Volume:
    """The volume and the volume-weighted average price of [start, end); as quick for years as for a minute."""
    found = ranges.totals(connection, symbol, start, end)
    vwap = average_price(found.quote_volume, found.volume)
    return Volume(symbol, start, end, *found[:5], vwap, found.missing)


@guard
def outside(connection: Connection, symbol: str, start: datetime, end: datetime) -> Outside:
    """Which side of what is stored [start, end) reaches beyond. Ask it before the question itself: then what is stored
    between the two makes the answer say too much, and never too little."""
    span = stored_gaps.read_span(connection, symbol)
    if span is None:
        return Outside()
    (oldest_id, oldest), (_, newest) = span
    return Outside(
        oldest if start < oldest and oldest_id > FIRST_ID else None,
        newest if end > newest + MILLISECOND else None,
    )


def _aged(trade: Trade | None, time: datetime) -> Aged | None:
    return None if trade is None else Aged(trade, (time - trade.timestamp) // MILLISECOND)


def _range(found: MinMax, start: datetime, end: datetime, missing: int) -> Range:
    """`start` and `end` as they were asked: those of `found` are whole milliseconds."""
    return Range(found.symbol, start, end, found.trades, missing, found.first, found.low, found.high, found.last)
