"""The days whose trades are in Parquet files (the table `retained`), and of a range of time which part is where.

Who reads trades asks parts_of() first: what lies in a day that is in a file is read from there (storage/day_files.py),
even while its rows are still in `trades`, or are again. Nobody stores trades in such a day.
"""

import time
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import mysql.connector
from mysql.connector import errorcode

from model.gaps import Point
from model.times import midnight
from model.trade import Trade
from storage import day_files
from storage.errors import guard
from storage.session import Connection, select
from storage.values import aware, marks, naive

LEAVING, GONE, RETURNING, RESTORED = "leaving", "gone", "returning", "restored"
"""See schema.sql."""
KNOWN_S_MAX = 5.0
"""So long a connection trusts what it knows of which symbols have days in files. Rows leave `trades` later than that
after their day was recorded, so that nobody looks for them there (storage/retention.py)."""
DAY = timedelta(days=1)


class Retained(NamedTuple):
    """A row of `retained`."""

    symbol: str
    day: date
    state: str
    first_trade_id: int
    last_trade_id: int
    first_timestamp: datetime
    last_timestamp: datetime
    trades: int
    sha256: str
    path: str
    file_sha256: str
    retained_at: datetime

    @property
    def start(self) -> datetime:
        """The start of the day."""
        return midnight(self.day)

    @property
    def end(self) -> datetime:
        """The end of the day."""
        return midnight(self.day) + DAY


class Part(NamedTuple):
    """A part of a range of time, [start, end): in the file of `retained`, or in `trades` (None)."""

    start: datetime
    end: datetime
    retained: Retained | None


COLUMNS = ", ".join(Retained._fields)
IN_FILES = f"state <> '{RESTORED}'"
# Whatever their state, because then both families go from symbol to symbol by the key.
_ENDS = "SELECT symbol, MAX(day) FROM retained GROUP BY symbol"
FIRST_SQL = (
    f"(SELECT first_timestamp FROM retained WHERE retained.symbol = gaps.symbol AND {IN_FILES}"
    " ORDER BY retained.symbol, retained.day LIMIT 1)"
)
LAST_SQL = (
    f"(SELECT last_timestamp FROM retained WHERE retained.symbol = gaps.symbol AND {IN_FILES}"
    " ORDER BY retained.symbol DESC, retained.day DESC LIMIT 1)"
)
"""The times of the first and of the last trade in files of the symbol of a row of `gaps`; NULL: there is no file."""


def retained_until(connection: Connection, symbol: str) -> datetime | None:
    """The end of the last day of `symbol` that was moved to a file, even if it was restored since; None: none was. As
    it was at most KNOWN_S_MAX ago."""
    return _known(connection).get(symbol)


@guard
def has_files(connection: Connection) -> bool:
    """Whether days of any symbol were moved to files. As it was at most KNOWN_S_MAX ago."""
    return bool(_known(connection))


def _known(connection: Connection) -> dict[str, datetime]:
    # What a snapshot shows is as old as the snapshot.
    now = time.monotonic()
    if connection.retained is None or now - connection.retained[0] > KNOWN_S_MAX:
        rows = _select(connection, _ENDS, ())
        seen = connection.moment if connection.one_moment else now
        connection.retained = seen, {name: midnight(day) + DAY for name, day in rows}
    return connection.retained[1]


@guard
def retained_days(connection: Connection, symbol: str, start: datetime, end: datetime) -> list[Retained]:
    """The days of `symbol` that have a part in [start, end) and whose trades are in files, oldest first."""
    until = retained_until(connection, symbol)
    if until is None or start >= until:
        return []
    sql = f"SELECT {COLUMNS} FROM retained WHERE symbol = %s AND day >= %s AND day <= %s AND {IN_FILES} ORDER BY day"
    rows = _select(connection, sql, [symbol, start.date(), end.date()])
    return [one for one in map(_of, rows) if one.start < end]


@guard
def days_in_files(connection: Connection, symbol: str, days: Sequence[date]) -> list[Retained]:
    """Those of `days` of `symbol` that are in files now: for who holds the row of the symbol, so that it stays so."""
    if not days:
        return []
    sql = f"SELECT {COLUMNS} FROM retained WHERE symbol = %s AND day IN ({marks(days)}) AND {IN_FILES} ORDER BY day"
    return [_of(row) for row in select(connection, sql, [symbol, *days])]


def parts_of(connection: Connection, symbol: str, start: datetime, end: datetime) -> Iterator[Part]:
    """[start, end) in parts, oldest first: nearly always one, in the table."""
    for one in retained_days(connection, symbol, start, end):
        if start < one.start:
            yield Part(start, one.start, None)
        yield Part(max(start, one.start), min(end, one.end), one)
        start = one.end
    if start < end:
        yield Part(start, end, None)


def trades_of(connection: Connection, part: Part) -> Iterator[Trade]:
    """The trades of a part that is in a file, in the order of the table's key. Raises FatalError."""
    assert part.retained is not None
    path = connection.files / part.retained.path
    return day_files.trades(path, part.retained.symbol, part.start, part.end)


@guard
def first_in_files(connection: Connection, symbol: str) -> Point | None:
    """The lowest id in files of `symbol`, and the time of the first trade of its day; None: there is no file."""
    return _end_in_files(connection, symbol, "first", "ASC")


@guard
def last_in_files(connection: Connection, symbol: str) -> Point | None:
    """The highest id in files of `symbol`, and the time of the last trade of its day; None: there is no file."""
    return _end_in_files(connection, symbol, "last", "DESC")


def nearest_in_files(connection: Connection, symbol: str, point: Point, below: bool) -> Point | None:
    """The end of a day in files whose id is next below, or above, that of `point`, which is in none of them; None:
    there is none. Where time runs back at midnight, ids of two days mix: then it is the id beside."""
    if retained_until(connection, symbol) is None:
        return None
    trade_id, when = point
    inside = f"SELECT 1 FROM retained WHERE symbol = %s AND {IN_FILES} AND first_trade_id < %s AND last_trade_id > %s"
    if _select(connection, f"{inside} LIMIT 1", [symbol, trade_id, trade_id]):
        return trade_id - 1 if below else trade_id + 1, when
    end, side, way = ("last", "<", "DESC") if below else ("first", ">", "ASC")
    sql = f"SELECT {end}_trade_id, {end}_timestamp FROM retained WHERE symbol = %s AND {IN_FILES}"
    sql += f" AND {end}_trade_id {side} %s ORDER BY {end}_trade_id {way} LIMIT 1"
    rows = _select(connection, sql, [symbol, trade_id])
    return (int(rows[0][0]), aware(rows[0][1])) if rows else None


def _end_in_files(connection: Connection, symbol: str, end: str, way: str) -> Point | None:
    if retained_until(connection, symbol) is None:
        return None
    sql = f"SELECT {end}_trade_id, {end}_timestamp FROM retained WHERE symbol = %s AND {IN_FILES}"
    # By the ids: where time runs back at midnight, the lowest is not of the first day.
    rows = _select(connection, f"{sql} ORDER BY {end}_trade_id {way} LIMIT 1", [symbol])
    return (int(rows[0][0]), aware(rows[0][1])) if rows else None


def _select(connection: Connection, sql: str, values: list[Any] | tuple[()]) -> list[Any]:
    """The rows; none of a database that is still of a version without the table."""
    try:
        return select(connection, sql, naive(values))
    except mysql.connector.ProgrammingError as error:
        if error.errno != errorcode.ER_NO_SUCH_TABLE:
            raise
        return []


def _of(row: tuple[Any, ...]) -> Retained:
    return Retained(*map(aware, row))
