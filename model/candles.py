"""Candles (open, high, low, close, volume): their grid of times, and how a range is made up of them. Pure, no SQL."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from model.amounts import EXACT
from model.times import EPOCH
from model.trade import Trade

FINE, MINUTE, HOUR, DAY = 1, 60, 3_600, 86_400
"""Resolutions that are stored, in seconds; FINE only within a minute that is not over yet."""
RESOLUTIONS = (MINUTE, HOUR, DAY)
"""Those that are kept."""
OFFERED = (1, MINUTE, 300, 900, HOUR, 14_400, DAY)
"""Those that are asked for, finest first: each divides the next, and a day."""
FINER = {DAY: HOUR, HOUR: MINUTE, MINUTE: 0, FINE: 0}
"""What the candles of a resolution are made of; 0: of trades."""

_timestamp = attrgetter("timestamp")
_trade_id = attrgetter("trade_id")
_price = attrgetter("price")


class Candle(NamedTuple):
    """A row of the table `candles`: what traded in [timestamp, timestamp + resolution seconds).

    `volume` is of the base asset, `quote_volume` the sum of price × quantity; the part of both in which the taker
    bought is given too. `trades` is how many there are.
    """

    symbol: str
    resolution: int
    timestamp: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    taker_buy_volume: Decimal
    taker_buy_quote_volume: Decimal
    trades: int
    first_trade_id: int
    last_trade_id: int


def floor(timestamp: datetime, resolution: int) -> datetime:
    """The start of the candle of `resolution` seconds (a part of a day) that `timestamp`, in UTC, falls into."""
    since = timestamp - EPOCH
    return timestamp - timedelta(seconds=since.seconds % resolution, microseconds=since.microseconds)


def ceil(timestamp: datetime, resolution: int) -> datetime:
    """The first start of a candle at or after `timestamp`."""
    begin = floor(timestamp, resolution)
    return begin if begin == timestamp else begin + timedelta(seconds=resolution)


class Piece(NamedTuple):
    """A part of a range of time, [start, end); `resolution` seconds of the candles that make it up, 0: trades."""

    resolution: int
    start: datetime
    end: datetime


def pieces(start: datetime, end: datetime, sealed_until: datetime | None) -> list[Piece]:
    """[start, end) cut into at most ten consecutive pieces: candles as coarse as fit, trades at the ragged edges.

    There are candles up to `sealed_until` (None: no candle at all): of minutes, hours and days, and of seconds for the
    last minute if that is only partly sealed. Behind it there are trades only.
    """
    if sealed_until is None:
        sealed_until = minute = start
    else:
        minute = floor(sealed_until, MINUTE)
    return [
        *_cut(start, min(end, minute), DAY),
        *_cut(max(start, minute), min(end, sealed_until), FINE),
        *_cut(max(start, sealed_until), end, 0),
    ]


def _cut(start: datetime, end: datetime, coarsest: int) -> list[Piece]:
    if start >= end:
        return []
    if not coarsest:
        return [Piece(0, start, end)]
    finer = FINER[coarsest]
    low, high = ceil(start, coarsest), floor(end, coarsest)
    if low >= high:
        return _cut(start, end, finer)
    return [*_cut(start, low, finer), Piece(coarsest, low, high), *_cut(high, end, finer)]


# ---- Candles that grow while trades arrive, for who has seen each trade once; the stored ones are made by SQL.


def of_trades(trades: Sequence[Trade]) -> list[Candle]:
    """The candles of all offered resolutions that `trades` of one symbol make, each of which is given once."""
    finest, *coarser = OFFERED
    groups: dict[datetime, list[Trade]] = defaultdict(list)
    for trade in trades:
        groups[floor(trade.timestamp, finest)].append(trade)
    made = found = [_made(finest, begin, group) for begin, group in groups.items()]
    for resolution in coarser:
        made = _coarser(made, resolution)
        found = found + made
    return found


def in_order(trades: Iterable[Trade], resolution: int) -> Iterator[Candle]:
    """The candles of one resolution that trades of one symbol make; both are in the order of time."""
    for begin, group in groupby(trades, lambda trade: floor(trade.timestamp, resolution)):
        yield _made(resolution, begin, list(group))


def _made(resolution: int, begin: datetime, trades: Sequence[Trade]) -> Candle:
    first, last = min(trades, key=_trade_id), max(trades, key=_trade_id)
    prices = list(map(_price, trades))
    bought = [trade for trade in trades if not trade.buyer_is_maker]
    return Candle(
        first.symbol,
        resolution,
        begin,
        first.price,
        max(prices),
        min(prices),
        last.price,
        *_volumes(trades),
        *_volumes(bought),
        len(trades),
        first.trade_id,
        last.trade_id,
    )


def _volumes(trades: Sequence[Trade]) -> tuple[Decimal, Decimal]:
    base = quote = Decimal()
    for trade in trades:
        base = EXACT.add(base, trade.quantity)
        quote = EXACT.add(quote, EXACT.multiply(trade.price, trade.quantity))
    return base, quote


def _coarser(candles: Iterable[Candle], resolution: int) -> list[Candle]:
    joint: dict[datetime, Candle] = {}
    for candle in candles:
        begin = floor(candle.timestamp, resolution)
        candle = candle._replace(resolution=resolution, timestamp=begin)
        joint[begin] = joined(joint[begin], candle) if begin in joint else candle
    return list(joint.values())


def joined(one: Candle, other: Candle) -> Candle:
    """The candle of the trades of both, which are of the same bar and have no trade in common."""
    first = one if one.first_trade_id < other.first_trade_id else other
    last = one if one.last_trade_id > other.last_trade_id else other
    return first._replace(
        high=max(one.high, other.high),
        low=min(one.low, other.low),
        close=last.close,
        volume=EXACT.add(one.volume, other.volume),
        quote_volume=EXACT.add(one.quote_volume, other.quote_volume),
        taker_buy_volume=EXACT.add(one.taker_buy_volume, other.taker_buy_volume),
        taker_buy_quote_volume=EXACT.add(one.taker_buy_quote_volume, other.taker_buy_quote_volume),
        trades=one.trades + other.trades,
        last_trade_id=last.last_trade_id,
    )
