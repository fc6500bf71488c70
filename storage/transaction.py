"""Transactions: how several writers agree on what is missing, and how a reader sees one moment.

Two captures, or a capture and a back-fill, may store trades of one symbol at the same time. Each remembers which ids
are accounted for (Connection.spans), and a gap row is right only if that memory is. So the table `writers` has a row
per symbol with the token of the connection that stored last: a transaction locks the rows of its symbols, and where
it finds another token it forgets what it remembered and reads the spans from the tables.

store_at_once is the ordinary case, in one round trip instead of three: BEGIN, the lock, the rows and COMMIT are sent
together. Its lock is an upsert that sets the token to NULL where it is not ours; the column refuses NULL, so a foreign
token fails the whole transaction before anything is stored. The caller then repeats the batch with transaction(),
which looks before it stores.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import mysql.connector

from storage.session import Connection, execute, run, select, sent


@dataclass
class Work:
    """A transaction that stores trades: the `tokens` of the locked symbols; the `last` statements, which come from the
    block and are sent together with the COMMIT; afterwards how many rows each of these `changed`."""

    tokens: dict[str, int]
    last: Iterable[str] = ()
    changed: Sequence[int] = ()


@contextmanager
def transaction(connection: Connection, symbols: Sequence[str]) -> Iterator[Work]:
    """A transaction in which nobody else can store trades of `symbols`; rolled back by what the block raises."""
    try:
        work = Work(_begin(connection, symbols))
        yield work
        work.changed = execute(connection, *work.last, "COMMIT")[:-1]
    except BaseException:
        # Whether a COMMIT that failed took effect is unknown, so nothing that was remembered can be trusted.
        connection.spans.clear()
        _roll_back(connection)
        raise


def store_at_once(connection: Connection, symbols: Sequence[str], statements: Iterable[str]) -> list[int] | None:
    """How many rows each of `statements` changed, in a transaction of one round trip; None: nothing is stored, since
    somebody else has stored trades of `symbols` after this connection did."""
    try:
        return execute(connection, "BEGIN", _lock(connection, tuple(symbols)), *statements, "COMMIT")[2:-1]
    except mysql.connector.IntegrityError as error:
        _roll_back(connection)
        if error.errno != mysql.connector.errorcode.ER_BAD_NULL_ERROR:
            raise
        return None
    except BaseException:
        connection.spans.clear()
        _roll_back(connection)
        raise


def _lock(connection: Connection, symbols: tuple[str, ...]) -> str:
    """Locks the rows as _begin does. Another writer's token becomes NULL, which the column refuses with an error."""
    if symbols not in connection.locks:
        rows = ", ".join(["(%s, %s)"] * len(symbols))
        sql = f"INSERT INTO writers (symbol, token) VALUES {rows}"
        sql += " ON DUPLICATE KEY UPDATE token = IF(writers.token = %s, writers.token, NULL)"
        mine = connection.token
        values = [value for symbol in symbols for value in (symbol, mine)]
        connection.locks[symbols] = sent(connection, sql, [*values, mine])
    return connection.locks[symbols]


def _roll_back(connection: Connection) -> None:
    with suppress(mysql.connector.Error):
        execute(connection, "ROLLBACK")


def _begin(connection: Connection, symbols: Sequence[str]) -> dict[str, int]:
    """The tokens of `symbols`, whose rows are locked; a symbol that is new gets its row."""
    marks = ", ".join(["%s"] * len(symbols))
    sql = f"SELECT symbol, token FROM writers WHERE symbol IN ({marks}) ORDER BY symbol FOR UPDATE"
    tokens = dict(select(connection, sql, symbols, before="BEGIN"))
    if len(tokens) < len(symbols):
        rows = ", ".join(["(%s, 0)"] * len(symbols))
        run(connection, f"INSERT INTO writers VALUES {rows} ON DUPLICATE KEY UPDATE token = writers.token", symbols)
        tokens = dict(select(connection, sql, symbols))
    return tokens


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """A block whose statements all see the tables as they are now, whatever is stored meanwhile."""
    execute(
        connection,
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    )
    try:
        yield
    finally:
        with suppress(mysql.connector.Error):
            execute(connection, "COMMIT")
