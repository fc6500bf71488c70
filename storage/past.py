"""Reading trades across days that are in Parquet files and days that are in the table (storage/retained.py).

Who asks for trades of a time asks for each of its parts(): one in the table by SQL, one in a file by reading it. A
database without such days pays for it with one small statement every few seconds.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from model.gaps import Span
from model.times import MILLISECOND
from model.trade import Trade
from storage import day_files, retained
from storage.errors import FatalError, FileError, guard
from storage.lines import Chunk
from storage.retained import COLUMNS, DAY, IN_FILES, RESTORED, Part, Retained
from storage.session import Connection, select
from storage.values import aware, marks

T = TypeVar("T")
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
"""Every stored time is between the two, which DATETIME and Python can hold with room to spare."""
WINDOW = timedelta(days=31)
LONGER = 4
"""What is looked for backwards is looked for in such a window first, then in one so many times as long."""
ID_MAX = 2**64 - 1
"""The largest BIGINT UNSIGNED."""
STEP_MIN = timedelta(seconds=1)
REMEMBERED = 4_096
"""Days whose last trade a process remembers: a file of a day never changes."""

OfPart = Callable[[Part, int], list[Trade]]
"""At most so many trades of a part."""


def files_until(connection: Connection) -> Mapping[str, datetime]:
    """The end of the last day that is in a file, of each symbol that has any."""
    with _unseen(connection):
        retained.retained_until(connection, "")
    return connection.retained[1] if connection.retained else {}


@guard
def parts(connection: Connection, symbol: str, start: datetime, end: datetime) -> list[Part]:
    """[start, end) in parts, oldest first."""
    with _unseen(connection):
        return list(retained.parts_of(connection, symbol, start, end))


def parts_back(connection: Connection, symbol: str, start: datetime, end: datetime) -> Iterator[Part]:
    """The same, newest first; looked up bit by bit, for who mostly needs only the first."""
    until, window = files_until(connection).get(symbol, start), WINDOW
    if until < end:
        yield Part(max(start, until), end, None)
    end = min(end, until)
    while start < end:
        begin = max(start, end - window)
        yield from reversed(parts(connection, symbol, begin, end))
        end, window = begin, window * LONGER


@guard
def newest_days(connection: Connection) -> dict[str, Retained]:
    """The last day of each symbol that is in a file: one statement, and none if there are no files."""
    return _days_at_end(connection, "MAX")


@guard
def file_spans(connection: Connection) -> dict[str, tuple[datetime, datetime]]:
    """The times of the first and the last trade in files, of each symbol that has any: two statements, and none."""
    first, last = _days_at_end(connection, "MIN"), _days_at_end(connection, "MAX")
    return {symbol: (first[symbol].first_timestamp, last[symbol].last_timestamp) for symbol in first if symbol in last}


def _days_at_end(connection: Connection, end: str) -> dict[str, Retained]:
    """The first day (MIN) or the last (MAX) in files of each symbol that has any."""
    if not files_until(connection):
        return {}
    # Whatever their state, because then both families go from symbol to symbol by the key: this is asked all the time.
    ends = f"(SELECT symbol AS name, {end}(day) AS last FROM retained {{}} GROUP BY symbol) AS ends"
    sql = f"SELECT {COLUMNS} FROM {ends} STRAIGHT_JOIN retained ON symbol = name AND day = last"
    with _unseen(connection):
        rows = select(connection, sql.format(""))
        found = {row[0]: Retained(*map(aware, row)) for row in rows}
        if restored := [one.symbol for one in found.values() if one.state == RESTORED]:
            where = f"WHERE symbol IN ({marks(restored)}) AND {IN_FILES}"
            rows = select(connection, sql.format(where), restored)
            found = {symbol: one for symbol, one in found.items() if one.state != RESTORED}
            found |= {row[0]: Retained(*map(aware, row)) for row in rows}
    return found


@guard
def days_around(connection: Connection, symbol: str, trade_id: int) -> list[Retained]:
    """The days in files whose ids begin at or below `trade_id`: the last two, since at midnight ids may run back."""
    if symbol not in files_until(connection):
        return []
    sql = f"SELECT {COLUMNS} FROM retained WHERE symbol = %s AND {IN_FILES} AND first_trade_id <= %s"
    with _unseen(connection):
        rows = select(connection, f"{sql} ORDER BY first_trade_id DESC LIMIT 2", (symbol, trade_id))
    return [Retained(*map(aware, row)) for row in rows]


def span_in_files(connection: Connection, symbol: str) -> Span | None:
    """The lowest id in files and the time of the first trade, the highest id and the time of the last; None: there is
    no file."""
    with _unseen(connection):
        first, last = retained.first_in_files(connection, symbol), retained.last_in_files(connection, symbol)
    return Span(first, last) if first and last else None


@contextmanager
def _unseen(connection: Connection) -> Iterator[None]:
    """A block whose statements are not among those that an answer shows: where trades are is no part of it."""
    asked, connection.asked = connection.asked, None
    try:
        yield
    finally:
        connection.asked = asked


# ---- A part that is in a file.


def trades(connection: Connection, part: Part) -> Iterator[Trade]:
    """The trades of a part that is in a file, in the order of the table's key, read as they are asked for. Raises
    FileError."""
    _show(connection, part)
    return _read(connection, part, retained.trades_of(connection, part))


def canonical(connection: Connection, part: Part) -> Iterator[Chunk]:
    """The same as canonical lines (storage/lines.py)."""
    return _read(connection, part, day_files.canonical(path_of(connection, part), part.start, part.end))


def path_of(connection: Connection, part: Part) -> Path:
    """The file that a part is in."""
    assert part.retained is not None
    return connection.files / part.retained.path


def _show(connection: Connection, part: Part) -> None:
    """Among the statements of an answer, a remark says from where else it came."""
    if connection.asked is not None and part.retained is not None:
        day = f"{part.retained.symbol} of {part.retained.day}"
        connection.asked.append(f"-- the trades of {day} are in {path_of(connection, part)}")


def _read(connection: Connection, part: Part, rows: Iterator[T]) -> Iterator[T]:
    try:
        yield from rows
    except FatalError as error:
        words = str(error)
        path = str(path_of(connection, part))
        raise FileError(words if path in words else f"{_where(connection, part)}: {words}") from error


def _where(connection: Connection, part: Part) -> str:
    assert part.retained is not None
    return f"the trades of {part.retained.symbol} of {part.retained.day} are in {path_of(connection, part)}"


def first_of_file(connection: Connection, part: Part, size: int) -> list[Trade]:
    """The first `size` trades of a part that is in a file."""
    return list(islice(trades(connection, part), size))


def last_of_file(connection: Connection, part: Part, size: int, id_max: int = ID_MAX) -> list[Trade]:
    """The last `size` trades of a part that is in a file, newest first, of those with ids up to `id_max`. It is read
    from its end, in steps as long as so many trades take, and then longer ones."""
    day = part.retained
    assert day is not None
    end = min(part.end, day.last_timestamp + MILLISECOND)
    step = max(STEP_MIN, 2 * DAY * size // max(1, day.trades))
    found: list[Trade] = []
    while part.start < end and len(found) < size:
        begin = max(part.start, end - step)
        rows = trades(connection, part._replace(start=begin, end=end))
        found += reversed(deque((trade for trade in rows if trade.trade_id <= id_max), size - len(found)))
        end, step = begin, step * LONGER
    return found


_last_trades: dict[tuple[Path, str], Trade | None] = {}


def last_of_day(connection: Connection, day: Retained) -> Trade | None:
    """The last trade of a day that is in a file."""
    key = connection.files / day.path, day.file_sha256
    if key not in _last_trades:
        if len(_last_trades) >= REMEMBERED:
            _last_trades.clear()
        _last_trades[key] = next(iter(last_of_file(connection, Part(day.start, day.end, day), 1)), None)
    return _last_trades[key]


# ---- Trades of a time, wherever they are.


def first(connection: Connection, span: tuple[str, datetime, datetime], size: int, of_table: OfPart) -> list[Trade]:
    """The first `size` trades of symbol, start, end; `of_table` asks for those of a part in the table."""
    return _gathered(parts(connection, *span), size, partial(first_of_file, connection), of_table)


def last(connection: Connection, span: tuple[str, datetime, datetime], size: int, of_table: OfPart) -> list[Trade]:
    """The last `size` trades of symbol, start, end, newest first."""
    return _gathered(parts_back(connection, *span), size, partial(last_of_file, connection), of_table)


def _gathered(found_in: Iterable[Part], size: int, of_file: OfPart, of_table: OfPart) -> list[Trade]:
    found: list[Trade] = []
    for part in found_in:
        left = size - len(found)
        found += of_file(part, left) if part.retained else of_table(part, left)
        if len(found) >= size:
            break
    return found
