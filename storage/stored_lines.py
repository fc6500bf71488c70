"""Trades as text, wherever they are: from the table the server's own lines (storage/lines.py), from a file the same.

Byte for byte: who has exported a day gets the same file again after the day has left the table.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Context, Decimal
from functools import partial
from itertools import islice
from operator import attrgetter

from model import candles as bars
from model.amounts import EXACT
from model.candles import DAY, HOUR
from model.times import EPOCH, MILLISECOND
from model.trade import Trade
from storage import past
from storage.lines import (
    BINANCE,
    CANONICAL,
    CHUNK_ROWS,
    INFLUX,
    INFLUX_TEXT,
    MICROSECONDS_FROM,
    PLAIN,
    Chunk,
    lines,
    lines_by_id,
)
from storage.retained import Part
from storage.session import Connection
from storage.values import ceil_ms, time_sql

SORTED_IDS = 250_000
"""Of a file whose ids do not rise with time, the lines of so many ids are held in memory at once: 25 MB."""
_MICROSECOND = timedelta(microseconds=1)
_EIGHTH = Decimal("1E-8")
_CUT = Context(100, ROUND_DOWN)


def stored_lines(connection: Connection, symbol: str, start: datetime, end: datetime, layout: str) -> Iterator[Chunk]:
    """As lines() of storage/lines.py, of trades in the table and in files. Raises FileError, and what lines() does."""
    start, end = ceil_ms(start), ceil_ms(end)
    while start < end:
        # Looked up again and again: a day may leave the table while this goes on, and later than this takes to begin.
        part = past.parts(connection, symbol, start, min(end, bars.floor(start, DAY) + timedelta(seconds=DAY)))[0]
        if part.retained:
            yield from _of_file(connection, part, layout)
            start = part.end
        else:
            until = min(part.end, bars.floor(start, HOUR) + timedelta(seconds=HOUR))
            yield from lines(connection, symbol, start, until, layout)
            start = until


def stored_lines_by_id(
    connection: Connection, symbol: str, start: datetime, end: datetime, layout: str
) -> Iterator[Chunk]:
    """As lines_by_id(), of a time in one UTC day."""
    (part,) = past.parts(connection, symbol, ceil_ms(start), ceil_ms(end)) or [Part(start, end, None)]
    if not part.retained:
        yield from lines_by_id(connection, symbol, start, end, layout)
        return
    day = part.retained
    for first in range(day.first_trade_id, day.last_trade_id + 1, SORTED_IDS):
        ids = range(first, first + SORTED_IDS)
        found = [trade for trade in past.trades(connection, part) if trade.trade_id in ids]
        yield from _chunks(sorted(found, key=attrgetter("trade_id", "timestamp")), layout)


def _of_file(connection: Connection, part: Part, layout: str) -> Iterator[Chunk]:
    if layout == CANONICAL:
        return past.canonical(connection, part)
    return _chunks(past.trades(connection, part), layout)


def _chunks(trades: Iterable[Trade], layout: str) -> Iterator[Chunk]:
    line_of, rest = _LINES[layout], iter(trades)
    while some := list(islice(rest, CHUNK_ROWS)):
        yield Chunk("".join(map(line_of, some)).encode(), len(some), some[0].trade_id, some[-1].trade_id)


# ---- A line of each layout (storage/lines.py), with its line feed.


def _plain(trade: Trade) -> str:
    flag = "true" if trade.buyer_is_maker else "false"
    received = "" if trade.received_at is None else f"{time_sql(trade.received_at, 6)}Z"
    amounts = f"{trade.price:.8f},{trade.quantity:.8f}"
    # No other field has a space.
    line = f"{time_sql(trade.timestamp, 3)}Z,{trade.trade_id},{amounts},{flag},{received}\n"
    return line.replace(" ", "T")


def _binance(trade: Trade) -> str:
    unit = _MICROSECOND if trade.timestamp >= MICROSECONDS_FROM else MILLISECOND
    quote = EXACT.multiply(trade.price, trade.quantity).quantize(_EIGHTH, context=_CUT)
    flag = "True" if trade.buyer_is_maker else "False"
    amounts = f"{trade.price:.8f},{trade.quantity:.8f},{quote:.8f}"
    return f"{trade.trade_id},{amounts},{(trade.timestamp - EPOCH) // unit},{flag},True\n"


def _influx(trade: Trade, quote: str = "") -> str:
    amounts = f"price={quote}{trade.price:.8f}{quote},quantity={quote}{trade.quantity:.8f}{quote}"
    flag = "true" if trade.buyer_is_maker else "false"
    received = "" if trade.received_at is None else f",received_at={(trade.received_at - EPOCH) // _MICROSECOND}i"
    time = (trade.timestamp - EPOCH) // _MICROSECOND * 1_000 + trade.trade_id % 1_000_000
    return f"{amounts},buyer_is_maker={flag},trade_id={trade.trade_id}i{received} {time}\n"


def _canonical(trade: Trade) -> str:
    ms = (trade.timestamp - EPOCH) // MILLISECOND
    return f"{trade.trade_id},{trade.price:.8f},{trade.quantity:.8f},{ms},{trade.buyer_is_maker:d}\n"


_LINES: dict[str, Callable[[Trade], str]] = {
    PLAIN: _plain,
    BINANCE: _binance,
    INFLUX: _influx,
    INFLUX_TEXT: partial(_influx, quote='"'),
    CANONICAL: _canonical,
}
