"""Candles (open, high, low, close) of trades: pure, no SQL. Merging them is the upsert in db.py."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from operator import attrgetter
from typing import NamedTuple

from model.trade import Trade

MINUTE, HOUR, DAY = 60, 3_600, 86_400
"""Resolutions, in seconds."""
RESOLUTIONS = (MINUTE, HOUR, DAY)
FINER = {DAY: HOUR, HOUR: MINUTE, MINUTE: 0}
"""What the candles of a resolution are made of; 0: of trades."""

_timestamp = attrgetter("timestamp")
_trade_id = attrgetter("trade_id")
_price = attrgetter("price")


class Candle(NamedTuple):
    """A row of the table `candles`: what traded in [timestamp, timestamp + resolution seconds)."""

    symbol: str
    resolution: int
    timestamp: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    first_trade_id: int
    last_trade_id: int

    @property
    def trades(self) -> int:
        """How many ids the first and last trade span, which is the number of trades where no gap is open."""
        return self.last_trade_id - self.first_trade_id + 1


def floor(timestamp: datetime, resolution: int) -> datetime:
    """The start of the candle that `timestamp` falls into."""
    minute = timestamp.replace(second=0, microsecond=0)
    if resolution == MINUTE:
        return minute
    return minute.replace(minute=0) if resolution == HOUR else minute.replace(minute=0, hour=0)


def ceil(timestamp: datetime, resolution: int) -> datetime:
    """The first start of a candle at or after `timestamp`."""
    begin = floor(timestamp, resolution)
    return begin if begin == timestamp else begin + timedelta(seconds=resolution)


class Piece(NamedTuple):
    """A part of a range of time, [start, end); `resolution` seconds of the candles that make it up, 0: trades."""

    resolution: int
    start: datetime
    end: datetime


def pieces(start: datetime, end: datetime, coarsest: int = DAY) -> list[Piece]:
    """[start, end) cut into at most seven consecutive pieces: candles as coarse as fit, trades at the ragged edges."""
    if start >= end:
        return []
    if not coarsest:
        return [Piece(0, start, end)]
    finer = FINER[coarsest]
    low, high = ceil(start, coarsest), floor(end, coarsest)
    if low >= high:
        return pieces(start, end, finer)
    return [*pieces(start, low, finer), Piece(coarsest, low, high), *pieces(high, end, finer)]


def of_trades(trades: Sequence[Trade]) -> list[Candle]:
    """The candles of all resolutions that `trades` of one symbol make, whatever their order or repetition."""
    minutes = [_of_minute(group) for group in _by_minute(trades)]
    if len(minutes) == 1:
        # A batch of the live stream: its hour and its day have the same prices.
        (minute,) = minutes
        return [minute, _as(minute, HOUR), _as(minute, DAY)]
    return [*minutes, *_coarser(minutes, HOUR), *_coarser(minutes, DAY)]


def _as(candle: Candle, resolution: int) -> Candle:
    """The coarser candle that the trades of `candle` alone make."""
    return Candle(candle[0], resolution, floor(candle[2], resolution), *candle[3:])


def _by_minute(trades: Sequence[Trade]) -> Iterable[Sequence[Trade]]:
    # A batch of the live stream almost always lies within one minute, which two passes in C can tell.
    first, last = min(map(_timestamp, trades)), max(map(_timestamp, trades))
    if first is last or floor(first, MINUTE) == floor(last, MINUTE):
        return [trades]
    groups: dict[datetime, list[Trade]] = defaultdict(list)
    for trade in trades:
        groups[floor(trade.timestamp, MINUTE)].append(trade)
    return groups.values()


def _of_minute(trades: Sequence[Trade]) -> Candle:
    first, last = min(trades, key=_trade_id), max(trades, key=_trade_id)
    prices = list(map(_price, trades))
    return Candle(
        first.symbol,
        MINUTE,
        floor(first.timestamp, MINUTE),
        first.price,
        max(prices),
        min(prices),
        last.price,
        first.trade_id,
        last.trade_id,
    )


def _coarser(candles: Iterable[Candle], resolution: int) -> list[Candle]:
    merged: dict[datetime, Candle] = {}
    for candle in candles:
        candle = _as(candle, resolution)
        begin = candle.timestamp
        merged[begin] = merge(merged[begin], candle) if begin in merged else candle
    return list(merged.values())


def merge(one: Candle, other: Candle) -> Candle:
    """The candle of both candles' trades, which are of the same bar: idempotent, commutative and associative."""
    earlier = one if one.first_trade_id <= other.first_trade_id else other
    later = one if one.last_trade_id >= other.last_trade_id else other
    return earlier._replace(
        high=max(one.high, other.high),
        low=min(one.low, other.low),
        close=later.close,
        last_trade_id=later.last_trade_id,
    )
