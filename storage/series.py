"""The data of a chart of a time range, in a bounded number of points: price, trades and lag, step by step.

If the range has up to SCAN_TRADES_MAX trades, the server reads every one. Otherwise price and trades come from candles,
and the lag is that of the first SAMPLE_TRADES trades of each stretch, so a month is drawn as fast as an hour.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from model import candles as bars
from model.candles import Candle
from model.times import MILLISECOND
from model.trade import Trade
from storage import pages, past
from storage.ranges import candles
from storage.session import Connection, select
from storage.transaction import in_snapshot
from storage.values import ceil_ms, naive

STEPS_MAX = 600
"""With more, a step would be less than two pixels wide."""
SCAN_TRADES_MAX = 2_000_000
SAMPLE_STEPS_MAX = 120
SAMPLE_TRADES = 1_000
WIDTHS_S = (60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200, 86_400)
"""The widths of steps made from candles: each is a whole number of minutes, hours or days."""

_MICROSECOND = timedelta(microseconds=1)
_LAG_US = "TIMESTAMPDIFF(MICROSECOND, timestamp, received_at)"


class Lag(NamedTuple):
    """How long after the exchange's timestamp the trades of a step arrived, in milliseconds; the clocks may differ."""

    start: datetime
    least: float
    mean: float
    most: float


class Step(NamedTuple):
    """The trades of a short stretch of time: how many, and the low, the high and the last price."""

    start: datetime
    trades: int
    low: Decimal
    high: Decimal
    close: Decimal


class Series(NamedTuple):
    """The steps with trades in [start, end), each `width` long, and the lags of the trades that arrived live.

    `sampled`: the steps come from candles, the first and the last of them whole, so that `start` and `end` are theirs;
    the lags are of the first trades of each stretch.
    """

    start: datetime
    end: datetime
    width: timedelta
    steps: list[Step]
    lags: list[Lag]
    sampled: bool


@in_snapshot
def series(connection: Connection, symbol: str, start: datetime, end: datetime, trades: int) -> Series:
    """The steps of [start, end), which holds about `trades` trades."""
    start, end = ceil_ms(start), ceil_ms(end)
    if trades > SCAN_TRADES_MAX:
        return _from_candles(connection, symbol, start, end)
    width = max(MILLISECOND, -(-(end - start) // STEPS_MAX // MILLISECOND) * MILLISECOND)
    return _from_trades(connection, (symbol, start, end), width)


class _Lags(NamedTuple):
    """Of how many trades the lag is known, and the least, the most and the sum of them in microseconds."""

    trades: int
    least: int = 0
    most: int = 0
    total: int = 0


class _Sums(NamedTuple):
    """What is known of a step: as Step, with the id of the last price, and its lags."""

    trades: int
    low: Decimal
    high: Decimal
    last_id: int
    close: Decimal
    lags: _Lags


def _from_trades(connection: Connection, bounds: tuple[str, datetime, datetime], width: timedelta) -> Series:
    symbol, start, end = bounds
    found: dict[int, _Sums] = {}
    for part in past.parts(connection, *bounds):
        if part.retained:
            sums = _sums_of_file(past.trades(connection, part), start, width)
        else:
            sums = _sums_of_table(connection, (symbol, part.start, part.end), start, width)
        for number, one in sums:
            found[number] = _added(found[number], one) if number in found else one
    steps, lags = [], []
    for number, one in sorted(found.items()):
        begin = start + number * width
        steps.append(Step(begin, one.trades, one.low, one.high, one.close))
        lags += _lag(begin, one.lags)
    return Series(start, end, width, steps, lags, False)


def _sums_of_table(
    connection: Connection, bounds: tuple[str, datetime, datetime], start: datetime, width: timedelta
) -> Iterator[tuple[int, _Sums]]:
    # The last price comes from the same pass: it follows its id, which is padded so that texts sort like numbers.
    sql = (
        f"SELECT TIMESTAMPDIFF(MICROSECOND, %s, timestamp) DIV {width // _MICROSECOND} AS step, COUNT(*),"
        " MIN(price), MAX(price), MAX(trade_id),"
        " CAST(SUBSTR(MAX(CONCAT(LPAD(trade_id, 20, '0'), price)), 21) AS DECIMAL(20,8)),"
        f" COUNT(received_at), MIN({_LAG_US}), MAX({_LAG_US}), SUM({_LAG_US})"
        " FROM trades WHERE symbol = %s AND timestamp >= %s AND timestamp < %s GROUP BY step ORDER BY step"
    )
    for row in select(connection, sql, naive((start, *bounds))):
        number, count, low, high, last_id, close, timed, least, most, total = row
        lags = _Lags(timed, least, most, int(total)) if timed else _Lags(0)
        yield int(number), _Sums(count, low, high, last_id, close, lags)


def _sums_of_file(trades: Iterable[Trade], start: datetime, width: timedelta) -> Iterator[tuple[int, _Sums]]:
    for number, step in groupby(trades, lambda trade: (trade.timestamp - start) // width):
        group = list(step)
        prices = [trade.price for trade in group]
        last = max(group, key=attrgetter("trade_id"))
        yield number, _Sums(len(group), min(prices), max(prices), last.trade_id, last.price, _lags_of(group))


def _lags_of(trades: Sequence[Trade]) -> _Lags:
    lags = [(trade.received_at - trade.timestamp) // _MICROSECOND for trade in trades if trade.received_at]
    return _Lags(len(lags), min(lags), max(lags), sum(lags)) if lags else _Lags(0)


def _added(one: _Sums, other: _Sums) -> _Sums:
    """A step that has a part in a file and one in the table."""
    last = max(one, other, key=attrgetter("last_id"))
    known = [part.lags for part in (one, other) if part.lags.trades]
    lags = _Lags(
        sum(part.trades for part in known),
        min((part.least for part in known), default=0),
        max((part.most for part in known), default=0),
        sum(part.total for part in known),
    )
    low, high = min(one.low, other.low), max(one.high, other.high)
    return _Sums(one.trades + other.trades, low, high, last.last_id, last.close, lags)


def _lag(begin: datetime, lags: _Lags) -> list[Lag]:
    """The lag of a step, in a list that is empty if all its trades were back-filled."""
    if not lags.trades:
        return []
    return [Lag(begin, lags.least / 1000, lags.total / lags.trades / 1000, lags.most / 1000)]


def _from_candles(connection: Connection, symbol: str, start: datetime, end: datetime) -> Series:
    seconds = next((width for width in WIDTHS_S if (end - start).total_seconds() <= width * STEPS_MAX), WIDTHS_S[-1])
    resolution = max(one for one in bars.RESOLUTIONS if seconds % one == 0)
    width, begin = timedelta(seconds=seconds), bars.floor(start, resolution)
    # The last candle has the trades of all its time, as far as it has come.
    _, newest = pages.ends(connection, symbol) or (end, end)
    over = max(end, min(bars.ceil(end, resolution), newest + MILLISECOND))
    steps: dict[int, Step] = {}
    for candle in candles(connection, symbol, resolution, begin, end):
        number = (candle.timestamp - begin) // width
        steps[number] = _merge(steps.get(number), candle, begin + number * width)
    return Series(begin, over, width, list(steps.values()), _sample_lags(connection, symbol, start, end), True)


def _merge(step: Step | None, candle: Candle, begin: datetime) -> Step:
    if step is None:
        return Step(begin, candle.trades, candle.low, candle.high, candle.close)
    low, high = min(step.low, candle.low), max(step.high, candle.high)
    return Step(begin, step.trades + candle.trades, low, high, candle.close)


def _sample_lags(connection: Connection, symbol: str, start: datetime, end: datetime) -> list[Lag]:
    sql = (
        f"SELECT COUNT(late), MIN(late), MAX(late), SUM(late) FROM (SELECT {_LAG_US} AS late FROM trades"
        " WHERE symbol = %s AND timestamp >= %s AND timestamp < %s"
        f" ORDER BY timestamp, trade_id LIMIT {SAMPLE_TRADES}) AS sample"
    )
    width = (end - start) / SAMPLE_STEPS_MAX // MILLISECOND * MILLISECOND
    found: list[Lag] = []
    for number in range(SAMPLE_STEPS_MAX):
        begin = start + number * width
        until = min(end, begin + width)
        if not any(part.retained for part in past.parts(connection, symbol, begin, until)):
            ((timed, least, most, total),) = select(connection, sql, naive((symbol, begin, until)))
            found += _lag(begin, _Lags(timed, least, most, int(total))) if timed else []
        else:
            sample = pages.page(connection, symbol, None, (begin, until), SAMPLE_TRADES)
            found += _lag(begin, _lags_of(sample))
    return found
