"""Trades as text that the server itself writes: whole lines, in the order of the table's key, a chunk at a time.

Building a line costs the server little more than sending the columns, and saves this side from parsing six values and
formatting them again. A range is read an hour at a time, so no statement holds the server's view of the tables for
long, and rows are streamed, so memory does not grow with the range.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from model import candles as bars
from model.candles import HOUR
from storage.bars import WITHIN
from storage.errors import DatabaseError, guard
from storage.session import Connection, close, end_raw, select
from storage.transaction import snapshot
from storage.values import ceil_ms, naive

CHUNK_ROWS = 2_000
"""About 200 KB of text; ten times as much is a tenth slower, since it no longer fits in the CPU caches."""
MICROSECONDS_FROM = datetime(2025, 1, 1, tzinfo=UTC)
"""From this time on the exchange's archive has microseconds; before it, milliseconds."""

PLAIN, BINANCE, INFLUX, INFLUX_TEXT, CANONICAL = "plain", "binance", "influx", "influx-text", "canonical"
"""The layouts of a line; none of them includes the symbol.

`plain`: timestamp, trade_id, price, quantity, buyer_is_maker, received_at; ISO 8601 times, true or false, NULL as an
empty field. `binance`: as in the exchange's archive. `influx` and `influx-text`: the fields and the timestamp of a
point, with amounts as numbers or as text. `canonical`: what a day is proven with (model/proof.py).
"""

_EPOCH_US = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {})"
# The database writes a time with a space where ISO 8601 has a T; such a line has no other space.
_PLAIN = (
    "CONCAT(timestamp, 'Z,', trade_id, ',', price, ',', quantity, IF(buyer_is_maker, ',true,', ',false,'),"
    " IFNULL(CONCAT(received_at, 'Z'), ''))"
)
# The exchange truncates: 0.003127 times 4.708 is 0.014721916, and its archive has 0.01472191.
_BINANCE = (
    "CONCAT(trade_id, ',', price, ',', quantity, ',', TRUNCATE(price * quantity, 8), ',', {time},"
    " IF(buyer_is_maker, ',True,True', ',False,True'))"
)
# A point replaces another with the same tags and timestamp, and two trades of three share their millisecond with
# another: so the nanoseconds below the millisecond are always taken from the id.
_INFLUX = (
    "CONCAT('price=', {price}, ',quantity=', {quantity}, IF(buyer_is_maker, ',buyer_is_maker=true',"
    " ',buyer_is_maker=false'), ',trade_id=', trade_id, 'i', IFNULL(CONCAT(',received_at=', {received}, 'i'), ''),"
    " ' ', {time} * 1000 + trade_id MOD 1000000)"
)
_CANONICAL = (
    "CONCAT(trade_id, ',', price, ',', quantity, ',', REPLACE(UNIX_TIMESTAMP(timestamp), '.', ''),"
    " IF(buyer_is_maker, ',1', ',0'))"
)


_ID = {
    CANONICAL: rb"(\d+)",
    PLAIN: rb"[^,]*,(\d+)",
    BINANCE: rb"(\d+)",
    INFLUX: rb".*,trade_id=(\d+)i",
    INFLUX_TEXT: rb".*,trade_id=(\d+)i",
}


class CutShortError(DatabaseError):
    """The server gave fewer rows than it has."""


class Chunk(NamedTuple):
    """Lines in the order of the table's key, each ending in a line feed; their number, and the first and last id."""

    text: bytes
    rows: int
    first_trade_id: int
    last_trade_id: int


def line_sql(layout: str, hour: datetime) -> str:
    """The SQL expression for a line of `layout`, for trades in that hour."""
    time = _EPOCH_US.format("timestamp")
    if layout == BINANCE:
        return _BINANCE.format(time=time if hour >= MICROSECONDS_FROM else f"{time} DIV 1000")
    if layout in (PLAIN, CANONICAL):
        return _PLAIN if layout == PLAIN else _CANONICAL
    price, quantity = ("price", "quantity") if layout == INFLUX else (_in_quotes("price"), _in_quotes("quantity"))
    return _INFLUX.format(price=price, quantity=quantity, received=_EPOCH_US.format("received_at"), time=time)


def _in_quotes(column: str) -> str:
    return f"""'"', {column}, '"'"""


def lines(connection: Connection, symbol: str, start: datetime, end: datetime, layout: str) -> Iterator[Chunk]:
    """The trades of `symbol` in [start, end) as lines of `layout`, oldest first, at most CHUNK_ROWS at a time.

    Each hour is read in its state at that moment, and its rows are counted in the same: no limit of the server, nor of
    a proxy before it, can cut them short unseen. If the caller stops early, the connection is closed, because rows are
    still arriving on it. Raises the exceptions of storage/errors.py; CutShortError if not all rows came.
    """
    start, end = ceil_ms(start), ceil_ms(end)
    while start < end:
        until = min(end, bars.floor(start, HOUR) + timedelta(seconds=HOUR))
        yield from _stream(connection, (symbol, start, until), layout, "timestamp, trade_id")
        start = until


def lines_by_id(connection: Connection, symbol: str, start: datetime, end: datetime, layout: str) -> Iterator[Chunk]:
    """As lines(), by rising id, in one statement: the server has to sort them, so this is for ids that time does not
    follow."""
    yield from _stream(connection, (symbol, ceil_ms(start), ceil_ms(end)), layout, "trade_id, timestamp")


def _stream(connection: Connection, bounds: tuple[str, datetime, datetime], layout: str, order: str) -> Iterator[Chunk]:
    line = line_sql(layout, bounds[1])
    done, rows_read = False, 0
    try:
        with snapshot(connection):
            rows_stored = _count(connection, bounds)
            cursor = _ask(connection, f"SELECT {line} FROM trades WHERE {WITHIN} ORDER BY {order}", bounds)
            while rows := _more(cursor):
                rows_read += len(rows)
                yield _chunk([line for (line,) in rows], layout)
            done = True
            cursor.close()
    finally:
        if done:
            end_raw(connection)
        else:
            close(connection)
    if rows_read != rows_stored:
        symbol, start, end = bounds
        raise CutShortError(
            f"the server gave {rows_read:,} of the {rows_stored:,} trades of {symbol} from {start} to {end}: look for a"
            " limit on rows in the server (sql_select_limit) or in a proxy before it"
        )


@guard
def _count(connection: Connection, bounds: tuple[str, datetime, datetime]) -> int:
    return int(select(connection, f"SELECT COUNT(*) FROM trades WHERE {WITHIN}", naive(bounds))[0][0])


def _chunk(made: list[bytes], layout: str) -> Chunk:
    text = b"\n".join(made)
    first, last = (int(re.match(_ID[layout], line)[1]) for line in (made[0], made[-1]))  # type: ignore[index]
    return Chunk((text.replace(b" ", b"T") if layout == PLAIN else text) + b"\n", len(made), first, last)


@guard
def _ask(connection: Connection, sql: str, parameters: tuple[Any, ...]) -> Any:
    # `raw`: no conversion to Python types. Not buffered: rows are read while they arrive.
    cursor = connection.cursor(raw=True, buffered=False)
    cursor.execute(sql, tuple(naive(parameters)))
    if connection.asked is not None:
        connection.asked.append(str(cursor.statement))
    return cursor


@guard
def _more(cursor: Any) -> list[tuple[bytes]]:
    rows: list[tuple[bytes]] = cursor.fetchmany(CHUNK_ROWS)
    return rows
