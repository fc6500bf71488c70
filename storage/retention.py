"""Days leave `trades` for Parquet files and come back: what this asks of the database, step by step.

A day that is in a file (table `retained`) has no writers: insert_trades and load ask here, while they hold the row of
the symbol, as who records the day does. So nothing can be stored in a day between its count and its record, or later.
"""

import hashlib
import heapq
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta
from operator import lt
from pathlib import Path
from typing import Any, NamedTuple

from model import candles as bars
from model import ids
from model.gaps import GIVEN_UP, Gap
from model.times import EPOCH, MILLISECOND, midnight
from model.trade import Trade
from storage import day_files, retained
from storage.bars import WITHIN
from storage.errors import RetainedError, guard
from storage.gaps import gaps_in, open_gaps_among
from storage.lines import CANONICAL, line_sql
from storage.retained import COLUMNS, LEAVING, RESTORED, Retained, days_in_files
from storage.sealing import first_from, sealed_until
from storage.session import Connection, execute, run, select
from storage.transaction import roll_back, transaction
from storage.values import aware, insert_statements, marks, naive

DAY = timedelta(days=1)
PAGE_ROWS = 20_000
"""Read at once: about 2 MB."""
PIECE_ROWS = 5_000
"""Deleted or brought back by a transaction: a few hundredths of a second."""
HELD_ROWS = 100_000
"""Of a day whose ids do not rise with time, the lines of so many trades are in memory at once: 30 MB."""
_FIELDS = 5
_MS = 3
"""Of a canonical line: how many fields, and which is the time."""


# ---- For who stores trades, and holds the row of the symbol.


def not_in_files(
    connection: Connection, symbol: str, trades: list[Trade], sealed_until: datetime | None
) -> tuple[list[Trade], list[tuple[str, list[Trade]]]]:
    """`trades` of `symbol` without those of days that are in files; and of each such day those that are missing in its
    file, with words that say so."""
    # Only days whose bars are sealed leave the table, so this costs those nothing that store what is new.
    days = {one.timestamp.date() for one in trades if sealed_until is not None and one.timestamp < sealed_until}
    found = {one.day: one for one in days_in_files(connection, symbol, sorted(days))}
    if not found:
        return trades, []
    missing = []
    for day, one in found.items():
        if lost := _lost(connection, one, [trade for trade in trades if trade.timestamp.date() == day]):
            first, more = lost[0].trade_id, len(lost) - 1
            missing.append((_words(one, f"trade {first} and {more:,} more are" if more else f"trade {first} is"), lost))
    return [trade for trade in trades if trade.timestamp.date() not in found], missing


def _lost(connection: Connection, one: Retained, trades: list[Trade]) -> list[Trade]:
    """Those of `trades`, all of the day, that its file has not: beyond its ids, or in a gap."""
    first, last = one.first_trade_id, one.last_trade_id
    numbers = [trade.trade_id for trade in trades]
    gaps = open_gaps_among(connection, one.symbol, min(numbers), max(numbers))
    runs = [(gap.first_trade_id, gap.last_trade_id) for gap in gaps]
    return [trade for trade in trades if not first <= trade.trade_id <= last or ids.inside(runs, trade.trade_id)]


def refuse_in_files(connection: Connection, symbol: str, times: tuple[datetime, datetime]) -> None:
    """Raises RetainedError if a part of the time from one to the other is a day in a file."""
    length = (times[1].date() - times[0].date()).days + 1
    days = [times[0].date() + number * DAY for number in range(length)]
    for one in days_in_files(connection, symbol, days):
        raise RetainedError(_words(one, "trades are"))


def _words(one: Retained, what: str) -> str:
    return (
        f"{one.symbol} {one.day} is in a Parquet file, in which {what} missing: bring the day back first, by"
        f" `python -m tools.restore --symbol {one.symbol} --day {one.day}`"
    )


# ---- What a day has.


class Content(NamedTuple):
    """The trades of a day: how many, their ends, and the SHA-256 of their canonical lines by rising id."""

    trades: int
    first_trade_id: int
    last_trade_id: int
    first_timestamp: datetime
    last_timestamp: datetime
    sha256: str


def content_of_table(connection: Connection, symbol: str, day: date) -> Content | None:
    """What is stored of a day in `trades`, whether or not it is in a file; None: nothing."""
    return _content(lambda: _pages(connection, symbol, midnight(day), midnight(day) + DAY))


def content_of_file(path: Path, day: date) -> Content | None:
    """What the file of a day has; None: nothing. Raises FatalError."""
    return _content(lambda: (chunk.text for chunk in day_files.canonical(path, midnight(day), midnight(day) + DAY)))


@guard
def _page(connection: Connection, sql: str, values: Sequence[Any]) -> list[str]:
    return [line for (line,) in select(connection, sql, naive(values))]


def _pages(connection: Connection, symbol: str, start: datetime, end: datetime) -> Iterator[bytes]:
    """The canonical lines of [start, end), in the order of the key."""
    sql = f"SELECT {line_sql(CANONICAL, start)} FROM trades WHERE {WITHIN} AND (timestamp > %s OR trade_id >= %s)"
    sql += f" ORDER BY timestamp, trade_id LIMIT {PAGE_ROWS}"
    trade_id = 0
    while page := _page(connection, sql, (symbol, start, end, start, trade_id)):
        yield ("\n".join(page) + "\n").encode()
        last = page[-1].split(",")
        trade_id, start = int(last[0]) + 1, EPOCH + int(last[_MS]) * MILLISECOND


def _content(read: Callable[[], Iterator[bytes]]) -> Content | None:
    whole, trades = hashlib.sha256(), 0
    low = high = last = 0
    stamps: list[int] = []
    rises = True
    for text in read():
        fields = text.replace(b"\n", b",").split(b",")
        ids = list(map(int, fields[:-1:_FIELDS]))
        rises = rises and last < ids[0] and all(map(lt, ids, ids[1:]))
        low, high, last = min(low or ids[0], *ids), max(high, *ids), ids[-1]
        stamps = [*stamps[:1], int(fields[_MS]), int(fields[-1 - _FIELDS + _MS])]
        trades += len(ids)
        whole.update(text)
    if not trades:
        return None
    times = EPOCH + stamps[0] * MILLISECOND, EPOCH + stamps[-1] * MILLISECOND
    return Content(trades, low, high, *times, whole.hexdigest() if rises else _by_id(read))


def _by_id(read: Callable[[], Iterator[bytes]]) -> str:
    """The hash of the lines by rising id, where time does not follow the ids."""
    try:
        return _hash_of(_put_in_order(map(_keyed, read())))
    except _TooFarError:
        return _hash_of(_smallest_first(lambda: map(_keyed, read())))


_Keyed = tuple[int, int, bytes]
"""The id and the time of a line, by which it is placed, and the line."""


def _keyed(text: bytes) -> list[_Keyed]:
    return [(int(line.partition(b",")[0]), int(line.split(b",")[_MS]), line) for line in text.splitlines(True)]


def _hash_of(parts: Iterator[list[_Keyed]]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(b"".join(line for _, _, line in part))
    return whole.hexdigest()


class _TooFarError(Exception):
    """A line has a lower id than one that came more than HELD_ROWS before."""


def _put_in_order(parts: Iterator[list[_Keyed]]) -> Iterator[list[_Keyed]]:
    """The lines by rising id, which are nearly so: HELD_ROWS are waited for. Raises _TooFarError if that is too few."""
    held: list[_Keyed] = []
    last: _Keyed = (0, 0, b"")
    for part in parts:
        held = sorted(held + part)
        if held[0] < last:
            raise _TooFarError
        ready, held = held[:-HELD_ROWS], held[-HELD_ROWS:]
        if ready:
            last = ready[-1]
            yield ready
    yield held


def _smallest_first(read: Callable[[], Iterator[list[_Keyed]]]) -> Iterator[list[_Keyed]]:
    """The lines by rising id, in whatever order they are: read again for each HELD_ROWS of them."""
    last: _Keyed = (0, 0, b"")
    while True:
        part = heapq.nsmallest(HELD_ROWS, (one for some in read() for one in some if one > last))
        yield part
        if len(part) < HELD_ROWS:
            return
        last = part[-1]


# ---- Leaving.


def stored_days(connection: Connection, symbol: str, before: date) -> Iterator[date]:
    """The days before `before` of which `trades` has rows, oldest first."""
    when = first_from(connection, symbol, None)
    while when is not None and when.date() < before:
        yield when.date()
        when = first_from(connection, symbol, midnight(when.date()) + DAY)


@guard
def recorded_days(connection: Connection, symbol: str | None = None) -> list[Retained]:
    """The rows of `retained`, of a symbol or of all, whatever their state; oldest first."""
    return _recorded(connection, *(("WHERE symbol = %s", symbol) if symbol else ("",)))


@guard
def recorded_between(connection: Connection, first: date, last: date) -> list[Retained]:
    """The same, of the days from `first` to `last`, of all symbols."""
    return _recorded(connection, "WHERE day >= %s AND day <= %s", first, last)


def _recorded(connection: Connection, where: str, *values: Any) -> list[Retained]:
    sql = f"SELECT {COLUMNS} FROM retained {where} ORDER BY day, symbol"
    return [Retained(*map(aware, row)) for row in select(connection, sql, values)]


@guard
def ends_in_files(connection: Connection) -> tuple[date, date] | None:
    """The first and the last day that is in a file, of any symbol; None: none is."""
    first, last = select(connection, f"SELECT MIN(day), MAX(day) FROM retained WHERE {retained.IN_FILES}")[0]
    return (first, last) if first is not None else None


@guard
def recorded_day(connection: Connection, symbol: str, day: date) -> Retained | None:
    """The row of `retained` of a symbol's day, whatever its state."""
    sql = f"SELECT {COLUMNS} FROM retained WHERE symbol = %s AND day = %s"
    rows = select(connection, sql, [symbol, day])
    return Retained(*map(aware, rows[0])) if rows else None


@guard
def leaving(connection: Connection) -> list[Retained]:
    """The days whose rows are still to go from `trades`, oldest first."""
    return _recorded(connection, "WHERE state = %s", LEAVING)


@guard
def is_sealed(connection: Connection, symbol: str, day: date) -> bool:
    """Whether all bars of the day are sealed."""
    until = sealed_until(connection, symbol)
    return until is not None and until >= midnight(day) + DAY


def fillable(connection: Connection, symbol: str, day: date) -> list[Gap]:
    """The gaps that reach into a day and are not given up, so that its trades may still come."""
    found = gaps_in(connection, symbol, midnight(day), midnight(day) + DAY)
    return [gap for gap in found if gap.reason not in GIVEN_UP]


@guard
def counted(connection: Connection, symbol: str, day: date) -> list[int]:
    """How many trades the day's minutes, its hours and its day bar count."""
    sql = f"SELECT SUM(trades) FROM candles WHERE resolution IN ({marks(bars.RESOLUTIONS)}) AND {WITHIN}"
    values = [*bars.RESOLUTIONS, symbol, midnight(day), midnight(day) + DAY]
    return [int(trades) for (trades,) in select(connection, f"{sql} GROUP BY resolution", naive(values))]


def are_counted(found: Sequence[int], trades: int) -> bool:
    """Whether all bars of a day, as counted() has found them, count so many trades."""
    return list(found) == [trades] * len(bars.RESOLUTIONS)


@guard
def record(connection: Connection, one: Retained, put: Callable[[], None]) -> bool:
    """Makes the file the day, which `put` gives its name; False: trades of it were stored since they were counted, or
    may be."""
    with transaction(connection, [one.symbol]):
        # The row of the symbol is held, so no writer is between this and the record.
        if (
            not is_sealed(connection, one.symbol, one.day)
            or fillable(connection, one.symbol, one.day)
            or not are_counted(counted(connection, one.symbol, one.day), one.trades)
        ):
            return False
        # So late that a day that stays leaves no file behind, which the next run would not know.
        put()
        run(
            connection,
            "DELETE FROM retained WHERE symbol = %s AND day = %s AND state = %s",
            [one.symbol, one.day, RESTORED],
        )
        run(connection, f"INSERT INTO retained ({COLUMNS}) VALUES ({marks(one)})", naive(one))
    return True


def wait_s() -> float:
    """How long after its record the rows of a day stay in `trades`: nobody looks for them there any more then.

    Who asks learns of the record within KNOWN_S_MAX. Who learned of the days just before it, and asks in a snapshot
    that began by then, sees the rows there, however late they are read. The other half is for the time between asking
    which days are in files and reading the rows, of who reads without a snapshot.
    """
    return 2 * retained.KNOWN_S_MAX


@guard
def delete_piece(connection: Connection, one: Retained, start: datetime) -> datetime | None:
    """Deletes the oldest rows from `start` on of a day that is in its file: from when on the next ones are, None: those
    were all. None of a day that somebody restores meanwhile."""
    look = "SELECT state FROM retained WHERE symbol = %s AND day = %s FOR UPDATE"
    try:
        execute(connection, "BEGIN")
        after: datetime | None = None
        if select(connection, look, [one.symbol, one.day]) == [(LEAVING,)]:
            after = _end_of_piece(connection, one, start)
            values = naive([one.symbol, start, after or one.end])
            run(connection, f"DELETE FROM trades WHERE {WITHIN}", values)
        execute(connection, "COMMIT")
    except BaseException:
        roll_back(connection)
        raise
    return after


def _end_of_piece(connection: Connection, one: Retained, start: datetime) -> datetime | None:
    """Up to when PIECE_ROWS are from `start` on, at least those of a millisecond; None: there are not so many."""
    sql = f"SELECT timestamp FROM trades WHERE {WITHIN} ORDER BY symbol, timestamp, trade_id LIMIT {PIECE_ROWS}, 1"
    rows = select(connection, sql, naive([one.symbol, start, one.end]))
    return max(aware(rows[0][0]), start + MILLISECOND) if rows else None


# ---- Coming back.


@guard
def insert_piece(connection: Connection, trades: Sequence[Trade]) -> None:
    """Brings rows back; those that are there stay as they are. Nobody else stores trades of the day, nor reads them."""
    for statement in insert_statements(trades, connection.manners.bytes_max):
        execute(connection, statement)


@guard
def change_state(connection: Connection, one: Retained, states: Sequence[str], state: str) -> bool:
    """Gives a day that is in one of `states` another; whether it was in one of them."""
    sql = f"UPDATE retained SET state = %s WHERE symbol = %s AND day = %s AND state IN ({marks(states)})"
    with transaction(connection, [one.symbol]):
        return run(connection, sql, [state, one.symbol, one.day, *states]) > 0
