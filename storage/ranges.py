"""Answers about time ranges whose cost does not grow with the range: whole candles, and trades for the ragged edges.

A range is cut into at most ten pieces, such as trades, minutes, hours, days, hours, minutes, trades (candles.pieces).
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import reduce
from typing import NamedTuple

from model import candles as bars
from model.amounts import EXACT
from model.candles import MINUTE, Candle, Piece
from model.times import MILLISECOND
from model.trade import Trade
from storage import past
from storage.bars import COLUMNS, WITHIN, candle_of, of_pieces
from storage.errors import DatabaseError, guard
from storage.gaps import missing_in
from storage.retained import Part
from storage.sealing import sealed_until
from storage.session import Connection, select, sent
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
    """The low and the high of the price in [start, end), each with its trade, and the number of trades; None: none.
    Raises FileError."""
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
    """The same answer from trades alone, in time that grows with the range: the reference to test `min_max` with.
    Raises FileError."""
    bounds = (symbol, ceil_ms(start), ceil_ms(end))
    found: MinMax | None = None
    for part in past.parts(connection, *bounds):
        if part.retained:
            more = _scan_of_file(past.trades(connection, part))
        else:
            more = _scan_of_table(connection, (symbol, part.start, part.end))
        found = _joined(found, more) if found and more else found or more
    return found._replace(start=bounds[1], end=bounds[2]) if found else None


@guard
def plain_sql(connection: Connection, symbol: str, start: datetime, end: datetime) -> str | None:
    """The plainest statement for the low and the high of [start, end), as it can be pasted into the mysql client; None
    if a part of the trades is in files."""
    bounds = (symbol, ceil_ms(start), ceil_ms(end))
    if any(part.retained for part in past.parts(connection, *bounds)):
        return None
    return sent(connection, f"SELECT MIN(price), MAX(price) FROM trades WHERE {WITHIN}", naive(bounds)) + ";"


def _scan_of_table(connection: Connection, bounds: tuple[str, datetime, datetime]) -> MinMax | None:
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


def _scan_of_file(trades: Iterable[Trade]) -> MinMax | None:
    count, low, high, trade = 0, None, None, None
    first: Trade | None = None
    for trade in trades:
        count += 1
        first = first or trade
        low = trade if low is None or trade.price < low.price else low
        high = trade if high is None or trade.price > high.price else high
    if first is None or trade is None or low is None or high is None:
        return None
    return MinMax(first.symbol, first.timestamp, trade.timestamp, count, first, trade, low, high)


def _joined(one: MinMax, later: MinMax) -> MinMax:
    return one._replace(
        trades=one.trades + later.trades,
        last=later.last,
        low=later.low if later.low.price < one.low.price else one.low,
        high=later.high if later.high.price > one.high.price else one.high,
    )


@in_snapshot
def candles(connection: Connection, symbol: str, resolution: int, start: datetime, end: datetime) -> list[Candle]:
    """The candles of `resolution` seconds (a part of a day) that begin in [start, end), oldest first. Raises FileError.

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
    in_table, in_files = _cut(connection, symbol, pieces)
    found = list(map(candle_of, select(connection, *of_pieces(symbol, resolution, in_table)))) if in_table else []
    if not in_files:
        return found
    joint = {bar.timestamp: bar for bar in found}
    for part in in_files:
        for bar in bars.in_order(past.trades(connection, part), resolution):
            there = joint.get(bar.timestamp)
            joint[bar.timestamp] = bars.joined(there, bar) if there else bar
    return [joint[begin] for begin in sorted(joint)]


def _cut(connection: Connection, symbol: str, pieces: Sequence[Piece]) -> tuple[list[Piece], list[Part]]:
    """`pieces`, and of those of trades what is in the table; and what is in files."""
    in_table: list[Piece] = []
    in_files: list[Part] = []
    for piece in pieces:
        if piece.resolution:
            in_table.append(piece)
            continue
        for part in past.parts(connection, symbol, piece.start, piece.end):
            if part.retained:
                in_files.append(part)
            else:
                in_table.append(Piece(0, part.start, part.end))
    return in_table, in_files


@in_snapshot
def growing(connection: Connection, symbol: str, when: datetime) -> list[Candle]:
    """The candles of the offered resolutions that `when` falls into."""
    begins = [(resolution, bars.floor(when, resolution)) for resolution in bars.OFFERED]
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
    """The sums of the trades of [start, end), in time that does not grow with the range. Raises FileError."""
    start, end = ceil_ms(start), ceil_ms(end)
    pieces, in_files = _cut(connection, symbol, bars.pieces(start, end, sealed_until(connection, symbol)))
    parts = [_SUMS_OF_BARS if piece.resolution else _SUMS_OF_TRADES for piece in pieces]
    values = [value for piece in pieces for value in _values(symbol, piece)]
    rows = select(connection, " UNION ALL ".join(parts), naive(values)) if parts else []
    rows += [sums for part in in_files for sums in map(_sums, bars.in_order(past.trades(connection, part), MINUTE))]
    missing = missing_in(connection, symbol, start, end)
    # A part without trades has no sum.
    trades, base, quote, taker_base, taker_quote = (
        reduce(EXACT.add, (row[column] for row in rows if row[column] is not None), Decimal()) for column in range(5)
    )
    return Totals(int(trades), base, quote, taker_base, taker_quote, missing)


def _sums(bar: Candle) -> tuple[int, Decimal, Decimal, Decimal, Decimal]:
    return bar.trades, bar.volume, bar.quote_volume, bar.taker_buy_volume, bar.taker_buy_quote_volume


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
    """The low and the high of each piece that has trades, and how many: those in the table in one statement."""
    parts: list[str] = []
    parameters: list[object] = []
    pieces, in_files = _cut(connection, symbol, pieces)
    found: list[_Extremes] = []
    for one in in_files:
        if scanned := _scan_of_file(past.trades(connection, one)):
            piece = Piece(0, one.start, one.end)
            found.append(_Extremes(piece, scanned.low.price, scanned.high.price, scanned.trades))
    for index, piece in enumerate(pieces):
        if piece.resolution:
            parts.append(f"SELECT {index}, MIN(low), MAX(high), SUM(trades) FROM candles WHERE {_BAR}")
        else:
            parts.append(f"SELECT {index}, MIN(price), MAX(price), COUNT(*) FROM trades WHERE {WITHIN}")
        parameters += _values(symbol, piece)
    rows = select(connection, " UNION ALL ".join(parts), naive(parameters)) if parts else []
    found += [_Extremes(pieces[index], low, high, int(trades)) for index, low, high, trades in rows if low is not None]
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
    if any(part.retained for part in past.parts(connection, symbol, *ends)):
        found = [
            _end(connection, (symbol, *ends), past.first, ""),
            _end(connection, (symbol, *ends), past.last, " DESC"),
            *(_earliest(connection, symbol, one) for one in wanted.values()),
        ]
        if None in found:
            raise DatabaseError(_DISAGREE)
        return [trade for trade in found if trade is not None]
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


def _end(
    connection: Connection, span: tuple[str, datetime, datetime], read: Callable[..., list[Trade]], order: str
) -> Trade | None:
    """The first or the last trade of symbol, start, end, wherever it is."""
    sql = f"SELECT {_TRADE} FROM trades WHERE {WITHIN} ORDER BY timestamp{order}, trade_id{order} LIMIT %s"

    def of_table(part: Part, size: int) -> list[Trade]:
        return list(map(trade_of, select(connection, sql, naive((span[0], part.start, part.end, size)))))

    return next(iter(read(connection, span, 1, of_table)), None)


def _earliest(connection: Connection, symbol: str, wanted: _Wanted) -> Trade | None:
    """The earliest trade at the price, wherever it is."""
    sql = f"SELECT {_TRADE} FROM trades WHERE {WITHIN} AND price = {number_sql(wanted.price)}"
    sql += " ORDER BY timestamp, trade_id LIMIT 1"
    for part in past.parts(connection, symbol, wanted.piece.start, wanted.piece.end):
        if part.retained:
            found = next((one for one in past.trades(connection, part) if one.price == wanted.price), None)
        else:
            rows = select(connection, sql, naive((symbol, part.start, part.end)))
            found = trade_of(rows[0]) if rows else None
        if found:
            return found
    return None


def _one(connection: Connection, where: str, parameters: Sequence[object]) -> Trade:
    rows = select(connection, f"SELECT {_TRADE} FROM trades WHERE {where} LIMIT 1", naive(parameters))
    if not rows:
        raise DatabaseError(_DISAGREE)
    return trade_of(rows[0])
