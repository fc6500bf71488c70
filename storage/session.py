"""Sessions of the database: setting one up, sending statements.

storage/ and db.py are the only Python that knows SQL or the driver.
"""

import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import mysql.connector
from mysql.connector.connection import MySQLConnection
from mysql.connector.errors import get_mysql_exception

import config
from model.gaps import Span
from storage.errors import FatalError, RefusedError

try:
    from _mysql_connector import MySQLInterfaceError  # type: ignore[import-not-found]
    from mysql.connector.connection_cext import CMySQLConnection as _Driver
except ImportError:  # The wheel's C extension does not load here: still correct, but several times slower.
    _Driver = MySQLConnection  # type: ignore[assignment, misc]
    MySQLInterfaceError = mysql.connector.Error

CONNECT_S_MAX = 5
WRITE_S_MAX = 10
"""A server that does not take or answer a writer's statement within this time counts as gone."""
READ_S_MAX = 300
LOCK_WAIT_S_MAX = 5


class Connection(_Driver):
    """A driver connection that remembers which ids are accounted for and, on request, the statements that it sent.

    `asked`: set it to a list, and each SELECT is appended as it was sent, with its values. `opening`: statements
    without rows that are sent together with the next SELECT. `one_moment`: whether it is in a snapshot.
    """

    asked: list[str] | None = None
    opening: tuple[str, ...] = ()
    one_moment = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.token = secrets.randbits(63)
        self.spans: dict[str, Span] = {}


def close(connection: Connection) -> None:
    """Closes `connection`, which may already be dead."""
    with suppress(mysql.connector.Error):
        connection.close()


def is_fast() -> bool:
    """Whether the driver's C extension is in use; without it a batch over TCP stalls for 40 ms."""
    return not issubclass(Connection, MySQLConnection)


def open_session(settings: config.Settings, database: str | None, read_s_max: int) -> Connection:
    """A session on the configured server: UTC, strict, utf8mb4, READ COMMITTED, autocommit. Raises the driver's errors,
    and FatalError if MYSQL_SSL_CA asks for what the server does not offer."""
    options: dict[str, Any] = {"host": settings.mysql_host or "localhost", "port": settings.mysql_port}
    if settings.mysql_unix_socket:
        options = {"unix_socket": settings.mysql_unix_socket}
    elif settings.mysql_ssl_ca:
        options |= {"ssl_ca": settings.mysql_ssl_ca, "ssl_verify_cert": True}
    connection = Connection(
        user=settings.mysql_user,
        password=settings.mysql_password,
        database=database,
        # Every version of both families knows this collation, which is not true of the driver's default.
        charset="utf8mb4",
        collation="utf8mb4_bin",
        autocommit=True,
        connection_timeout=CONNECT_S_MAX,
        read_timeout=read_s_max,
        write_timeout=WRITE_S_MAX,
        **options,
    )
    run(connection, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
    run(
        connection,
        "SET time_zone = '+00:00',"
        " sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO',"
        # The second is for a table whose columns are being changed, which by default is waited for a day or a year.
        f" innodb_lock_wait_timeout = {LOCK_WAIT_S_MAX}, lock_wait_timeout = {max(1, read_s_max // 2)}",
    )
    # The driver checks the certificate of a server that has one, but silently goes without TLS if there is none.
    if "ssl_ca" in options and not select(connection, "SHOW SESSION STATUS LIKE 'Ssl_cipher'")[0][1]:
        connection.close()
        raise FatalError("MYSQL_SSL_CA is set, but the server at MYSQL_HOST does not offer TLS")
    return connection


def sent(connection: Connection, sql: str, parameters: Sequence[Any]) -> str:
    """`sql` with its parameters in place of each %s, written and quoted by the driver."""
    pieces = sql.split("%s")
    try:
        values = connection.prepare_for_mysql(tuple(parameters)) if parameters else ()
    except MySQLInterfaceError as error:
        # The driver needs the connection for this, and says only that it failed.
        if connection.is_connected():
            raise RefusedError(f"a value that is not UTF-8 text: {error}") from error
        raise get_mysql_exception(2006, msg="the connection is closed") from error
    return "".join(piece + value.decode() for piece, value in zip(pieces, [*values, b""], strict=True))


def execute(connection: Connection, *statements: str) -> list[int]:
    """How many rows each of `statements` changed; they are sent together, and the first that fails ends the rest."""
    if not is_fast():
        return [_changed(connection.cmd_query(statement)) for statement in statements]
    changed = [_changed(connection.cmd_query("; ".join(statements)))]
    while _next_result(connection):
        changed.append(_changed(connection.fetch_eof_status()))
    return changed


def _next_result(connection: Connection) -> bool:
    """Whether there is another result; moves on to that of the next statement that was sent."""
    try:
        return bool(connection.next_result())
    except MySQLInterfaceError as error:
        raise get_mysql_exception(error.errno, msg=error.msg, sqlstate=error.sqlstate) from error


def _changed(result: Any) -> int:
    return int(result["affected_rows"])


def run(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> int:
    """The number of rows that a statement changed."""
    return execute(connection, sent(connection, sql, parameters))[0]


def select(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
    """All rows of a query, as the driver gives them.

    Not through a cursor, which would ask each time whether the server is still there.
    """
    opening, connection.opening = connection.opening, ()
    statement = sent(connection, sql, parameters)
    if connection.asked is not None:
        connection.asked.append(statement)
    if not is_fast():
        for one in opening:
            execute(connection, one)
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())
    connection.cmd_query("; ".join([*opening, statement]))
    for _ in opening:
        _next_result(connection)
    return list(connection.get_rows()[0])
