"""Answers about time ranges whose cost does not grow with the range: whole candles, and trades for the ragged edges.

A range is cut into at most ten pieces, such as trades, minutes, hours, days, hours, minutes, trades (candles.pieces).
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import reduce
from typing import NamedTuple

from model import candles as bars
from model.amounts import EXACT
from model.candles import Candle, Piece
from model.times import MILLISECOND
from model.trade import Trade
from storage.bars import COLUMNS, WITHIN, candle_of, of_pieces
from storage.errors import DatabaseError
from storage.gaps import missing_in
from storage.sealing import sealed_until
from storage.session import Connection, select
from storage.transaction import in_snapshot
from storage.values import aware, ceil_ms, naive, number_sql, trade_of

_TRADE = ", ".join(Trade._fields)
_DISAGREE = (
    "the candles do not agree with the trades, as if some were changed by hand; `python -m tools.reseal` mends them"
)
_BAR = "symbol = %s AND resolution = %s AND timestamp >= %s AND timestamp < %s"


class MinMax(NamedTuple):
    """The trades of [start, end): how many, the first and the last, and the earliest at the low and at the high."""

    symbol: str
    start: datetime
    end: datetime
    trades: int
    first: Trade
    last: Trade
    low: Trade
    high: Trade


class _Extremes(NamedTuple):
    piece: Piece
    low: Decimal
    high: Decimal
    trades: int


class _Wanted(NamedTuple):
    """An extreme of the price, and the piece of the range in which its earliest trade is."""

    column: str
    price: Decimal
    piece: Piece


@in_snapshot
def min_max(connection: Connection, symbol: str, start: datetime, end: datetime) -> MinMax | None:
    """The low and the high of the price in [start, end), each with its trade, and the number of trades; None: none."""
    start, end = ceil_ms(start), ceil_ms(end)
    found = _extremes(connection, symbol, bars.pieces(start, end, sealed_until(connection, symbol)))
    if not found:
        return None
    lows, highs = min(found, key=lambda part: part.low), max(found, key=lambda part: part.high)
    wanted = {
        "low": _Wanted("low", lows.low, lows.piece),
        "high": _Wanted("high", highs.high, highs.piece),
    }
    while any(one.piece.resolution for one in wanted.values()):
        wanted = _closer(connection, symbol, wanted)
    first, last, low, high = _ends_and_extremes(connection, symbol, (start, end), wanted)
    return MinMax(symbol, start, end, sum(part.trades for part in found), first, last, low, high)


@in_snapshot
def min_max_by_scan(connection: Connection, symbol: str, start: datetime, end: datetime) -> MinMax | None:
    """The same answer from trades alone, in time that grows with the range: the reference to test `min_max` with."""
    bounds = (symbol, ceil_ms(start), ceil_ms(end))
    sql = f"SELECT COUNT(*), MIN(price), MAX(price) FROM trades WHERE {WITHIN}"
    ((count, low, high),) = select(connection, sql, naive(bounds))
    if not count:
        return None
    return MinMax(
        *bounds,
        count,
        _one(connection, f"{WITHIN} ORDER BY timestamp, trade_id", bounds),
        _one(connection, f"{WITHIN} ORDER BY timestamp DESC, trade_id DESC", bounds),
        _one(connection, f"{WITHIN} AND price = {number_sql(low)} ORDER BY timestamp, trade_id", bounds),
        _one(connection, f"{WITHIN} AND price = {number_sql(high)} ORDER BY timestamp, trade_id", bounds),
    )


@in_snapshot
def candles(connection: Connection, symbol: str, resolution: int, start: datetime, end: datetime) -> list[Candle]:
    """The candles of `resolution` seconds (a part of a day) that begin in [start, end), oldest first.

    Made of what is sealed, as coarse as it fits, and of the trades behind that; a time without trades has no candle.
    """
    start, end = (bars.ceil(ceil_ms(bound), resolution) for bound in (start, end))
    until = sealed_until(connection, symbol)
    # Up to here each candle is sealed, or made of sealed ones only.
    border = start if until is None else min(max(start, bars.floor(until, resolution)), end)
    stored = max((one for one in bars.RESOLUTIONS if resolution % one == 0), default=0)
    found: list[Candle] = []
    if start < border and stored == resolution:
        sql = f"SELECT {COLUMNS} FROM candles WHERE symbol = %s AND resolution = %s AND timestamp >= %s"
        values = naive((symbol, resolution, start, border))
        found += map(candle_of, select(connection, f"{sql} AND timestamp < %s ORDER BY timestamp", values))
    elif start < border:
        found += _made(connection, symbol, resolution, [Piece(stored, start, border)])
    if border < end:
        found += _made(connection, symbol, resolution, bars.pieces(border, end, until))
    return found


def _made(connection: Connection, symbol: str, resolution: int, pieces: Sequence[Piece]) -> list[Candle]:
    return list(map(candle_of, select(connection, *of_pieces(symbol, resolution, pieces))))


@in_snapshot
def growing(connection: Connection, symbol: str, when: datetime) -> list[Candle]:
    """The candles of the kept resolutions that `when` falls into."""
    begins = [(resolution, bars.floor(when, resolution)) for resolution in bars.RESOLUTIONS]
    return [
        candle
        for resolution, begin in begins
        for candle in candles(connection, symbol, resolution, begin, begin + MILLISECOND)
    ]


class Totals(NamedTuple):
    """The exact sums of the trades of a range: see Candle. `missing`: how many ids are in the open gaps that reach into
    it; of a gap that reaches beyond it nobody knows how many of its ids belong here, so all are counted."""

    trades: int
    volume: Decimal
    quote_volume: Decimal
    taker_buy_volume: Decimal
    taker_buy_quote_volume: Decimal
    missing: int


@in_snapshot
def totals(connection: Connection, symbol: str, start: datetime, end: datetime) -> Totals:
    """The sums of the trades of [start, end), in time that does not grow with the range."""
    start, end = ceil_ms(start), ceil_ms(end)
    pieces = bars.pieces(start, end, sealed_until(connection, symbol))
    parts = [_SUMS_OF_BARS if piece.resolution else _SUMS_OF_TRADES for piece in pieces]
    values = [value for piece in pieces for value in _values(symbol, piece)]
    rows = select(connection, " UNION ALL ".join(parts), naive(values)) if parts else []
    missing = missing_in(connection, symbol, start, end)
    # A part without trades has no sum.
    trades, base, quote, taker_base, taker_quote = (
        reduce(EXACT.add, (row[column] for row in rows if row[column] is not None), Decimal()) for column in range(5)
    )
    return Totals(int(trades), base, quote, taker_base, taker_quote, missing)


_SUMS_OF_BARS = (
    "SELECT SUM(trades), SUM(volume), SUM(quote_volume), SUM(taker_buy_volume), SUM(taker_buy_quote_volume)"
    f" FROM candles WHERE {_BAR}"
)
_SUMS_OF_TRADES = (
    "SELECT COUNT(*), SUM(quantity), SUM(price * quantity), SUM(IF(buyer_is_maker, 0, quantity)),"
    f" SUM(IF(buyer_is_maker, 0, price * quantity)) FROM trades WHERE {WITHIN}"
)


def _values(symbol: str, piece: Piece) -> list[object]:
    """The parameters of _BAR or of WITHIN."""
    return [symbol, piece.resolution, piece.start, piece.end] if piece.resolution else [symbol, piece.start, piece.end]


def _extremes(connection: Connection, symbol: str, pieces: Sequence[Piece]) -> list[_Extremes]:
    """The low and the high of each piece that has trades, and how many, in one statement."""
    parts: list[str] = []
    parameters: list[object] = []
    for index, piece in enumerate(pieces):
        if piece.resolution:
            parts.append(f"SELECT {index}, MIN(low), MAX(high), SUM(trades) FROM candles WHERE {_BAR}")
        else:
            parts.append(f"SELECT {index}, MIN(price), MAX(price), COUNT(*) FROM trades WHERE {WITHIN}")
        parameters += _values(symbol, piece)
    if not parts:
        return []
    rows = select(connection, " UNION ALL ".join(parts), naive(parameters))
    found = (_Extremes(pieces[index], low, high, int(trades)) for index, low, high, trades in rows if low is not None)
    return sorted(found, key=_order)


def _order(part: _Extremes) -> datetime:
    return part.piece.start


def _closer(connection: Connection, symbol: str, wanted: dict[str, _Wanted]) -> dict[str, _Wanted]:
    """Each extreme in the earliest candle of its piece that has it: from days to hours to minutes to trades."""
    parts: list[str] = []
    parameters: list[object] = []
    for name, (column, price, piece) in wanted.items():
        if piece.resolution:
            parts.append(
                f"(SELECT '{name}', timestamp FROM candles WHERE {_BAR} AND {column} = {number_sql(price)}"
                " ORDER BY timestamp LIMIT 1)"
            )
            parameters += [symbol, *piece]
    rows = select(connection, " UNION ALL ".join(parts), naive(parameters))
    if len(rows) < len(parts):
        raise DatabaseError(_DISAGREE)
    closer = dict(wanted)
    for name, begin in rows:
        resolution = wanted[name].piece.resolution
        start = aware(begin)
        piece = Piece(bars.FINER[resolution], start, start + timedelta(seconds=resolution))
        closer[name] = wanted[name]._replace(piece=piece)
    return closer


def _ends_and_extremes(
    connection: Connection, symbol: str, ends: tuple[datetime, datetime], wanted: dict[str, _Wanted]
) -> list[Trade]:
    """The first and the last trade in `ends`, and the earliest of each piece of `wanted` at its price."""
    oldest_first, newest_first = "ORDER BY timestamp, trade_id", "ORDER BY timestamp DESC, trade_id DESC"
    parts = [oldest_first, newest_first]
    parts += [f"AND price = {number_sql(one.price)} {oldest_first}" for one in wanted.values()]
    pieces = [ends, ends, *((one.piece.start, one.piece.end) for one in wanted.values())]
    sql = " UNION ALL ".join(
        f"(SELECT {index}, {_TRADE} FROM trades WHERE {WITHIN} {part} LIMIT 1)" for index, part in enumerate(parts)
    )
    rows = select(connection, sql, naive([value for piece in pieces for value in (symbol, *piece)]))
    if len(rows) < len(parts):
        raise DatabaseError(_DISAGREE)
    return [trade_of(row[1:]) for row in sorted(rows, key=lambda row: int(row[0]))]


def _one(connection: Connection, where: str, parameters: Sequence[object]) -> Trade:
    rows = select(connection, f"SELECT {_TRADE} FROM trades WHERE {where} LIMIT 1", naive(parameters))
    if not rows:
        raise DatabaseError(_DISAGREE)
    return trade_of(rows[0])
