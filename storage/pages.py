"""Trades in pages, for reading more of them than memory should hold, or for following them as they arrive.

A page continues after a place in the order of the key, (timestamp, trade_id), so its cost depends only on its rows, not
on where it starts. There is no index on trade_id alone: ids are found through candles, which know their first and last.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from heapq import nsmallest
from itertools import islice
from operator import attrgetter
from typing import NamedTuple

from model import candles as bars
from model.candles import Candle
from model.gaps import Span
from model.ids import Run
from model.times import MILLISECOND, floor_ms
from model.trade import Trade
from storage import past, ranges, trades
from storage.errors import guard
from storage.gaps import DISORDER, missing_in, open_gaps_among, read_span
from storage.past import ID_MAX
from storage.retained import Part, Retained
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
EARLIEST, LATEST = past.EARLIEST, past.LATEST
_TRADE = ", ".join(Trade._fields)
_trade_id = attrgetter("trade_id")


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
    """The first `size` trades of [start, end), or the first after `after`; in order of (timestamp, trade_id). Raises
    FileError."""
    start, end = _within(times)
    found: list[Trade] = []
    for part in past.parts(connection, symbol, max(start, after.timestamp) if after else start, end):
        left = size - len(found)
        behind = after if after is not None and after.timestamp >= part.start else None
        if part.retained:
            rows = past.trades(connection, part)
            found += islice((trade for trade in rows if behind is None or place_of(trade) > behind), left)
        else:
            found += _page_of_table(connection, symbol, behind, part, left)
        if len(found) >= size:
            break
    return found


def _page_of_table(connection: Connection, symbol: str, after: Place | None, part: Part, size: int) -> list[Trade]:
    if after is not None:
        # The row constructor (timestamp, trade_id) > (…) means the same, but neither engine uses the index for it.
        where, values = "timestamp >= %s AND (timestamp > %s OR trade_id > %s)", [after.timestamp, *after]
    else:
        where, values = "timestamp >= %s", [part.start]
    sql = f"SELECT {_TRADE} FROM trades WHERE symbol = %s AND {where} AND timestamp < %s"
    return _trades(connection, f"{sql} ORDER BY timestamp, trade_id LIMIT %s", (symbol, *values, part.end, size))


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
    """The last `size` trades, newest first. Raises FileError."""
    sql = f"SELECT {_TRADE} FROM trades WHERE symbol = %s ORDER BY timestamp DESC, trade_id DESC LIMIT %s"
    found = _trades(connection, sql, (symbol, size))
    until = past.files_until(connection).get(symbol)
    if until is None or (len(found) == size and found[-1].timestamp >= until):
        return found

    def of_table(part: Part, size: int) -> list[Trade]:
        return _last_of_table(connection, symbol, part, size)

    return past.last(connection, (symbol, EARLIEST, LATEST), size, of_table)


@guard
def newest_until(connection: Connection, symbol: str, place: Place, size: int) -> list[Trade]:
    """The last `size` trades up to `place`, by time and by id, newest first. Raises FileError."""
    found: list[Trade] = []
    for part in past.parts_back(connection, symbol, EARLIEST, place.timestamp + MILLISECOND):
        left = size - len(found)
        if part.retained:
            found += past.last_of_file(connection, part, left, place.trade_id)
        else:
            found += _last_of_table(connection, symbol, part, left, place.trade_id)
        if len(found) >= size:
            break
    return found


def _last_of_table(connection: Connection, symbol: str, part: Part, size: int, id_max: int = ID_MAX) -> list[Trade]:
    sql = f"SELECT {_TRADE} FROM trades WHERE symbol = %s AND timestamp >= %s AND timestamp < %s AND trade_id <= %s"
    values = (symbol, part.start, part.end, id_max, size)
    return _trades(connection, f"{sql} ORDER BY timestamp DESC, trade_id DESC LIMIT %s", values)


@in_snapshot
def newest_and_growing(connection: Connection, symbol: str, size: int) -> tuple[list[Trade], list[Candle]]:
    """The last `size` trades, newest first, and the candles that the newest is in, of the same moment: a trade that is
    stored later is in neither."""
    found = newest(connection, symbol, size)
    return found, ranges.growing(connection, symbol, found[0].timestamp) if found else []


@in_snapshot
def newer_and_growing(
    connection: Connection, symbol: str, place: Place, size: int
) -> tuple[list[Trade], list[Candle]] | None:
    """What `newer` finds of `symbol` and the candles that the newest trade is in, of the same moment. None: nothing is
    stored, or there may be more trades than that, so that the candles would be ahead of them."""
    found = newer(connection, {symbol: place}, size).get(symbol, [])
    last = newest(connection, symbol, 1)
    if not last or len(found) == size:
        return None
    return found, ranges.growing(connection, symbol, last[0].timestamp)


@guard
def newer(connection: Connection, places: Mapping[str, Place], size: int) -> dict[str, list[Trade]]:
    """Of each symbol at most `size` trades with a higher id than its place, which is a trade of the last seconds; those
    of none are left out. PARTS_MAX symbols are one statement.

    Unlike `page`, it finds a trade whose time is slightly before its predecessor's, which does happen.
    """
    part = f"(SELECT {_TRADE} FROM trades WHERE symbol = %s AND timestamp >= %s AND trade_id > %s"
    part += f" ORDER BY timestamp, trade_id LIMIT {size:d})"
    asked = [(symbol, place.timestamp - MARGIN, place.trade_id) for symbol, place in places.items()]
    until = past.files_until(connection)
    in_table = [one for one in asked if one[0] not in until or one[1] >= until[one[0]]]
    found: dict[str, list[Trade]] = {}
    for trade in trades.united(connection, part, in_table):
        found.setdefault(trade.symbol, []).append(trade)
    # Of a symbol of which nothing newer is stored than what is in files.
    for symbol, start, trade_id in asked if len(in_table) < len(asked) else []:
        if (symbol, start, trade_id) not in in_table and (more := _above(connection, symbol, start, trade_id, size)):
            found[symbol] = more
    return found


def _above(connection: Connection, symbol: str, start: datetime, trade_id: int, size: int) -> list[Trade]:
    """The first `size` trades from `start` on with a higher id."""
    found: list[Trade] = []
    for part in past.parts(connection, symbol, max(start, EARLIEST), LATEST):
        if part.retained:
            found += islice((one for one in past.trades(connection, part) if one.trade_id > trade_id), size)
        else:
            sql = f"SELECT {_TRADE} FROM trades WHERE symbol = %s AND timestamp >= %s AND timestamp < %s"
            sql += " AND trade_id > %s ORDER BY timestamp, trade_id LIMIT %s"
            found += _trades(connection, sql, (symbol, part.start, part.end, trade_id, size))
        if len(found) >= size:
            break
    return found[:size]


@guard
def find(connection: Connection, symbol: str, trade_id: int) -> Place | None:
    """The place of the trade with that id or, if it is not stored, with the next lower stored id; None if none is.
    Raises FileError."""
    found = _find_in_table(connection, symbol, trade_id)
    until = past.files_until(connection).get(symbol)
    if until is None or (found is not None and found.timestamp - DISORDER >= until):
        return found
    for day in past.days_around(connection, symbol, trade_id):
        if found is None or found.trade_id < min(trade_id, day.last_trade_id):
            found = max(_find_in_file(connection, day, trade_id), found or _NOWHERE, key=_id)
    return found


def _find_in_file(connection: Connection, day: Retained, trade_id: int) -> Place:
    """The place of the highest id up to `trade_id` of a day that has one: the minute is found by its candle."""
    sql = "SELECT timestamp FROM candles WHERE symbol = %s AND resolution = %s AND timestamp >= %s AND timestamp < %s"
    sql += " AND first_trade_id <= %s ORDER BY first_trade_id DESC LIMIT 1"
    rows = select(connection, sql, naive((day.symbol, bars.MINUTE, day.start, day.end, trade_id)))
    start, end = day.start, day.end
    if rows:
        minute = aware(rows[0][0])
        start, end = max(start, minute - DISORDER), min(end, minute + timedelta(seconds=bars.MINUTE) + DISORDER)
    places = map(place_of, past.trades(connection, Part(start, end, day)))
    return max((place for place in places if place.trade_id <= trade_id), key=_id, default=_NOWHERE)


_NOWHERE = Place(EARLIEST, -1)


def _id(place: Place) -> int:
    return place.trade_id


def _find_in_table(connection: Connection, symbol: str, trade_id: int) -> Place | None:
    """Ids rise with the times, so the time of the id is searched: by the rule of three, and every other time by
    halves."""
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
    """At most `size` of the trades with ids `first` to `last` (inclusive), lowest id first. Raises FileError."""
    low, high = find(connection, symbol, first), find(connection, symbol, last)
    if high is None:
        return []
    start = low.timestamp if low is not None else EARLIEST + DISORDER
    found: list[Trade] = []
    for part in past.parts(connection, symbol, start - DISORDER, high.timestamp + DISORDER + MILLISECOND):
        if part.retained:
            rows = (trade for trade in past.trades(connection, part) if first <= trade.trade_id <= last)
            found += nsmallest(size, rows, key=_trade_id)
        else:
            sql = f"SELECT {_TRADE} FROM trades WHERE symbol = %s AND timestamp >= %s AND timestamp < %s"
            values = (symbol, part.start, part.end, first, last, size)
            sql += " AND trade_id >= %s AND trade_id <= %s ORDER BY trade_id LIMIT %s"
            found += _trades(connection, sql, values)
    return sorted(found, key=_trade_id)[:size]


class Numbered(NamedTuple):
    """Trades by rising id; `next_id`: the lowest stored id behind them that was asked for, None: there is none;
    `missing`: how many ids before that were asked for and are not stored."""

    trades: list[Trade]
    next_id: int | None
    missing: int


@in_snapshot
def by_id(connection: Connection, symbol: str, ids: Run, size: int) -> Numbered:
    """The stored trades with the first `size` or more of `ids`, from the lowest stored one on; in a time that does not
    grow with how many are missing before it."""
    span = read_span(connection, symbol)
    first, last = ids
    start = _stored_from(connection, symbol, span, ids)
    if start is None:
        return Numbered([], None, last - first + 1)
    until = min(last, start + size - 1)
    found = with_ids(connection, symbol, start, until, size)
    next_id = _stored_from(connection, symbol, span, (until + 1, last))
    end = last if next_id is None else next_id - 1
    return Numbered(found, next_id, end - first + 1 - len(found))


def _stored_from(connection: Connection, symbol: str, span: Span | None, ids: Run) -> int | None:
    """The lowest of `ids` that is stored; None: none of them is. What is not in a gap is stored, from end to end."""
    first, last = ids
    if span is None or first > min(last, span.last[0]):
        return None
    first = max(first, span.first[0])
    # One behind the other: a gap of which a part was given up has several rows.
    while first <= last and (gaps := open_gaps_among(connection, symbol, first, first)):
        first = gaps[-1].last_trade_id + 1
    return first if first <= last else None


@guard
def ends(connection: Connection, symbol: str) -> tuple[datetime, datetime] | None:
    """The times of the first and the last trade of `symbol`; None if it has no trades."""
    sql = "SELECT timestamp FROM trades WHERE symbol = %s ORDER BY timestamp {way} LIMIT 1"
    first = select(connection, sql.format(way="ASC"), (symbol,))
    last = select(connection, sql.format(way="DESC"), (symbol,))
    times = [aware(rows[0][0]) for rows in (first, last) if rows]
    times += [when for _, when in past.span_in_files(connection, symbol) or ()]
    return (min(times), max(times)) if times else None


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
