"""Trades in pages, for reading more of them than memory should hold, or for following them as they arrive.

A page continues after a place in the order of the key, (timestamp, trade_id), so its cost depends only on its rows, not
on where it starts. There is no index on trade_id alone: ids are found through candles, which know their first and last.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from model import candles as bars
from model.candles import Candle
from model.times import MILLISECOND, floor_ms
from model.trade import Trade
from storage import ranges
from storage.errors import guard
from storage.gaps import DISORDER, missing_in
from storage.session import Connection, select
from storage.transaction import in_snapshot
from storage.values import aware, ceil_ms, naive, trade_of

PAGE_TRADES = 5_000
"""About 2 MB of Python objects."""
NEAR_IDS = 2_000
"""So close to an id, the trades in between are read."""
LOOK_BACK_FACTOR = 4
MARGIN = timedelta(seconds=1)
"""The exchange's timestamps rise with the ids, except for deviations below this."""
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
"""Every stored time is between the two, which DATETIME and Python can hold with room to spare."""

_TRADE = ", ".join(Trade._fields)


class Place(NamedTuple):
    """The position of a trade in the order of its symbol's trades."""

    timestamp: datetime
    trade_id: int


def place_of(trade: Trade) -> Place:
    """The place of `trade`."""
    return Place(trade.timestamp, trade.trade_id)


@guard
def page(
    connection: Connection, symbol: str, after: Place | None, times: tuple[datetime, datetime], size: int
) -> list[Trade]:
    """The first `size` trades of [start, end), or the first after `after`; in order of (timestamp, trade_id)."""
    start, end = _within(times)
    if after is not None and after.timestamp >= start:
        # The row constructor (timestamp, trade_id) > (…) means the same, but neither engine uses the index for it.
        where, values = "timestamp >= %s AND (timestamp > %s OR trade_id > %s)", [after.timestamp, *after]
    else:
        where, values = "timestamp >= %s", [start]
    sql = f"SELECT {_TRADE} FROM trades WHERE symbol = %s AND {where} AND timestamp < %s"
    return _trades(connection, f"{sql} ORDER BY timestamp, trade_id LIMIT %s", (symbol, *values, end, size))


@in_snapshot
def page_and_missing(
    connection: Connection, symbol: str, times: tuple[datetime, datetime], after_id: int | None, size: int
) -> tuple[list[Trade], bool, int]:
    """The first `size` trades of [start, end), or the first after the one with id `after_id`; whether there are more;
    and how many ids are missing from the place before the first of them to the last, or to `end`."""
    after = None if after_id is None else find(connection, symbol, after_id)
    found = page(connection, symbol, after, times, size + 1)
    more, found = len(found) > size, found[:size]
    start, end = _within(times)
    begin = max(start, after.timestamp) if after else start
    until = found[-1].timestamp + MILLISECOND if more else end
    if begin >= until:
        return found, more, 0
    return found, more, missing_in(connection, symbol, begin, until, after.trade_id if after else None)


@in_snapshot
def newest_and_missing(connection: Connection, symbol: str, size: int) -> tuple[list[Trade], int]:
    """The last `size` trades, newest first, and how many ids are missing from the first of them to the last."""
    found = newest(connection, symbol, size)
    if not found:
        return found, 0
    times = [trade.timestamp for trade in found]
    return found, missing_in(connection, symbol, min(times), max(times) + MILLISECOND)


@guard
def newest(connection: Connection, symbol: str, size: int) -> list[Trade]:
    """The last `size` trades, newest first."""
    sql = f"SELECT {_TRADE} FROM trades WHERE symbol = %s ORDER BY timestamp DESC, trade_id DESC LIMIT %s"
    return _trades(connection, sql, (symbol, size))


@in_snapshot
def newest_and_growing(connection: Connection, symbol: str, size: int) -> tuple[list[Trade], list[Candle]]:
    """The last `size` trades, newest first, and the candles that the newest is in, of the same moment: a trade that is
    stored later is in neither."""
    found = newest(connection, symbol, size)
    return found, ranges.growing(connection, symbol, found[0].timestamp) if found else []


@guard
def newer(connection: Connection, symbol: str, place: Place, size: int) -> list[Trade]:
    """At most `size` trades with a higher id than `place`, which is a trade of the last seconds; in order of time.

    Unlike `page`, it finds a trade whose time is slightly before its predecessor's, which does happen.
    """
    sql = f"SELECT {_TRADE} FROM trades WHERE symbol = %s AND timestamp >= %s AND trade_id > %s"
    values = (symbol, place.timestamp - MARGIN, place.trade_id, size)
    return _trades(connection, f"{sql} ORDER BY timestamp, trade_id LIMIT %s", values)


@guard
def find(connection: Connection, symbol: str, trade_id: int) -> Place | None:
    """The place of the trade with that id or, if it is not stored, with the next lower stored id; None if none is.

    Ids rise with the times, so the time of the id is searched: by the rule of three, and every other time by halves.
    """
    end = "SELECT timestamp, trade_id FROM trades WHERE symbol = %s ORDER BY timestamp {way}, trade_id {way} LIMIT 1"
    rows = [row for way in ("ASC", "DESC") for row in select(connection, end.format(way=way), (symbol,))]
    if not rows:
        return None
    low, high = (Place(aware(when), number) for when, number in rows)
    if not low.trade_id <= trade_id < high.trade_id:
        low = high = low if trade_id < low.trade_id else high
    probe = "SELECT timestamp, trade_id FROM trades WHERE symbol = %s AND timestamp >= %s AND timestamp < %s"
    probe += " ORDER BY timestamp, trade_id LIMIT 1"
    halve = False
    while high.trade_id - low.trade_id > NEAR_IDS and high.timestamp - low.timestamp > MARGIN:
        part = 0.5 if halve else (trade_id - low.trade_id) / (high.trade_id - low.trade_id)
        middle = floor_ms(low.timestamp + (high.timestamp - low.timestamp) * min(max(part, 0.01), 0.99))
        found = select(connection, probe, naive((symbol, middle, high.timestamp)))
        if found and found[0][1] <= trade_id:
            low = Place(aware(found[0][0]), found[0][1])
        else:
            high = Place(middle, found[0][1] if found else high.trade_id)
        halve = not halve
    rows = select(
        connection,
        "SELECT timestamp, trade_id FROM trades WHERE symbol = %s AND timestamp >= %s AND timestamp <= %s"
        " AND trade_id <= %s ORDER BY trade_id DESC LIMIT 1",
        naive((symbol, low.timestamp - MARGIN, high.timestamp + MARGIN, trade_id)),
    )
    return Place(aware(rows[0][0]), rows[0][1]) if rows else None


@guard
def with_ids(connection: Connection, symbol: str, first: int, last: int, size: int) -> list[Trade]:
    """At most `size` of the trades with ids `first` to `last` (inclusive), lowest id first."""
    low, high = find(connection, symbol, first), find(connection, symbol, last)
    if high is None:
        return []
    start = low.timestamp if low is not None else EARLIEST + DISORDER
    sql = f"SELECT {_TRADE} FROM trades WHERE symbol = %s AND timestamp >= %s AND timestamp <= %s"
    values = (symbol, start - DISORDER, high.timestamp + DISORDER, first, last, size)
    return _trades(connection, f"{sql} AND trade_id >= %s AND trade_id <= %s ORDER BY trade_id LIMIT %s", values)


@guard
def ends(connection: Connection, symbol: str) -> tuple[datetime, datetime] | None:
    """The times of the first and the last trade of `symbol`; None if it has no trades."""
    sql = "SELECT timestamp FROM trades WHERE symbol = %s ORDER BY timestamp {way} LIMIT 1"
    first = select(connection, sql.format(way="ASC"), (symbol,))
    last = select(connection, sql.format(way="DESC"), (symbol,))
    return (aware(first[0][0]), aware(last[0][0])) if first and last else None


@guard
def last_candles(connection: Connection, symbol: str, resolution: int, end: datetime, size: int) -> list[Candle]:
    """The last `size` candles of `resolution` seconds that begin before `end`, oldest first."""
    stored = ends(connection, symbol)
    if stored is None:
        return []
    end = min(bars.ceil(ceil_ms(end), resolution), bars.floor(stored[1], resolution) + timedelta(seconds=resolution))
    length = size * timedelta(seconds=resolution)
    while True:
        # Where nothing traded there is no candle, so it may take a longer look back.
        start = max(end - length, bars.floor(stored[0], resolution))
        found = ranges.candles(connection, symbol, resolution, start, end)
        if len(found) >= size or start <= stored[0]:
            return found[-size:]
        length *= LOOK_BACK_FACTOR


def _within(times: tuple[datetime, datetime]) -> tuple[datetime, datetime]:
    start, end = (ceil_ms(min(max(time, EARLIEST), LATEST)) for time in times)
    return start, end


def _trades(connection: Connection, sql: str, values: Sequence[object]) -> list[Trade]:
    return [trade_of(row) for row in select(connection, sql, naive(values))]
