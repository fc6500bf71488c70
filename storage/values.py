"""Values on their way into SQL and back.

Whole rows are written as literals, which is twice as fast as parameters, for the statements that insert thousands of
them. Only numbers, times and booleans are written out here; a symbol is quoted by the driver's own function. What the
engines would round, clip or shift without an error is refused.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from mysql.connector.conversion import MySQLConverter

from model.times import EPOCH, MILLISECOND, floor_ms
from model.trade import Trade
from storage.errors import RefusedError

SYMBOL_CHARS_MAX = 32
ROWS_PER_STATEMENT_MAX = 2_000
"""About 200 KB of SQL, far below the smallest default of max_allowed_packet (16 MB)."""
ROW_BYTES_MAX = 700
"""Of a row in SQL: a trade has up to 270, a gap up to 660."""

T = TypeVar("T")

_QUOTE = MySQLConverter()


def rows_max(bytes_max: int) -> int:
    """How many rows go into a statement, if a request may have so many bytes."""
    return min(ROWS_PER_STATEMENT_MAX, bytes_max // ROW_BYTES_MAX)


def batches(rows: Sequence[T], bytes_max: int) -> Iterator[Sequence[T]]:
    """`rows` in runs that one statement takes."""
    size = rows_max(bytes_max)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def marks(values: Sequence[object]) -> str:
    """The place of each parameter in a list of SQL."""
    return ", ".join(["%s"] * len(values))


def rows_sql(trades: Sequence[Trade]) -> Iterator[str]:
    """The values of the rows as SQL. Raises RefusedError for what the engines would round or shift without an error."""
    names = {symbol: quoted(symbol) for symbol in {trade.symbol for trade in trades}}
    last, when = None, ""
    for symbol, timestamp, trade_id, price, quantity, buyer_is_maker, received_at in trades:
        # The parser gives the trades of one millisecond the very same object.
        if timestamp is not last:
            last, when = timestamp, time_sql(timestamp, 3)
        received = "NULL" if received_at is None else f"'{time_sql(received_at, 6)}'"
        numbers = f"{price!s},{quantity!s}"
        if not _TWO_NUMBERS(numbers):
            numbers = f"{number_sql(price)},{number_sql(quantity)}"
        yield f"{names[symbol]},'{when}',{_digits(trade_id)},{numbers},{_digits(buyer_is_maker)},{received}"


INSERT = "INSERT INTO trades (symbol, timestamp, trade_id, price, quantity, buyer_is_maker, received_at)"
# INSERT IGNORE would clip what does not fit; this keeps the row that is there and changes nothing.
REPEATED = "ON DUPLICATE KEY UPDATE trade_id = trades.trade_id"


def insert_statements(trades: Sequence[Trade], bytes_max: int) -> Iterator[str]:
    """What stores `trades`; those that are there already stay as they are. Raises RefusedError."""
    for part in batches(trades, bytes_max):
        yield f"{INSERT} VALUES ({'),('.join(rows_sql(part))}) {REPEATED}"


def check_symbol(symbol: str) -> None:
    """Raises RefusedError for what the column would cut, or confuse with another: it ignores trailing spaces."""
    # Half a surrogate pair is not valid UTF-8; the driver raises an error for it that is not one of its own.
    sound = symbol.encode(errors="replace").decode() == symbol
    if not sound or not 0 < len(symbol) <= SYMBOL_CHARS_MAX or symbol != symbol.rstrip(" "):
        raise RefusedError(f"symbol {symbol[:80]!r} does not fit VARCHAR({SYMBOL_CHARS_MAX})")


@functools.lru_cache(maxsize=4_096)
def quoted(text: str) -> str:
    """A symbol as SQL; the exchange has about 3,600."""
    return str(bytes(_QUOTE.quote(_QUOTE.escape(text.encode()))), "utf-8")


def time_sql(when: datetime, decimals: int) -> str:
    """`when`, which is in UTC, without quotes, floored to so many decimals of a second.

    Quicker than isoformat, which asks the time zone. Raises RefusedError for a time in another zone.
    """
    # Another zone would mean the same moment, but its hours and days would not be those of the candles.
    if when.tzinfo is not UTC:
        raise RefusedError(f"{when!r} is not a time in UTC")
    since = when - EPOCH
    return f"{_second(since.days, since.seconds)}.{str(since.microseconds + 1_000_000)[1 : 1 + decimals]}"


@functools.lru_cache(maxsize=1_024)
def _second(days: int, seconds: int) -> str:
    # strftime would write the year 999 with three digits, and the year 1 would become 2001.
    return (EPOCH + timedelta(days, seconds)).isoformat(" ")[:19]


_digits = int.__repr__
"""Of an int or a bool only, and several times faster than a format."""


def number_sql(value: Decimal) -> str:
    """The digits of `value`. Raises RefusedError for what does not fit DECIMAL(20,8) exactly."""
    text = str(value)
    if not _NUMBER(text):
        # A small number prints as 1E-8, which SQL would read as a float. Written out, 1E+999999999 is a gigabyte.
        text = f"{value:f}" if abs(value.adjusted()) < _DIGITS_MAX else text
        if not _NUMBER(text):
            raise RefusedError(f"{text[:80]!r} does not fit DECIMAL(20,8)")
    return text


_DECIMAL = r"[0-9]{1,12}(?:\.[0-9]{1,8})?"
_NUMBER = re.compile(_DECIMAL).fullmatch
_TWO_NUMBERS = re.compile(f"{_DECIMAL},{_DECIMAL}").fullmatch
_DIGITS_MAX = 20


def naive(row: Sequence[Any]) -> list[Any]:
    """The values of a row as parameters: the driver writes a datetime's digits, whatever its time zone.

    Raises RefusedError for a time without a time zone, which would silently be taken as local time.
    """
    values = []
    for value in row:
        if isinstance(value, datetime):
            if value.tzinfo is None:
                raise RefusedError(f"{value.isoformat(' ')!r} has no time zone; give a time in UTC")
            value = value.astimezone(UTC).replace(tzinfo=None)
        values.append(value)
    return values


def aware(value: Any) -> Any:
    """A value of a row; times become UTC-aware."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value


def trade_of(row: Sequence[Any]) -> Trade:
    """The trade of a row of `trades`, columns in the order of Trade."""
    symbol, timestamp, trade_id, price, quantity, buyer_is_maker, received_at = row
    received = None if received_at is None else received_at.replace(tzinfo=UTC)
    return Trade(symbol, timestamp.replace(tzinfo=UTC), trade_id, price, quantity, bool(buyer_is_maker), received)


def trade_of_texts(row: Sequence[Any]) -> Trade:
    """The same of a row as the server writes it: bytes, or None."""
    symbol, timestamp, trade_id, price, quantity, buyer_is_maker, received_at = row
    return Trade(
        symbol.decode(),
        _time_of(timestamp),
        int(trade_id),
        Decimal(price.decode()),
        Decimal(quantity.decode()),
        buyer_is_maker != b"0",
        None if received_at is None else _time_of(received_at),
    )


def _time_of(text: bytes) -> datetime:
    return datetime.fromisoformat(text.decode()).replace(tzinfo=UTC)


def ceil_ms(when: datetime) -> datetime:
    """The first millisecond at or after `when`, in UTC, as stored times are; SQL must not round a bound.

    In another zone the days and hours of a range would not be those of the candles. Raises RefusedError for a time
    without a zone.
    """
    if when.tzinfo is None:
        raise RefusedError(f"{when.isoformat(' ')!r} has no time zone; give a time in UTC")
    when = when.astimezone(UTC)
    floored = floor_ms(when)
    return floored if floored == when else floored + MILLISECOND
