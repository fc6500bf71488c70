"""The database: one row per trade, keyed by (symbol, timestamp, trade_id); gaps and candles beside it (schema.sql).

This is the only module that knows SQL and the driver. Times go in and come out UTC-aware, prices and quantities as
Decimal, ids as int; ranges are half-open. Driver errors leave it as one of the few exceptions below.
"""

import functools
import re
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import mysql.connector
from mysql.connector.connection import MySQLConnection
from mysql.connector.conversion import MySQLConverter

import candles
import config
import gaps as trade_ids
import private_mysql
from candles import Candle
from db_errors import (
    ContentionError,
    DatabaseError,
    FatalError,
    GoneError,
    NotWritableError,
    RefusedError,
    guard,
)
from gaps import Gap, Point, Span

try:
    from mysql.connector.connection_cext import CMySQLConnection as _Driver
except ImportError:  # The wheel's C extension does not load here; correct all the same, but several times slower.
    _Driver = MySQLConnection  # type: ignore[assignment, misc]

__all__ = ["ContentionError", "DatabaseError", "FatalError", "GoneError", "NotWritableError", "RefusedError"]

SCHEMA_FILE = Path(__file__).with_name("schema.sql")
SCHEMA_VERSION = 1
CONNECT_S_MAX = 5
WRITE_S_MAX = 10
"""A server that does not take or answer a writer's statement for so long counts as gone."""
READ_S_MAX = 300
LOCK_WAIT_S_MAX = 5
ROWS_PER_STATEMENT_MAX = 2_000
"""About 200 KB of SQL, far below the smallest default of max_allowed_packet (16 MB)."""
ABSORB_S = 5
"""A gap that the streams close themselves within so many seconds was a reordering: no record of it is kept."""

SPAN_MARGIN_S = 1
SYMBOL_CHARS_MAX = 32


class Trade(NamedTuple):
    """One trade. `timestamp` is the exchange's clock, in whole milliseconds; `received_at` ours, None: back-filled."""

    symbol: str
    timestamp: datetime
    trade_id: int
    price: Decimal
    quantity: Decimal
    buyer_is_maker: bool
    received_at: datetime | None = None


# ---- Connections and the schema.


class Connection(_Driver):
    """A driver connection that remembers what it last knew of the ids, and what it was asked, if someone wants to know.

    `asked`: set it to a list, and each SELECT is appended as it was sent, with its values.
    """

    asked: list[str] | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.token = secrets.randbits(63)
        self.spans: dict[str, Span] = {}


@guard
def connect(
    settings: config.Settings | None = None, *, read_only: bool = False, read_s_max: int | None = None
) -> Connection:
    """A connection to the database of `settings` (default: the environment's), which is created when it is missing.

    UTC, strict, utf8mb4, READ COMMITTED, autocommit. With `read_only` the session cannot write, and nothing is
    created. Without a configured server the private one is used. Raises GoneError, FatalError, ServerError.
    """
    settings = settings or config.load()
    if settings.private:
        settings = settings._replace(
            mysql_unix_socket=str(private_mysql.use(settings.data_dir)), mysql_user="root", mysql_password=""
        )
    try:
        connection = _open(settings, settings.mysql_database, read_s_max or (READ_S_MAX if read_only else WRITE_S_MAX))
    except mysql.connector.Error as error:
        if error.errno != mysql.connector.errorcode.ER_BAD_DB_ERROR or read_only:
            raise
        _create_database(settings)
        connection = _open(settings, settings.mysql_database, read_s_max or WRITE_S_MAX)
    if read_only:
        _run(connection, "SET SESSION TRANSACTION READ ONLY")
    else:
        apply_schema(connection)
    return connection


def close(connection: Connection) -> None:
    """Closes `connection`, which may be dead already."""
    with suppress(mysql.connector.Error):
        connection.close()


def is_fast() -> bool:
    """Whether the driver's C extension is in use; without it a batch over TCP stalls for 40 ms."""
    return not issubclass(Connection, MySQLConnection)


def _open(settings: config.Settings, database: str | None, read_s_max: int) -> Connection:
    options: dict[str, Any] = {"host": settings.mysql_host or "localhost", "port": settings.mysql_port}
    if settings.mysql_unix_socket:
        options = {"unix_socket": settings.mysql_unix_socket}
    elif settings.mysql_ssl_ca:
        options |= {"ssl_ca": settings.mysql_ssl_ca, "ssl_verify_cert": True}
    connection = Connection(
        user=settings.mysql_user,
        password=settings.mysql_password,
        database=database,
        # This collation is known to every version of both families; the driver's own default is not.
        charset="utf8mb4",
        collation="utf8mb4_bin",
        autocommit=True,
        connection_timeout=CONNECT_S_MAX,
        read_timeout=read_s_max,
        write_timeout=WRITE_S_MAX,
        **options,
    )
    _run(connection, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
    _run(
        connection,
        "SET time_zone = '+00:00',"
        " sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO',"
        f" innodb_lock_wait_timeout = {LOCK_WAIT_S_MAX}",
    )
    # The driver checks the certificate of a server that has one, but does without TLS where there is none.
    if "ssl_ca" in options and not _select(connection, "SHOW SESSION STATUS LIKE 'Ssl_cipher'")[0][1]:
        connection.close()
        raise FatalError("MYSQL_SSL_CA is set, but the server at MYSQL_HOST does not offer TLS")
    return connection


def _create_database(settings: config.Settings) -> None:
    connection = _open(settings, None, WRITE_S_MAX)
    # config.py lets only letters, digits and _ into the name; a name cannot be a parameter.
    _run(connection, f"CREATE DATABASE IF NOT EXISTS `{settings.mysql_database}` CHARACTER SET utf8mb4")
    connection.close()


@guard
def apply_schema(connection: Connection) -> None:
    """Brings the database to SCHEMA_VERSION by running schema.sql; does nothing when it is there already.

    A user without the right to create tables can therefore work in a database that somebody else prepared. Raises
    FatalError for a database of a newer version.
    """
    version = _schema_version(connection)
    if version is not None and version > SCHEMA_VERSION:
        raise FatalError(
            f"the database has schema version {version}, this program knows {SCHEMA_VERSION}: "
            "update the program, or set MYSQL_DATABASE to another name"
        )
    if version == SCHEMA_VERSION:
        return
    for statement in schema_statements():
        _run(connection, statement)


def schema_statements() -> list[str]:
    """The statements of schema.sql, in order, without their comments."""
    bare = re.sub(r"--.*", "", SCHEMA_FILE.read_text(encoding="utf-8"))
    return [statement.strip() for statement in bare.split(";\n") if statement.strip()]


def _schema_version(connection: Connection) -> int | None:
    try:
        ((version,),) = _select(connection, "SELECT MAX(version) FROM schema_version")
    except mysql.connector.ProgrammingError as error:
        if error.errno != mysql.connector.errorcode.ER_NO_SUCH_TABLE:
            raise
        return None
    return None if version is None else int(version)


def _execute(connection: Connection, sql: str) -> int:
    """The number of rows that a statement without parameters changed; quicker than a cursor."""
    return int(connection.cmd_query(sql)["affected_rows"])


def _run(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> int:
    """The number of rows that a statement changed."""
    with connection.cursor() as cursor:
        cursor.execute(sql, tuple(parameters))
        return int(cursor.rowcount)


def _select(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, tuple(parameters))
        if connection.asked is not None:
            connection.asked.append(str(cursor.statement))
        return list(cursor.fetchall())


# ---- Writing. Every writer goes through insert_trades: the stream, the spool, the back-fill.


@guard
def insert_trades(
    connection: Connection, trades: Sequence[Trade], opened: list[Gap] | None = None, reason: str = trade_ids.MISSED
) -> int:
    """How many of `trades` were new; all are stored when it returns, with their gaps and candles, in one transaction.

    Repeats and any order are fine. Ids that turn out to be missing become rows of `gaps` with that `reason` (appended
    to `opened`), and open gaps that the trades fall into shrink, split or close. Raises RefusedError (nothing is
    stored then), GoneError (all or nothing is stored: repeat), ContentionError, NotWritableError, FatalError.
    """
    if not trades:
        return 0
    groups: dict[str, list[Trade]] = defaultdict(list)
    for trade in trades:
        groups[trade.symbol].append(trade)
    for symbol in groups:
        _check_symbol(symbol)
    found: list[Gap] = []
    with _transaction(connection):
        known = _lock(connection, sorted(groups))
        inserted = _insert_rows(connection, trades)
        spans = {symbol: _account(connection, known[symbol], group, found) for symbol, group in groups.items()}
        _insert_gaps(connection, [gap._replace(reason=reason) for gap in found])
        _merge_candles(connection, [candle for group in groups.values() for candle in candles.of_trades(group)])
        # Before the commit: should anything go wrong with that, all of them are forgotten.
        connection.spans.update(spans)
    if opened is not None:
        opened.extend(found)
    return inserted


def insert_acceptable(
    connection: Connection,
    trades: Sequence[Trade],
    refuse: Callable[[Trade, str], None],
    opened: list[Gap] | None = None,
    reason: str = trade_ids.MISSED,
) -> int:
    """As insert_trades, but a trade that the database refuses goes to `refuse` with the server's words, not its batch.

    The batch is halved until the refused trades stand alone, so each part is a transaction of its own.
    """
    try:
        return insert_trades(connection, trades, opened, reason)
    except RefusedError as error:
        if len(trades) == 1:
            refuse(trades[0], str(error))
            return 0
    half = len(trades) // 2
    parts = (trades[:half], trades[half:])
    return sum(insert_acceptable(connection, part, refuse, opened, reason) for part in parts)


@contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    _execute(connection, "BEGIN")
    try:
        yield
        _execute(connection, "COMMIT")
    except BaseException:
        # Whether a COMMIT that failed took effect is unknown, so nothing that was remembered can be trusted.
        connection.spans.clear()
        with suppress(mysql.connector.Error):
            _execute(connection, "ROLLBACK")
        raise


def _lock(connection: Connection, symbols: list[str]) -> dict[str, Span | None]:
    """The spans of `symbols`, which no other writer can change before this transaction ends."""
    marks = ", ".join(["%s"] * len(symbols))
    sql = f"SELECT symbol, token FROM writers WHERE symbol IN ({marks}) ORDER BY symbol FOR UPDATE"
    tokens = dict(_select(connection, sql, symbols))
    if len(tokens) < len(symbols):
        rows = ", ".join(["(%s, 0)"] * len(symbols))
        _run(connection, f"INSERT INTO writers VALUES {rows} ON DUPLICATE KEY UPDATE token = writers.token", symbols)
        tokens = dict(_select(connection, sql, symbols))
    others = [symbol for symbol in symbols if tokens[symbol] != connection.token or symbol not in connection.spans]
    if others:
        marks = ", ".join(["%s"] * len(others))
        _run(connection, f"UPDATE writers SET token = %s WHERE symbol IN ({marks})", [connection.token, *others])
        # What was remembered of them is outdated, which the token, now ours again, will not tell the next time.
        for symbol in others:
            connection.spans.pop(symbol, None)
    spans = {symbol: _read_span(connection, symbol) for symbol in others}
    return {symbol: spans[symbol] if symbol in spans else connection.spans[symbol] for symbol in symbols}


def _read_span(connection: Connection, symbol: str) -> Span | None:
    """The span of the stored trades. The exchange's time stamps rise with the ids, give or take SPAN_MARGIN_S."""
    # Two statements for each end, because MariaDB reads every trade of the symbol when the bound is a subquery.
    end = "SELECT timestamp FROM trades WHERE symbol = %s ORDER BY timestamp {way}, trade_id {way} LIMIT 1"
    near = "SELECT trade_id, timestamp FROM trades WHERE symbol = %s AND timestamp {beyond} %s"
    near += " ORDER BY trade_id {way} LIMIT 1"
    oldest = _select(connection, end.format(way="ASC"), (symbol,))
    newest = _select(connection, end.format(way="DESC"), (symbol,))
    if not oldest:
        return None
    margin = timedelta(seconds=SPAN_MARGIN_S)
    first = _select(connection, near.format(beyond="<=", way="ASC"), (symbol, oldest[0][0] + margin))
    last = _select(connection, near.format(beyond=">=", way="DESC"), (symbol, newest[0][0] - margin))
    return Span(_point(first[0]), _point(last[0]))


def _point(row: tuple[int, datetime]) -> Point:
    return row[0], row[1].replace(tzinfo=UTC)


def _insert_rows(connection: Connection, trades: Sequence[Trade]) -> int:
    inserted = 0
    for start in range(0, len(trades), ROWS_PER_STATEMENT_MAX):
        rows = ",".join(_rows(trades[start : start + ROWS_PER_STATEMENT_MAX]))
        # INSERT IGNORE would clip what does not fit; this keeps the row that is there and changes nothing.
        inserted += _execute(connection, f"{_INSERT}{rows} ON DUPLICATE KEY UPDATE trade_id = trades.trade_id")
    return inserted


_INSERT = "INSERT INTO trades (symbol, timestamp, trade_id, price, quantity, buyer_is_maker, received_at) VALUES "
_QUOTE = MySQLConverter()


def _rows(trades: Sequence[Trade]) -> Iterator[str]:
    """The rows as SQL. Only typed values are written out, which is twice as fast as parameters; symbols are quoted
    by the driver's own function. Raises RefusedError for what the engines would round or shift without an error."""
    quoted = {symbol: _quoted(symbol) for symbol in {trade.symbol for trade in trades}}
    last, when = None, ""
    for symbol, timestamp, trade_id, price, quantity, buyer_is_maker, received_at in trades:
        # The parser gives the trades of one millisecond the very same object.
        if timestamp is not last:
            last, when = timestamp, _time(timestamp, "milliseconds")
        received = "NULL" if received_at is None else f"'{_time(received_at, 'microseconds')}'"
        yield (
            f"({quoted[symbol]},'{when}',{trade_id:d},{_number(price)},{_number(quantity)},{buyer_is_maker:d},{received})"
        )


def _check_symbol(symbol: str) -> None:
    """Raises RefusedError for what the column would cut, or take for another: it ignores spaces at the end."""
    if not 0 < len(symbol) <= SYMBOL_CHARS_MAX or symbol != symbol.rstrip(" "):
        raise RefusedError(f"symbol {symbol[:80]!r} does not fit VARCHAR({SYMBOL_CHARS_MAX})")


def _quoted(text: str) -> str:
    return str(bytes(_QUOTE.quote(_QUOTE.escape(text.encode()))), "utf-8")


def _time(when: datetime, digits: str) -> str:
    """`when` in UTC, floored to milliseconds or microseconds; quicker than isoformat, which asks the time zone."""
    try:
        since = when - _EPOCH
    except TypeError:
        raise RefusedError(f"{when!r} has no time zone") from None
    fraction = f"{since.microseconds // 1000:03d}" if digits == "milliseconds" else f"{since.microseconds:06d}"
    return f"{_second(since.days, since.seconds)}.{fraction}"


@functools.lru_cache(maxsize=1_024)
def _second(days: int, seconds: int) -> str:
    return (_EPOCH + timedelta(days, seconds)).strftime("%Y-%m-%d %H:%M:%S")


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _number(value: Decimal) -> str:
    text = str(value)
    if not _NUMBER(text):
        # A small number prints as 1E-8, which SQL would read as a float.
        text = f"{value:f}"
        if not _NUMBER(text):
            raise RefusedError(f"{text[:80]!r} does not fit DECIMAL(20,8)")
    return text


_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,8})?").fullmatch


def _account(connection: Connection, span: Span | None, trades: Sequence[Trade], found: list[Gap]) -> Span:
    """The span after `trades` of one symbol; new gaps are appended to `found`, open ones brought up to date."""
    ids = [trade.trade_id for trade in trades]
    low, high = min(ids), max(ids)
    if span is not None and low == span.last[0] + 1 and high - low + 1 == len(ids) == len(set(ids)):
        return Span(span.first, (high, _floor_ms(trades[ids.index(high)].timestamp)))
    points = sorted({trade.trade_id: _floor_ms(trade.timestamp) for trade in trades}.items())
    now = datetime.now(UTC)
    grown, stretches, late = trade_ids.account(span, points)
    for stretch in stretches:
        found += trade_ids.holes(trades[0].symbol, stretch, "", now)
    if late:
        from_stream = all(trade.received_at is not None for trade in trades)
        _fill(connection, trades[0].symbol, late, now, absorb=from_stream)
    return grown


def _insert_gaps(connection: Connection, gaps: Sequence[Gap]) -> None:
    for start in range(0, len(gaps), ROWS_PER_STATEMENT_MAX):
        rows = gaps[start : start + ROWS_PER_STATEMENT_MAX]
        marks = ", ".join(["(%s, %s, %s, %s, %s, %s, %s, %s)"] * len(rows))
        # REPLACE, because the begin of a gap that was filled and then lost again is there already.
        _run(connection, f"REPLACE INTO gaps ({_GAP}) VALUES {marks}", [value for gap in rows for value in _naive(gap)])


_GAP = "symbol, first_trade_id, last_trade_id, reason, detected_at, filled_at, timestamp_before, timestamp_after"


def _naive(row: Sequence[Any]) -> list[Any]:
    """The values of a row as parameters: the driver writes the digits of a datetime, whatever its time zone.

    Raises RefusedError for a time without a time zone, which would silently be taken for this machine's.
    """
    values = []
    for value in row:
        if isinstance(value, datetime):
            if value.tzinfo is None:
                raise RefusedError(f"{value.isoformat(' ')!r} has no time zone; give a time in UTC")
            value = value.astimezone(UTC).replace(tzinfo=None)
        values.append(value)
    return values


def _fill(connection: Connection, symbol: str, points: Sequence[Point], now: datetime, absorb: bool) -> None:
    """Takes the ids of `points`, which are stored, out of the open gaps; `absorb`: leaves no record of a young one."""
    for gap in _open_gaps(connection, symbol, points[0][0], points[-1][0]):
        still_open, filled = trade_ids.fill(gap, points, now)
        if not filled:
            continue
        if absorb and timedelta() <= now - gap.detected_at < timedelta(seconds=ABSORB_S):
            filled = []
        _replace_gap(connection, gap, still_open + [_joined(connection, run) for run in filled])


@guard
def give_up(connection: Connection, symbol: str, first: int, last: int, reason: str) -> int:
    """How many ids of first to last (inclusive) are in open gaps; those get `reason` and stay open."""
    now = datetime.now(UTC)
    changed = 0
    with _transaction(connection):
        _lock(connection, [symbol])
        for gap in _open_gaps(connection, symbol, first, last):
            low, high = max(first, gap.first_trade_id), min(last, gap.last_trade_id)
            ends = [(low - 1, gap.timestamp_before), (high + 1, gap.timestamp_after)]
            parts = [
                gap._replace(last_trade_id=low - 1),
                *trade_ids.holes(symbol, ends, reason, now),
                gap._replace(first_trade_id=high + 1),
            ]
            _replace_gap(connection, gap, [part for part in parts if part.missing > 0])
            changed += high - low + 1
    return changed


def _replace_gap(connection: Connection, gap: Gap, parts: Sequence[Gap]) -> None:
    key = (gap.symbol, gap.first_trade_id)
    _run(connection, "DELETE FROM gaps WHERE symbol = %s AND first_trade_id = %s", key)
    _insert_gaps(connection, parts)


def _joined(connection: Connection, run: Gap) -> Gap:
    """`run` together with the filled run of the same gap that ends right before it (which is deleted), if any."""
    rows = _select(
        connection,
        f"SELECT {_GAP} FROM gaps WHERE symbol = %s AND first_trade_id < %s ORDER BY first_trade_id DESC LIMIT 1",
        (run.symbol, run.first_trade_id),
    )
    for before in map(_gap, rows):
        same = (before.last_trade_id + 1, before.detected_at) == (run.first_trade_id, run.detected_at)
        if same and before.filled_at is not None:
            return run._replace(first_trade_id=before.first_trade_id, timestamp_before=before.timestamp_before)
    return run


def _open_gaps(connection: Connection, symbol: str, first: int, last: int) -> list[Gap]:
    inside = "symbol = %s AND first_trade_id <= %s AND last_trade_id >= %s"
    sql = f"SELECT {_GAP} FROM gaps WHERE filled_at IS NULL AND {inside} ORDER BY first_trade_id"
    return [_gap(row) for row in _select(connection, sql, (symbol, last, first))]


def _gap(row: Sequence[Any]) -> Gap:
    return Gap(*(_aware(value) for value in row))


def _aware(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value


def _merge_candles(connection: Connection, rows: Sequence[Candle]) -> None:
    """Merges candles into the table; LEAST, GREATEST and the ids decide, so repeats and any order do no harm.

    `VALUES(column)` is deprecated in MySQL and `AS new` unknown to MariaDB; this form both know. MySQL assigns from
    left to right and sees what it has assigned, so the ids, which the others compare, come last.
    """
    for start in range(0, len(rows), ROWS_PER_STATEMENT_MAX):
        _merge_candle_rows(connection, rows[start : start + ROWS_PER_STATEMENT_MAX])


def _merge_candle_rows(connection: Connection, rows: Sequence[Candle]) -> None:
    new = " UNION ALL ".join(map(_candle_sql, rows))
    sql = (
        f"INSERT INTO candles ({', '.join(Candle._fields)}) SELECT * FROM ({new}) AS new ON DUPLICATE KEY UPDATE"
        " high = GREATEST(candles.high, new.high), low = LEAST(candles.low, new.low),"
        " open = IF(new.first_trade_id < candles.first_trade_id, new.open, candles.open),"
        " close = IF(new.last_trade_id > candles.last_trade_id, new.close, candles.close),"
        " first_trade_id = LEAST(candles.first_trade_id, new.first_trade_id),"
        " last_trade_id = GREATEST(candles.last_trade_id, new.last_trade_id)"
    )
    _execute(connection, sql)


def _candle_sql(candle: Candle) -> str:
    """A candle as a SELECT. The driver would write a price of 1E-7 as that, which makes all of its column floats."""
    values = [_quoted(candle.symbol), str(candle.resolution), f"'{_time(candle.timestamp, 'milliseconds')}'"]
    values += map(_number, (candle.open, candle.high, candle.low, candle.close))
    values += map(str, (candle.first_trade_id, candle.last_trade_id))
    return "SELECT " + ", ".join(f"{value} AS {column}" for value, column in zip(values, Candle._fields, strict=True))


# ---- Reading.

_TRADE = "symbol, timestamp, trade_id, price, quantity, buyer_is_maker, received_at"
_MILLISECOND = timedelta(milliseconds=1)


class MinMax(NamedTuple):
    """What traded in [start, end): how many trades, the first and the last, and the earliest at the lowest and highest
    price."""

    symbol: str
    start: datetime
    end: datetime
    trades: int
    first: Trade
    last: Trade
    low: Trade
    high: Trade


@guard
def symbols(connection: Connection) -> list[str]:
    """The symbols that have trades, in order."""
    # From one to the next by the index: MariaDB reads every trade for SELECT DISTINCT.
    sql = "SELECT symbol FROM trades WHERE symbol > %s ORDER BY symbol LIMIT 1"
    found: list[str] = []
    while rows := _select(connection, sql, found[-1:] or [""]):
        found.append(rows[0][0])
    return found


@guard
def latest(connection: Connection, symbol: str) -> Trade | None:
    """The newest trade of `symbol`, None when it has none."""
    return _one(connection, "symbol = %s ORDER BY timestamp DESC, trade_id DESC LIMIT 1", (symbol,))


@guard
def trades_in_second(connection: Connection, symbol: str, when: datetime) -> list[Trade]:
    """The trades of the second that `when` lies in: from its first millisecond to before the next second's first."""
    start = when.replace(microsecond=0)
    where = "symbol = %s AND timestamp >= %s AND timestamp < %s ORDER BY timestamp, trade_id"
    return _trades(connection, where, (symbol, start, start + timedelta(seconds=1)))


@guard
def price_as_of(connection: Connection, symbol: str, when: datetime) -> Trade | None:
    """The last trade up to and including the millisecond of `when`, whose price was the price then; None: none yet."""
    where = "symbol = %s AND timestamp < %s ORDER BY timestamp DESC, trade_id DESC LIMIT 1"
    return _one(connection, where, (symbol, _floor_ms(when) + _MILLISECOND))


@guard
def min_max(connection: Connection, symbol: str, start: datetime, end: datetime) -> MinMax | None:
    """The extremes of the price in [start, end), with the trade of each; None when nothing traded."""
    within = "symbol = %s AND timestamp >= %s AND timestamp < %s"
    bounds = (symbol, _ceil_ms(start), _ceil_ms(end))
    sql = f"SELECT COUNT(*), MIN(price), MAX(price) FROM trades WHERE {within}"
    ((count, low, high),) = _select(connection, sql, _naive(bounds))
    if not count:
        return None
    in_order = "ORDER BY timestamp, trade_id LIMIT 1"
    first = _one(connection, f"{within} {in_order}", bounds)
    last = _one(connection, f"{within} ORDER BY timestamp DESC, trade_id DESC LIMIT 1", bounds)
    lowest = _one(connection, f"{within} AND price = %s {in_order}", (*bounds, low))
    highest = _one(connection, f"{within} AND price = %s {in_order}", (*bounds, high))
    if first is None or last is None or lowest is None or highest is None:
        # Trades are never deleted by this suite; somebody else did so between two of the statements.
        return None
    return MinMax(symbol, start, end, count, first, last, lowest, highest)


@guard
def open_gaps(connection: Connection, symbol: str | None = None) -> list[Gap]:
    """The runs of missing ids, of one symbol or of all, in order of symbol and id."""
    sql = f"SELECT {_GAP} FROM gaps WHERE filled_at IS NULL"
    if symbol is not None:
        rows = _select(connection, f"{sql} AND symbol = %s ORDER BY symbol, first_trade_id", (symbol,))
    else:
        rows = _select(connection, f"{sql} ORDER BY symbol, first_trade_id")
    return [_gap(row) for row in rows]


def _trades(connection: Connection, where: str, parameters: Sequence[Any]) -> list[Trade]:
    return [
        _trade(row) for row in _select(connection, f"SELECT {_TRADE} FROM trades WHERE {where}", _naive(parameters))
    ]


def _one(connection: Connection, where: str, parameters: Sequence[Any]) -> Trade | None:
    return next(iter(_trades(connection, where, parameters)), None)


def _trade(row: Sequence[Any]) -> Trade:
    symbol, timestamp, trade_id, price, quantity, buyer_is_maker, received_at = map(_aware, row)
    return Trade(symbol, timestamp, trade_id, price, quantity, bool(buyer_is_maker), received_at)


def _floor_ms(when: datetime) -> datetime:
    return when.replace(microsecond=when.microsecond // 1000 * 1000)


def _ceil_ms(when: datetime) -> datetime:
    """The first millisecond at or after `when`: stored times are whole milliseconds, and SQL must not round a bound."""
    floored = _floor_ms(when)
    return floored if floored == when else floored + _MILLISECOND
