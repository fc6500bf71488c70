"""Trades as they are stored: the newest, those of a second, the last one before a time."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import mysql.connector

from model.times import MILLISECOND, floor_ms
from model.trade import Trade
from storage import past
from storage.errors import guard
from storage.past import LATEST
from storage.retained import Part
from storage.session import Connection, select, select_texts
from storage.values import aware, naive, trade_of, trade_of_texts

_TRADE = ", ".join(Trade._fields)


FEW_SYMBOLS = 4
"""So many are found one by one, which reads next to nothing whatever the server thinks of the table."""
DIVE_S_MAX = 0.5
"""The server is given so long for a question about all symbols, which takes it a few milliseconds."""
EVERY_SYMBOL = 1_000_000
"""More than there are; the exchange has about 3,600."""
_TIME_IS_UP = (1969, 3024)  # MariaDB's number and MySQL's.
# Both families go from one symbol to the next by the index, if they know how many rows a symbol has. Just after a table
# was filled they do not, and would read every row of it: then the time is up, and the symbols are asked for one by one.
_DIVE = (
    f"/*M!100101 SET STATEMENT max_statement_time = {DIVE_S_MAX} FOR */"
    f" SELECT /*+ MAX_EXECUTION_TIME({DIVE_S_MAX * 1000:.0f}) */"
)
_SYMBOLS = f"{_DIVE} DISTINCT symbol FROM trades FORCE INDEX (PRIMARY)"
_TIMES = f"{_DIVE} symbol, MIN(timestamp), MAX(timestamp) FROM trades FORCE INDEX (PRIMARY) GROUP BY symbol"
_FIRST = "SELECT timestamp FROM trades WHERE symbol = %s ORDER BY timestamp LIMIT 1"
_LAST = "SELECT timestamp FROM trades WHERE symbol = %s ORDER BY timestamp DESC LIMIT 1"
_NEWEST = (
    f"{_DIVE} {', '.join(f'trades.{name}' for name in Trade._fields)} FROM (SELECT symbol, MAX(timestamp) AS newest"
    " FROM trades FORCE INDEX (PRIMARY) WHERE symbol > %s GROUP BY symbol ORDER BY symbol LIMIT %s) AS ends"
    " STRAIGHT_JOIN trades FORCE INDEX (PRIMARY) ON trades.symbol = ends.symbol AND trades.timestamp = ends.newest"
)


@guard
def symbols(connection: Connection) -> list[str]:
    """The symbols that have trades, in order; by FEW_SYMBOLS + 3 statements at most, however many there are."""
    return sorted({*_in_table(connection), *past.files_until(connection)})


def _in_table(connection: Connection) -> list[str]:
    if (few := _few(connection, "")) is not None:
        return few
    rows = _dive(connection, _SYMBOLS, ())
    return list(_one_by_one(connection, "")) if rows is None else [symbol for (symbol,) in rows]


@guard
def latest_of_all(connection: Connection, after: str = "", size: int = EVERY_SYMBOL) -> list[Trade]:
    """The newest trade of each symbol, in order of the symbols: of the first `size` behind `after`. By one statement
    more than symbols(). Raises FileError."""
    found = {trade.symbol: trade for trade in _latest_in_table(connection, after, size)}
    beyond = max(found) if len(found) >= size else None
    until = past.files_until(connection)
    # Those with nothing newer than what is in files: hardly any, since they are not traded any more.
    older = [
        symbol
        for symbol in until
        if after < symbol
        and (beyond is None or symbol <= beyond)
        and (symbol not in found or found[symbol].timestamp < until[symbol])
    ]
    days = past.newest_days(connection) if older else {}
    for symbol in older:
        trade = past.last_of_day(connection, days[symbol]) if symbol in days else None
        # A day that was restored since may be behind the last one in a file.
        if trade is not None and (symbol not in found or _place(found[symbol]) < _place(trade)):
            found[symbol] = trade
    return [found[symbol] for symbol in sorted(found)[:size]]


def _latest_in_table(connection: Connection, after: str, size: int) -> list[Trade]:
    names = _few(connection, after)
    rows = _dive(connection, _NEWEST, (after, size), select_texts) if names is None else None
    if rows is None:
        names = list(islice(names or _one_by_one(connection, after), size))
        return [trade for name in names if (trade := latest(connection, name)) is not None]
    # Between two questions few change: only those are made of their texts anew.
    known, connection.newest = connection.newest, {}
    newest: dict[str, Trade] = {}
    for row in rows:
        connection.newest[row] = trade = known.get(row) or trade_of_texts(row)
        # All of the newest millisecond came: that with the highest id is the newest.
        if trade.symbol not in newest or newest[trade.symbol].trade_id < trade.trade_id:
            newest[trade.symbol] = trade
    return [newest[symbol] for symbol in sorted(newest)]


def _few(connection: Connection, after: str) -> list[str] | None:
    """The symbols behind `after`; None: they are more than a few."""
    found = list(islice(_one_by_one(connection, after), FEW_SYMBOLS + 1))
    return found if len(found) <= FEW_SYMBOLS else None


def _dive(
    connection: Connection, sql: str, parameters: Sequence[Any], ask: Callable[..., list[Any]] = select
) -> list[Any] | None:
    """The rows of a question that goes from symbol to symbol by the index; None: the server read too much for it."""
    try:
        return ask(connection, sql, parameters)
    except mysql.connector.Error as error:
        if error.errno not in _TIME_IS_UP:
            raise
        return None


def _one_by_one(connection: Connection, after: str) -> Iterator[str]:
    """The symbols behind `after`, by a statement each."""
    sql = "SELECT symbol FROM trades WHERE symbol > %s ORDER BY symbol LIMIT 1"
    while rows := select(connection, sql, (after,)):
        after = rows[0][0]
        yield after


@guard
def latest(connection: Connection, symbol: str) -> Trade | None:
    """The newest trade of `symbol`, None when it has none. Raises FileError."""
    found = _one(connection, "symbol = %s ORDER BY timestamp DESC, trade_id DESC LIMIT 1", (symbol,))
    return _or_older(connection, symbol, LATEST, found)


@guard
def time_spans(connection: Connection) -> dict[str, tuple[datetime, datetime]]:
    """The times of the first and of the newest trade of each symbol; by as many statements as latest_of_all()."""
    names = _few(connection, "")
    rows = _dive(connection, _TIMES, ()) if names is None else None
    if rows is None:
        names = names or list(_one_by_one(connection, ""))
        times = [(name, select(connection, _FIRST, (name,)), select(connection, _LAST, (name,))) for name in names]
        rows = [(name, first[0][0], last[0][0]) for name, first, last in times if first and last]
    found = {symbol: (aware(first), aware(last)) for symbol, first, last in rows}
    for symbol, (first, last) in past.file_spans(connection).items():
        there = found.get(symbol, (first, last))
        found[symbol] = min(first, there[0]), max(last, there[1])
    return found


@guard
def trades_in_second(connection: Connection, symbol: str, when: datetime) -> list[Trade]:
    """The trades of the second that `when` lies in: from its first millisecond to before the next second's first.
    Raises FileError."""
    start = when.replace(microsecond=0)
    where = "symbol = %s AND timestamp >= %s AND timestamp < %s ORDER BY timestamp, trade_id"
    # A second is in one day.
    (part,) = past.parts(connection, symbol, start, start + timedelta(seconds=1))
    if part.retained:
        return list(past.trades(connection, part))
    return _trades(connection, where, (symbol, part.start, part.end))


PARTS_MAX = 100
"""Questions of one symbol each that go into one statement; a server takes longer over more than over their rows."""


def united(connection: Connection, part: str, parameters: Sequence[Sequence[Any]]) -> list[Trade]:
    """The trades of `part`, which is a query with parameters in parentheses, for each of `parameters`; in any order."""
    found: list[Trade] = []
    for start in range(0, len(parameters), PARTS_MAX):
        asked = parameters[start : start + PARTS_MAX]
        values = naive([value for one in asked for value in one])
        found += map(trade_of, select(connection, " UNION ALL ".join([part] * len(asked)), values))
    return found


@guard
def prices_as_of(
    connection: Connection, asked: Sequence[tuple[str, datetime]]
) -> dict[tuple[str, datetime], Trade | None]:
    """As price_as_of(), of many moments at once: PARTS_MAX of them are one statement, but for those in files."""
    part = f"(SELECT {_TRADE} FROM trades WHERE symbol = %s AND timestamp < %s"
    part += " ORDER BY timestamp DESC, trade_id DESC LIMIT 1)"
    found: dict[str, list[Trade]] = {}
    for trade in united(connection, part, [(symbol, floor_ms(when) + MILLISECOND) for symbol, when in asked]):
        found.setdefault(trade.symbol, []).append(trade)
    # The last of those of the symbol that are not later is that of the moment.
    return {
        (symbol, when): _or_older(
            connection,
            symbol,
            floor_ms(when) + MILLISECOND,
            max((trade for trade in found.get(symbol, []) if trade.timestamp <= when), key=_place, default=None),
        )
        for symbol, when in asked
    }


def _place(trade: Trade) -> tuple[datetime, int]:
    return trade.timestamp, trade.trade_id


@guard
def price_as_of(connection: Connection, symbol: str, when: datetime) -> Trade | None:
    """The last trade up to and including the millisecond of `when`, whose price was the price then; None: none yet.
    Raises FileError."""
    where = "symbol = %s AND timestamp < %s ORDER BY timestamp DESC, trade_id DESC LIMIT 1"
    end = floor_ms(when) + MILLISECOND
    return _or_older(connection, symbol, end, _one(connection, where, (symbol, end)))


def _or_older(connection: Connection, symbol: str, end: datetime, found: Trade | None) -> Trade | None:
    """The last trade before `end`, of which the table has `found`: that one, unless it or a later one is in a file."""
    until = past.files_until(connection).get(symbol)
    if until is None or (found is not None and found.timestamp >= until):
        return found

    def of_table(part: Part, size: int) -> list[Trade]:
        where = "symbol = %s AND timestamp >= %s AND timestamp < %s ORDER BY timestamp DESC, trade_id DESC LIMIT %s"
        return _trades(connection, where, (symbol, part.start, part.end, size))

    return next(iter(past.last(connection, (symbol, past.EARLIEST, end), 1, of_table)), None)


def _trades(connection: Connection, where: str, parameters: Sequence[Any]) -> list[Trade]:
    return [
        trade_of(row) for row in select(connection, f"SELECT {_TRADE} FROM trades WHERE {where}", naive(parameters))
    ]


def _one(connection: Connection, where: str, parameters: Sequence[Any]) -> Trade | None:
    return next(iter(_trades(connection, where, parameters)), None)
