"""The stored trades of a time as canonical lines (model/proof.py), a block of ids at a time; the bars that are wrong.

What audit.py reads. Rows are streamed, so memory holds a block (3 MB), whatever the size of a day.
"""

from collections import deque
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from operator import lt
from typing import NamedTuple

from model import candles as bars
from model.candles import DAY, FINER, HOUR, MINUTE, Candle
from model.ids import Run
from model.proof import BLOCK_IDS, block_of
from model.times import MILLISECOND
from storage import bars as sql_of
from storage import pages, past
from storage.bars import COLUMNS, WITHIN, candle_of
from storage.errors import guard
from storage.gaps import DISORDER
from storage.lines import CANONICAL, Chunk, lines, lines_by_id
from storage.past import LATEST
from storage.retained import Part
from storage.session import Connection, select
from storage.stored_lines import stored_lines, stored_lines_by_id
from storage.trades import price_as_of
from storage.transaction import in_snapshot
from storage.values import naive

_FIELDS = 5


class Block(NamedTuple):
    """The lines of the ids of a block that are stored, by rising id; `absent`: the runs of ids that are not, between
    the first and the last line of all blocks."""

    number: int
    lines: bytes
    absent: list[Run]


class OutOfOrderError(Exception):
    """Ids do not rise with time, or an id is stored twice."""


def blocks(connection: Connection, symbol: str, start: datetime, end: datetime, by_id: bool = False) -> Iterator[Block]:
    """The trades of `symbol` in [start, end) that are in the table, a block at a time.

    Raises OutOfOrderError if ids do not rise in the order of the table's key: ask again with `by_id`, by which an id
    that is stored twice has two lines. Raises the exceptions of storage/errors.py.
    """
    read = lines_by_id if by_id else lines
    return _blocks(symbol, read(connection, symbol, start, end, CANONICAL), by_id)


def stored_blocks(
    connection: Connection, symbol: str, start: datetime, end: datetime, by_id: bool = False
) -> Iterator[Block]:
    """As blocks(), of a UTC day whose trades are in the table or in a file. Raises FileError too."""
    read = stored_lines_by_id if by_id else stored_lines
    return _blocks(symbol, read(connection, symbol, start, end, CANONICAL), by_id)


def _blocks(symbol: str, chunks: Iterator[Chunk], by_id: bool) -> Iterator[Block]:
    last, number = 0, -1
    parts, absent = list[bytes](), list[Run]()
    for chunk in chunks:
        ids = list(map(int, chunk.text.replace(b"\n", b",").split(b",")[:-1:_FIELDS]))
        if not by_id and not (last < ids[0] and (_are_consecutive(ids) or all(map(lt, ids, ids[1:])))):
            # What still arrives is read, since the connection would be closed otherwise.
            deque(chunks, 0)
            raise OutOfOrderError(f"ids of {symbol} from {ids[0]} on do not rise with time")
        done = 0
        while done < len(ids):
            if block_of(ids[done]) != number and parts:
                yield Block(number, b"".join(parts), absent)
                parts, absent = [], []
            number = block_of(ids[done])
            end_of = _first_at(ids, done, (number + 1) * BLOCK_IDS)
            absent += _absent([last, *ids[done:end_of]] if last else ids[done:end_of])
            parts.append(_part(chunk, done, end_of))
            last = ids[end_of - 1]
            done = end_of
    if parts:
        yield Block(number, b"".join(parts), absent)


def _are_consecutive(ids: list[int]) -> bool:
    return ids == list(range(ids[0], ids[0] + len(ids)))


def _first_at(ids: list[int], start: int, bound: int) -> int:
    """The place of the first id behind place `start` that is `bound` or more."""
    if ids[-1] < bound:
        return len(ids)
    return next(place for place in range(start, len(ids)) if ids[place] >= bound)


def _absent(ids: list[int]) -> list[Run]:
    # The number alone would not do: an id that is stored twice may stand for one that is absent.
    if _are_consecutive(ids):
        return []
    return [(below + 1, above - 1) for below, above in pairwise(ids) if above > below + 1]


def _part(chunk: Chunk, start: int, end: int) -> bytes:
    return chunk.text if (start, end) == (0, chunk.rows) else b"".join(chunk.text.splitlines(True)[start:end])


def wrong_bars(connection: Connection, symbol: str, start: datetime, end: datetime) -> list[Candle]:
    """The sealed bars in [start, end), whole minutes, that are not what their trades, or finer bars, make; also those
    that are not there, and those that should not be."""
    wrong: list[Candle] = []
    for resolution in (MINUTE, HOUR, DAY):
        low, high = bars.ceil(start, resolution), bars.floor(end, resolution)
        if low < high:
            wrong += _wrong(connection, symbol, resolution, (low, high))
    return wrong


@in_snapshot
def _wrong(connection: Connection, symbol: str, resolution: int, span: tuple[datetime, datetime]) -> list[Candle]:
    """At one moment, since a trade that comes late changes its bars too."""
    sql = sql_of.query(resolution, [(FINER[resolution], WITHIN)])
    made: list[Candle] = []
    for part in [Part(*span, None)] if FINER[resolution] else past.parts(connection, symbol, *span):
        if part.retained:
            made += bars.in_order(past.trades(connection, part), resolution)
        else:
            made += map(candle_of, select(connection, sql, naive((symbol, part.start, part.end))))
    stored = _stored(connection, symbol, resolution, *span)
    return sorted(set(made) ^ set(stored), key=lambda bar: bar.timestamp)


def _stored(connection: Connection, symbol: str, resolution: int, start: datetime, end: datetime) -> list[Candle]:
    sql = f"SELECT {COLUMNS} FROM candles WHERE resolution = %s AND {WITHIN} ORDER BY timestamp"
    return [candle_of(row) for row in select(connection, sql, naive((resolution, symbol, start, end)))]


@guard
def ids_beside(connection: Connection, symbol: str, start: datetime, end: datetime) -> tuple[int | None, int | None]:
    """The id of the last stored trade before `start`, and of the first at or after `end`; None: there is none."""
    before = price_as_of(connection, symbol, start - MILLISECOND)
    after = pages.page(connection, symbol, None, (end, LATEST), 1)
    return (before.trade_id if before else None), (after[0].trade_id if after else None)


@guard
def ids_around(connection: Connection, symbol: str, start: datetime, end: datetime, ids: Run) -> list[int]:
    """Those of `ids` that are stored right before `start` or right after `end`: where time runs back at midnight, ids
    of one day lie between those of the other."""
    found: list[int] = []
    for span in ((start - DISORDER, start), (end, end + DISORDER)):
        for part in past.parts(connection, symbol, *span):
            found += _ids(connection, symbol, part, ids)
    return sorted(found)


def _ids(connection: Connection, symbol: str, part: Part, ids: Run) -> Iterator[int]:
    """Those of `ids` that are stored in a part of time."""
    if part.retained:
        return (one.trade_id for one in past.trades(connection, part) if ids[0] <= one.trade_id <= ids[1])
    sql = f"SELECT trade_id FROM trades WHERE {WITHIN} AND trade_id >= %s AND trade_id <= %s"
    return (trade_id for (trade_id,) in select(connection, sql, naive((symbol, part.start, part.end, *ids))))


@in_snapshot
def surplus(connection: Connection, symbol: str, start: datetime, end: datetime, ids: Run) -> int:
    """How many of `ids` are stored around [start, end), and how many in open gaps, less how many they are: 0 if each is
    one or the other, whatever is stored or filled meanwhile."""
    low, high = ids
    sql = f"SELECT COUNT(DISTINCT trade_id) FROM trades WHERE {WITHIN} AND trade_id >= %s AND trade_id <= %s"
    times = start - DISORDER, end + DISORDER
    parts = past.parts(connection, symbol, *times)
    if any(part.retained for part in parts):
        stored = len({one for part in parts for one in _ids(connection, symbol, part, ids)})
    else:
        stored = int(select(connection, sql, naive((symbol, *times, low, high)))[0][0])
    gaps = "SELECT first_trade_id, last_trade_id FROM gaps WHERE symbol = %s AND filled_at IS NULL"
    gaps += " AND first_trade_id <= %s AND last_trade_id >= %s"
    listed = select(connection, gaps, (symbol, high, low))
    missing = sum(min(high, last) - max(low, first) + 1 for first, last in listed)
    return int(stored + missing - (high - low + 1))
