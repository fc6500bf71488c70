"""Answers about time ranges whose cost does not grow with the range: whole candles, and trades for the ragged edges.

A range is cut into at most seven pieces: trades, minutes, hours, days, hours, minutes, trades (candles.pieces).
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from model import candles as bars
from model.candles import DAY, HOUR, MINUTE, Candle, Piece
from model.trade import Trade
from storage.errors import DatabaseError, guard
from storage.session import Connection, run, select
from storage.transaction import snapshot, transaction
from storage.values import aware, ceil_ms, naive, number_sql, trade_of

_TRADE = ", ".join(Trade._fields)
_CANDLE = ", ".join(Candle._fields)
_DISAGREE = "the candles do not agree with the trades, as if some were deleted; db.rebuild_candles rebuilds them"
_WITHIN = "symbol = %s AND timestamp >= %s AND timestamp < %s"


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


class _Wanted(NamedTuple):
    """An extreme of the price, and the piece of the range in which its earliest trade is."""

    column: str
    price: Decimal
    piece: Piece


@guard
def min_max(connection: Connection, symbol: str, start: datetime, end: datetime) -> MinMax | None:
    """The low and the high of the price in [start, end), each with its trade; None if nothing traded.

    The count is the number of ids from the first trade to the last, minus those in open gaps: exact if timestamps rise
    with the ids, as the exchange's do.
    """
    start, end = ceil_ms(start), ceil_ms(end)
    # The statements build on each other, and a candle that is still growing would change between them.
    with snapshot(connection):
        return _min_max(connection, symbol, start, end)


def _min_max(connection: Connection, symbol: str, start: datetime, end: datetime) -> MinMax | None:
    found = _extremes(connection, symbol, bars.pieces(start, end))
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
    trades = last.trade_id - first.trade_id + 1 - _missing(connection, symbol, first.trade_id, last.trade_id)
    return MinMax(symbol, start, end, trades, first, last, low, high)


@guard
def min_max_by_scan(connection: Connection, symbol: str, start: datetime, end: datetime) -> MinMax | None:
    """The same answer from trades alone, in time that grows with the range: the reference to test `min_max` with."""
    start, end = ceil_ms(start), ceil_ms(end)
    with snapshot(connection):
        return _scan(connection, symbol, start, end)


def _scan(connection: Connection, symbol: str, start: datetime, end: datetime) -> MinMax | None:
    bounds = (symbol, start, end)
    sql = f"SELECT COUNT(*), MIN(price), MAX(price) FROM trades WHERE {_WITHIN}"
    ((count, low, high),) = select(connection, sql, naive(bounds))
    if not count:
        return None
    return MinMax(
        symbol,
        start,
        end,
        count,
        _one(connection, f"{_WITHIN} ORDER BY timestamp, trade_id", bounds),
        _one(connection, f"{_WITHIN} ORDER BY timestamp DESC, trade_id DESC", bounds),
        _one(connection, f"{_WITHIN} AND price = {number_sql(low)} ORDER BY timestamp, trade_id", bounds),
        _one(connection, f"{_WITHIN} AND price = {number_sql(high)} ORDER BY timestamp, trade_id", bounds),
    )


@guard
def candles(connection: Connection, symbol: str, resolution: int, start: datetime, end: datetime) -> list[Candle]:
    """The candles of `resolution` (60, 3600 or 86400 seconds) that start in [start, end), oldest first.

    A period without trades has no candle. The number of trades (Candle.trades) is exact unless a gap is open in it.
    """
    sql = f"SELECT {_CANDLE} FROM candles WHERE symbol = %s AND resolution = %s AND timestamp >= %s AND timestamp < %s"
    rows = select(connection, f"{sql} ORDER BY timestamp", naive((symbol, resolution, ceil_ms(start), ceil_ms(end))))
    return [Candle(*map(aware, row)) for row in rows]


def _extremes(connection: Connection, symbol: str, pieces: Sequence[Piece]) -> list[_Extremes]:
    """The low and the high of each piece that has trades, in one statement."""
    parts: list[str] = []
    parameters: list[object] = []
    for index, piece in enumerate(pieces):
        if piece.resolution:
            parts.append(
                f"SELECT {index}, MIN(low), MAX(high) FROM candles"
                " WHERE symbol = %s AND resolution = %s AND timestamp >= %s AND timestamp < %s"
            )
            parameters += [symbol, piece.resolution, piece.start, piece.end]
        else:
            parts.append(f"SELECT {index}, MIN(price), MAX(price) FROM trades WHERE {_WITHIN}")
            parameters += [symbol, piece.start, piece.end]
    if not parts:
        return []
    rows = select(connection, " UNION ALL ".join(parts), naive(parameters))
    return sorted((_Extremes(pieces[index], low, high) for index, low, high in rows if low is not None), key=_order)


def _order(part: _Extremes) -> datetime:
    return part.piece.start


def _closer(connection: Connection, symbol: str, wanted: dict[str, _Wanted]) -> dict[str, _Wanted]:
    """Each extreme in the earliest candle of its piece that has it: from days to hours to minutes to trades."""
    parts: list[str] = []
    parameters: list[object] = []
    for name, (column, price, piece) in wanted.items():
        if piece.resolution:
            parts.append(
                f"(SELECT '{name}', timestamp FROM candles WHERE symbol = %s AND resolution = %s AND timestamp >= %s"
                f" AND timestamp < %s AND {column} = {number_sql(price)} ORDER BY timestamp LIMIT 1)"
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
        f"(SELECT {index}, {_TRADE} FROM trades WHERE {_WITHIN} {part} LIMIT 1)" for index, part in enumerate(parts)
    )
    rows = select(connection, sql, naive([value for piece in pieces for value in (symbol, *piece)]))
    if len(rows) < len(parts):
        raise DatabaseError(_DISAGREE)
    return [trade_of(row[1:]) for row in sorted(rows, key=lambda row: int(row[0]))]


def _missing(connection: Connection, symbol: str, first: int, last: int) -> int:
    """How many ids between two stored ones are in open gaps; such a gap is always completely between them."""
    sql = (
        "SELECT SUM(last_trade_id - first_trade_id + 1) FROM gaps"
        " WHERE filled_at IS NULL AND symbol = %s AND first_trade_id > %s AND first_trade_id < %s"
    )
    ((missing,),) = select(connection, sql, (symbol, first, last))
    return int(missing or 0)


def _one(connection: Connection, where: str, parameters: Sequence[object]) -> Trade:
    rows = select(connection, f"SELECT {_TRADE} FROM trades WHERE {where} LIMIT 1", naive(parameters))
    if not rows:
        raise DatabaseError(_DISAGREE)
    return trade_of(rows[0])


@guard
def rebuild_candles(connection: Connection, symbol: str) -> int:
    """Rebuilds the candles of `symbol` from its trades. Returns how many there are now.

    For a table that something else has filled. Safe during a capture: trades captured meanwhile are merged as usual.
    """
    with transaction(connection, [symbol]):
        ends = "(SELECT timestamp FROM trades WHERE symbol = %s ORDER BY timestamp {way} LIMIT 1)"
        sql = f"SELECT {ends.format(way='ASC')}, {ends.format(way='DESC')}"
        ((first, last),) = select(connection, sql, (symbol, symbol))
        if first is None:
            run(connection, "DELETE FROM candles WHERE symbol = %s", (symbol,))
            return 0
        first, last = bars.floor(aware(first), DAY), aware(last)
        outside = "DELETE FROM candles WHERE symbol = %s AND (timestamp < %s OR timestamp > %s)"
        run(connection, outside, naive((symbol, first, last)))
    day, made = first, 0
    while day <= last:
        made += _rebuild_day(connection, symbol, day)
        day += timedelta(days=1)
    return made


def _rebuild_day(connection: Connection, symbol: str, day: datetime) -> int:
    """Rebuilds the minutes from trades, one hour and one transaction at a time, so that nobody waits long; then hours
    and days. Returns how many candles there are."""
    minutes = (MINUTE, "'%Y-%m-%d %H:%i:00'", ("price",) * 4 + ("trade_id",) * 2, f"trades WHERE {_WITHIN}")
    hours = (HOUR, "'%Y-%m-%d %H:00:00'", Candle._fields[3:], f"candles WHERE {_WITHIN} AND resolution = {MINUTE}")
    days = (DAY, "'%Y-%m-%d 00:00:00'", Candle._fields[3:], f"candles WHERE {_WITHIN} AND resolution = {HOUR}")
    made = 0
    for begin in (day + timedelta(hours=number) for number in range(24)):
        made += _rebuild(connection, (symbol, begin, begin + timedelta(hours=1)), [minutes])
    return made + _rebuild(connection, (symbol, day, day + timedelta(days=1)), [hours, days])


def _rebuild(
    connection: Connection, bounds: tuple[str, datetime, datetime], steps: list[tuple[int, str, Sequence[str], str]]
) -> int:
    within = naive(bounds)
    with transaction(connection, bounds[:1]):
        for resolution, *_rest in steps:
            run(connection, f"DELETE FROM candles WHERE {_WITHIN} AND resolution = {resolution}", within)
        return sum(run(connection, _rebuild_sql(*step), within) for step in steps)


def _rebuild_sql(resolution: int, form: str, columns: Sequence[str], source: str) -> str:
    """The SQL that builds candles of `resolution` from finer rows. The first and last price come from the same pass:
    each follows its id, which is padded so that texts sort like numbers."""
    first_price, high, low, last_price, first_id, last_id = columns
    begin = f"CAST(DATE_FORMAT(timestamp, {form}) AS DATETIME(3))"
    first = f"CAST(SUBSTR(MIN(CONCAT(LPAD({first_id}, 20, '0'), {first_price})), 21) AS DECIMAL(20,8))"
    last = f"CAST(SUBSTR(MAX(CONCAT(LPAD({last_id}, 20, '0'), {last_price})), 21) AS DECIMAL(20,8))"
    return (
        f"INSERT INTO candles ({_CANDLE}) SELECT symbol, {resolution}, {begin} AS begin, {first}, MAX({high}),"
        f" MIN({low}), {last}, MIN({first_id}), MAX({last_id}) FROM {source} GROUP BY symbol, begin"
    )
