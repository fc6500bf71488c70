"""Transactions: how several writers agree on what is missing and what is sealed, and how a reader sees one moment.

Two captures, or a capture and a back-fill, may store trades of one symbol at the same time. Each remembers which ids
are accounted for (Connection.spans), and a gap row is right only if that memory is. So the table `symbols` has a row
per symbol with the token of the connection that stored last: a transaction locks the rows of its symbols, and where
it finds another token it forgets what it remembered and reads the spans from the tables. In the same row stands before
which time no trade may be stored without looking (`fence`; storage/sealing.py).

The ordinary case asks for both in the statements that store, so it takes one round trip: store_few for the few trades
of a calm market, store_at_once for many. They store nothing of a symbol whose row is not as expected; the caller then
repeats the batch with transaction(), which looks before it stores.

The nodes of a Galera cluster do not see each other's locks: of two transactions on two nodes that have changed the same
row, the one that commits last is undone (an error of the COMMIT, ContentionError). So there, on connections that are
`certified`, each transaction changes the rows of its symbols: it counts the token up. A connection owns as many tokens
as that may take: those from Connection.token on.
"""

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, ParamSpec, TypeVar, cast

import mysql.connector
from mysql.connector import errorcode

from model.times import EPOCH
from storage.errors import DatabaseError, guard
from storage.session import TOKEN_BITS, Connection, execute, run, select
from storage.values import aware, marks, quoted

P = ParamSpec("P")
T = TypeVar("T")


class State(NamedTuple):
    """The row of a symbol in `symbols`."""

    token: int
    sealed_until: datetime | None
    fence: datetime


@dataclass
class Work:
    """A transaction that stores trades: the `states` of the locked symbols; the `last` statements, which come from the
    block and are sent together with the COMMIT; afterwards how many rows each of these `changed`."""

    states: dict[str, State]
    last: Iterable[str] = ()
    changed: Sequence[int] = ()


@contextmanager
def transaction(connection: Connection, symbols: Sequence[str], begun: bool = False) -> Iterator[Work]:
    """A transaction in which nobody else can store trades of `symbols`; rolled back by what the block raises.

    `begun`: it has begun already, and the rows of the symbols are locked from here on.
    """
    try:
        work = Work(_begin(connection, symbols, begun))
        yield work
        last = list(work.last)
        count = [_count_up(symbols)] if connection.certified else []
        work.changed = execute(connection, *last, *count, "COMMIT")[: len(last)]
    except BaseException:
        # Whether a COMMIT that failed took effect is unknown, so nothing that was remembered can be trusted.
        connection.spans.clear()
        roll_back(connection)
        raise


def store_at_once(
    connection: Connection, symbols: Sequence[str], earliest: str, statements: Iterable[str]
) -> list[int] | None:
    """How many rows each of `statements` changed, in a transaction of one round trip; `earliest`: the time of the
    earliest trade in SQL. None: nothing is stored, since somebody else has stored trades of one of `symbols` after this
    connection did, or since a trade is before its fence."""
    names = ", ".join(map(quoted, symbols))
    # NULL, which the column refuses, fails the whole transaction before anything is stored.
    token = "token + 1" if connection.certified else "token"
    look = f"UPDATE symbols SET token = IF({_expected(connection, earliest)}, {token}, NULL) WHERE symbol IN ({names})"
    try:
        return execute(connection, "BEGIN", look, *statements, "COMMIT")[2:-1]
    except mysql.connector.IntegrityError as error:
        roll_back(connection)
        if error.errno != errorcode.ER_BAD_NULL_ERROR:
            raise
        return None
    except BaseException:
        connection.spans.clear()
        roll_back(connection)
        raise


def store_few(
    connection: Connection, insert: str, rows: Sequence[tuple[str, str]], earliest: str, repeated: str
) -> int:
    """How many of `rows` (symbol, values in SQL) were stored: those that are new, of the symbols whose row is as
    store_at_once wants it. By one statement, which costs the server a fifth less than a transaction. Not on connections
    that are certified: it changes no row of a symbol.

    `insert` and `repeated`: the statement up to the values, and what it does with a row that is there.
    """
    expected = _expected(connection, earliest)
    # The lock is as good as an UPDATE's: who takes it sees the row as it is, and holds it until the commit. Several are
    # taken in the order of their symbols, as by the other ways to store, so that nobody crosses anybody.
    parts = [
        f"SELECT {values} FROM symbols WHERE symbol = {quoted(symbol)} AND {expected} FOR UPDATE"
        for symbol, values in sorted(rows)
    ]
    query = parts[0] if len(parts) == 1 else " UNION ALL ".join(f"({part})" for part in parts)
    try:
        return execute(connection, f"{insert} {query} {repeated}")[0]
    except BaseException:
        connection.spans.clear()
        raise


def _expected(connection: Connection, earliest: str) -> str:
    own = own_tokens(connection)
    return f"token BETWEEN {own.start:d} AND {own.stop - 1:d} AND fence <= {earliest}"


def own_tokens(connection: Connection) -> range:
    """Those by which a connection knows that it was the last to store."""
    return range(connection.token, connection.token + (1 << TOKEN_BITS))


def _count_up(symbols: Sequence[str]) -> str:
    return f"UPDATE symbols SET token = token + 1 WHERE symbol IN ({', '.join(map(quoted, symbols))})"


def roll_back(connection: Connection) -> None:
    """Ends a transaction without its changes; if that fails, the server does it by itself."""
    with suppress(mysql.connector.Error):
        execute(connection, "ROLLBACK")


_STATES = "SELECT symbol, token, sealed_until, fence FROM symbols WHERE symbol IN ({}) ORDER BY symbol"


def _states(rows: Iterable[tuple[str, int, datetime | None, datetime]]) -> dict[str, State]:
    return {symbol: State(token, aware(until), aware(fence)) for symbol, token, until, fence in rows}


def _begin(connection: Connection, symbols: Sequence[str], begun: bool) -> dict[str, State]:
    """The rows of `symbols`, which are locked; a symbol that is new gets one."""
    sql = _STATES.format(marks(symbols)) + " FOR UPDATE"
    connection.opening = () if begun else ("BEGIN",)
    found = _states(select(connection, sql, symbols))
    if len(found) < len(symbols):
        rows = ", ".join(["(%s, 0)"] * len(symbols))
        insert = f"INSERT INTO symbols (symbol, token) VALUES {rows}"
        run(connection, f"{insert} ON DUPLICATE KEY UPDATE token = symbols.token", symbols)
        found = _states(select(connection, sql, symbols))
    return found


def pull_down_fence(connection: Connection, symbol: str, state: State, earliest: datetime) -> None:
    """Stops a sealing that is under way, whose bars would be without the trade at `earliest`; the row is locked."""
    sealed = state.sealed_until or EPOCH
    if earliest < state.fence and state.fence != sealed:
        run(connection, "UPDATE symbols SET fence = COALESCE(sealed_until, '1970-01-01') WHERE symbol = %s", (symbol,))


SNAPSHOT_TRIES = 3


def in_snapshot(function: Callable[P, T]) -> Callable[P, T]:
    """`function(connection, …)`, all of whose statements see one moment: that of the caller, if it is in a snapshot.

    It is called again if a table's columns were changed in that moment, as by a migration: then what the moment has
    seen of the table cannot be read any more.
    """

    @guard
    @functools.wraps(function)
    def at_one_moment(*args: P.args, **kwargs: P.kwargs) -> T:
        connection = cast("Connection", args[0])
        if connection.one_moment:
            return function(*args, **kwargs)
        for tries_left in reversed(range(SNAPSHOT_TRIES)):
            try:
                with snapshot(connection):
                    return function(*args, **kwargs)
            except (mysql.connector.Error, DatabaseError) as error:
                # What `function` calls may have made it one of ours.
                number = getattr(error.__cause__ or error, "errno", None)
                if number != errorcode.ER_TABLE_DEF_CHANGED or not tries_left:
                    raise
        raise AssertionError("the last try returns or raises")

    return at_one_moment


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """A block whose questions all see the tables as the first one does, whatever is stored meanwhile."""
    # Sent with the first question, which thereby is the moment.
    connection.opening = (
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    )
    connection.one_moment, connection.moment = True, time.monotonic()
    try:
        yield
    finally:
        connection.opening, connection.one_moment = (), False
        with suppress(mysql.connector.Error):
            execute(connection, "COMMIT")
