"""The data of a chart of a time range, in a bounded number of points: price, trades and lag, step by step.

If the range has up to SCAN_TRADES_MAX trades, the server reads every one. Otherwise price and trades come from candles,
and the lag is that of the first SAMPLE_TRADES trades of each stretch, so a month is drawn as fast as an hour.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from model import candles as bars
from model.candles import Candle
from model.times import MILLISECOND
from storage.errors import guard
from storage.ranges import candles
from storage.session import Connection, select
from storage.values import ceil_ms, naive

STEPS_MAX = 600
"""With more, a step would be less than two pixels wide."""
SCAN_TRADES_MAX = 2_000_000
SAMPLE_STEPS_MAX = 120
SAMPLE_TRADES = 1_000
WIDTHS_S = (60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200, 86_400)
"""The widths of steps made from candles: each is a whole number of minutes, hours or days."""

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

    `sampled`: the steps come from candles, and the lags from the first trades of each stretch.
    """

    start: datetime
    end: datetime
    width: timedelta
    steps: list[Step]
    lags: list[Lag]
    sampled: bool


@guard
def series(connection: Connection, symbol: str, start: datetime, end: datetime, trades: int) -> Series:
    """The steps of [start, end), which holds about `trades` trades."""
    start, end = ceil_ms(start), ceil_ms(end)
    if trades > SCAN_TRADES_MAX:
        return _from_candles(connection, symbol, start, end)
    width = max(MILLISECOND, -(-(end - start) // STEPS_MAX // MILLISECOND) * MILLISECOND)
    return _from_trades(connection, (symbol, start, end), width)


def _from_trades(connection: Connection, bounds: tuple[str, datetime, datetime], width: timedelta) -> Series:
    _, start, end = bounds
    # The last price comes from the same pass: it follows its id, which is padded so that texts sort like numbers.
    sql = (
        f"SELECT TIMESTAMPDIFF(MICROSECOND, %s, timestamp) DIV {width // timedelta(microseconds=1)} AS step, COUNT(*),"
        " MIN(price), MAX(price), CAST(SUBSTR(MAX(CONCAT(LPAD(trade_id, 20, '0'), price)), 21) AS DECIMAL(20,8)),"
        f" MIN({_LAG_US}), AVG({_LAG_US}), MAX({_LAG_US})"
        " FROM trades WHERE symbol = %s AND timestamp >= %s AND timestamp < %s GROUP BY step ORDER BY step"
    )
    steps, lags = [], []
    for number, count, low, high, close, *lag_us in select(connection, sql, naive((start, *bounds))):
        begin = start + int(number) * width
        steps.append(Step(begin, count, low, high, close))
        lags += _lag(begin, lag_us)
    return Series(start, end, width, steps, lags, False)


def _lag(begin: datetime, lag_us: Sequence[Decimal | int | None]) -> list[Lag]:
    """The lag of a step, in a list that is empty if all its trades were back-filled."""
    least, mean, most = (None if value is None else float(value) / 1000 for value in lag_us)
    return [] if least is None or mean is None or most is None else [Lag(begin, least, mean, most)]


def _from_candles(connection: Connection, symbol: str, start: datetime, end: datetime) -> Series:
    seconds = next((width for width in WIDTHS_S if (end - start).total_seconds() <= width * STEPS_MAX), WIDTHS_S[-1])
    resolution = max(one for one in bars.RESOLUTIONS if seconds % one == 0)
    width, begin = timedelta(seconds=seconds), bars.floor(start, resolution)
    steps: dict[int, Step] = {}
    for candle in candles(connection, symbol, resolution, begin, end):
        number = (candle.timestamp - begin) // width
        steps[number] = _merge(steps.get(number), candle, begin + number * width)
    return Series(begin, end, width, list(steps.values()), _sample_lags(connection, symbol, start, end), True)


def _merge(step: Step | None, candle: Candle, begin: datetime) -> Step:
    if step is None:
        return Step(begin, candle.trades, candle.low, candle.high, candle.close)
    low, high = min(step.low, candle.low), max(step.high, candle.high)
    return Step(begin, step.trades + candle.trades, low, high, candle.close)


def _sample_lags(connection: Connection, symbol: str, start: datetime, end: datetime) -> list[Lag]:
    sql = (
        f"SELECT MIN(late), AVG(late), MAX(late) FROM (SELECT {_LAG_US} AS late FROM trades"
        " WHERE symbol = %s AND timestamp >= %s AND timestamp < %s"
        f" ORDER BY timestamp, trade_id LIMIT {SAMPLE_TRADES}) AS sample"
    )
    width = (end - start) / SAMPLE_STEPS_MAX // MILLISECOND * MILLISECOND
    found: list[Lag] = []
    for number in range(SAMPLE_STEPS_MAX):
        begin = start + number * width
        (lag_us,) = select(connection, sql, naive((symbol, begin, min(end, begin + width))))
        found += _lag(begin, lag_us)
    return found
