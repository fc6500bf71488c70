"""Sessions of the database: setting one up, sending statements.

storage/ and db.py are the only Python that knows SQL or the driver.
"""

import logging
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import mysql.connector
from mysql.connector import errorcode
from mysql.connector.connection import MySQLConnection
from mysql.connector.errors import get_mysql_exception

import config
from model.gaps import Span
from model.trade import Trade
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
REQUEST_BYTES_MAX = 4 * 2**20
"""Of the statements that are sent together: more than ever is; the server's max_allowed_packet may be less."""
REQUEST_BYTES_MIN = 64 * 2**10
"""A server that takes less cannot be used: some statements cannot be made shorter."""

TOKEN_BITS = 24
"""So many of a token's bits count; the others belong to one connection."""

log = logging.getLogger("database")


class Manners:
    """What a server, or a proxy before it, takes, as this process has found out; for all connections to it.

    `singly`: one statement at a time. `bytes_max`: in a request.
    """

    def __init__(self) -> None:
        self.singly = False
        self.bytes_max = REQUEST_BYTES_MAX
        self._suspect = 0

    def take_in(self, bytes_max: int) -> None:
        """The server says how long a request may be."""
        self.bytes_max = min(self.bytes_max, bytes_max)

    def refuse_several(self, why: object) -> None:
        """Several statements in a request were refused."""
        if not self.singly:
            self.singly = True
            log.warning(
                "the server, or a proxy before it, does not take several statements in a request (%s): from now on each"
                " is sent by itself, which is slower",
                why,
            )

    def lose(self, size: int, certain: bool) -> None:
        """The connection was lost right after a request of `size` bytes. If that is no accident, it was too long."""
        if size <= REQUEST_BYTES_MIN:
            return
        if not certain and not self._suspect:
            self._suspect = size
            return
        self._suspect = 0
        self.bytes_max = max(REQUEST_BYTES_MIN, min(self.bytes_max, size) // 2)
        log.warning(
            "a request of %d bytes ends the connection: from now on they have at most %d. Does a proxy allow less than"
            " the server's max_allowed_packet?",
            size,
            self.bytes_max,
        )

    def succeed(self, size: int) -> None:
        """A request of `size` bytes was answered."""
        if size >= self._suspect // 2:
            self._suspect = 0


_manners: dict[tuple[str | None, int, str | None], Manners] = {}
"""By host, port and socket: of the one or two servers that a process uses."""


Row = tuple[bytes | None, ...]
"""As the server writes it."""


class Connection(_Driver):
    """A driver connection that remembers which ids are accounted for and, on request, the statements that it sent.

    `asked`: set it to a list, and each SELECT is appended as it was sent, with its values. `opening`: statements
    without rows that are sent together with the next SELECT. `one_moment`: whether it is in a snapshot, begun at
    `moment` (time.monotonic()) or later. `takes_files`: whether the server may ask for a file, and has not refused to.
    `as_text`: rows are not made Python's values.
    `certified`: the server is a node of a Galera cluster (storage/transaction.py).
    `files`: the folder of the days that are in Parquet files. `retained`: up to when each symbol has such days, and
    when that was asked (storage/retained.py).
    """

    manners = Manners()
    asked: list[str] | None = None
    opening: tuple[str, ...] = ()
    one_moment = False
    moment = 0.0
    takes_files = False
    as_text = False
    certified = False
    files = Path()
    retained: tuple[float, dict[str, datetime]] | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # Its own, and as many above it (storage/transaction.py).
        self.token = secrets.randbits(63 - TOKEN_BITS) << TOKEN_BITS
        self.spans: dict[str, Span] = {}
        # Those of which the highest id was read by its time, and not proven yet (storage/gaps.py).
        self.unproven: set[str] = set()
        # The newest trade of each symbol, by its row, when they were last asked for.
        self.newest: dict[Row, Trade] = {}


def close(connection: Connection) -> None:
    """Closes `connection`, which may already be dead."""
    with suppress(mysql.connector.Error):
        connection.close()


def is_fast() -> bool:
    """Whether the driver's C extension is in use; without it a batch over TCP stalls for 40 ms."""
    return not issubclass(Connection, MySQLConnection)


def open_session(
    settings: config.Settings, database: str | None, read_s_max: int, files_from: Path | None = None
) -> Connection:
    """A session on the configured server: UTC, strict, utf8mb4, READ COMMITTED, autocommit; `files_from`: the folder of
    which the server may ask for files (None: of none). Raises the driver's errors, and FatalError for a server
    that does not offer the TLS that is required."""
    options: dict[str, Any] = {"host": settings.mysql_host or "localhost", "port": settings.mysql_port}
    if settings.mysql_unix_socket:
        options = {"unix_socket": settings.mysql_unix_socket}
    elif settings.mysql_ssl_ca:
        options |= {"ssl_ca": settings.mysql_ssl_ca, "ssl_verify_cert": True}
    if files_from is not None:
        options["allow_local_infile_in_path"] = str(files_from.resolve())
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
        compress=settings.mysql_compress and "host" in options,
        **options,
    )
    where = settings.mysql_host, settings.mysql_port, settings.mysql_unix_socket
    if settings.needs_tls and not _is_encrypted(connection):
        connection.close()
        raise FatalError(_PLAIN_WITH_CA if settings.mysql_ssl_ca else _plain(settings))
    connection.manners = _manners.setdefault(where, Manners())
    connection.takes_files = files_from is not None
    connection.files = settings.retained_dir
    # With the question that follows them, in one request.
    connection.opening = (
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE",
        "SET time_zone = '+00:00',"
        " sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO',"
        # The second is for a table whose columns are being changed, which by default is waited for a day or a year.
        f" innodb_lock_wait_timeout = {LOCK_WAIT_S_MAX}, lock_wait_timeout = {max(1, read_s_max // 2)}, {_NO_DEFAULTS}",
    )
    packet_bytes, connection.certified = _introduction(connection)
    if packet_bytes < REQUEST_BYTES_MIN:
        connection.close()
        raise FatalError(
            f"the server's max_allowed_packet is {packet_bytes} bytes, and this program needs {REQUEST_BYTES_MIN} or"
            " more: set it in the server's configuration"
        )
    connection.manners.take_in(packet_bytes - PACKET_BYTES)
    if connection.certified:
        # A node may be behind the others: what was committed before a question is waited for.
        run(connection, "SET SESSION wsrep_sync_wait = 1")
    return connection


def _is_encrypted(connection: Connection) -> bool:
    """The driver checks the certificate of a server that has one, but silently goes without TLS if there is none."""
    if is_fast():
        return bool(connection._cmysql.get_ssl_cipher())  # type: ignore[union-attr]
    return connection.is_secure


_PLAIN_WITH_CA = "MYSQL_SSL_CA is set, but the server at MYSQL_HOST does not offer TLS"


def _plain(settings: config.Settings) -> str:
    where = config.address(settings.mysql_host or "", settings.mysql_port)
    return (
        f"the server at {where} does not offer TLS, and without it others on the way can read and change what is sent:"
        " switch TLS on there, and set MYSQL_SSL_CA, which checks its certificate; or set MYSQL_TLS=off"
    )


def _introduction(connection: Connection) -> tuple[int, bool]:
    """How long a request may be in bytes, and whether the server is a node of a Galera cluster."""
    try:
        row = select(connection, "SELECT @@max_allowed_packet /*M!100101 , @@wsrep_on */")[0]
    except mysql.connector.Error as error:
        # A MariaDB that was built without Galera.
        if error.errno != errorcode.ER_UNKNOWN_SYSTEM_VARIABLE:
            raise
        row = select(connection, "SELECT @@max_allowed_packet")[0]
    return row[0], row[1:] == (1,)


_NO_DEFAULTS = (
    # A limit would cut answers, silently; the second lets a question read as much as it needs, whatever max_join_size.
    "sql_select_limit = 18446744073709551615, sql_big_selects = 1,"
    # After a COMMIT nothing may be open, and no other time limit may hold than ours.
    " completion_type = 0 /*M!100101 , max_statement_time = 0 */ /*!80000 , max_execution_time = 0 */,"
    " sql_safe_updates = 0, sql_auto_is_null = 0, unique_checks = 1,"
    " max_sort_length = 1024, div_precision_increment = 4"
)
"""What a server's defaults may set differently and an answer depends on. Not DEFAULT, which is the server's own."""
PACKET_BYTES = 1_024
"""Room for what the protocol adds to a statement."""


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


def end_raw(connection: Connection) -> None:
    """Lets the values of rows become Python's again, which the driver forgets after a raw cursor."""
    if is_fast():
        connection._cmysql.raw(False)  # type: ignore[union-attr]


def execute(connection: Connection, *statements: str) -> list[int]:
    """How many rows each of `statements` changed; they are sent together, and the first that fails ends the rest.

    In as many requests as the server needs. Raises the driver's errors; SEVERAL_REFUSED if it does not take several in
    one, which is known from then on: repeat.
    """
    changed: list[int] = []
    for part in _requests(connection, statements):
        changed += _send(connection, part)
    return changed


SEVERAL_REFUSED = -1064
"""Our own error number."""
_TOO_LONG = (errorcode.ER_NET_PACKET_TOO_LARGE,)
_LOST = (2006, 2013, 2055)


def _requests(connection: Connection, statements: Sequence[str]) -> Iterator[Sequence[str]]:
    """`statements` in parts that the server takes at once."""
    if _singly(connection):
        yield from ((statement,) for statement in statements)
        return
    part: list[str] = []
    size = 0
    for statement in statements:
        length = _bytes_max(statement) + 2
        if part and size + length > connection.manners.bytes_max:
            yield part
            part, size = [], 0
        part.append(statement)
        size += length
    if part:
        yield part


def _singly(connection: Connection) -> bool:
    # A node of a Galera cluster may undo a transaction between two statements of a request, and runs what comes after
    # them as if it had never begun.
    return connection.certified or connection.manners.singly or not is_fast()


def _bytes_max(statement: str) -> int:
    # Most have ASCII characters only; UTF-8 has at most four bytes for one.
    return len(statement) if statement.isascii() else 4 * len(statement)


def _send(connection: Connection, part: Sequence[str]) -> list[int]:
    request = "; ".join(part)
    manners, size = connection.manners, len(request)
    try:
        changed = [_changed(connection.cmd_query(request))]
        while len(part) > 1 and _next_result(connection):
            changed.append(_changed(connection.fetch_eof_status()))
    except mysql.connector.Error as error:
        if error.errno in _TOO_LONG or error.errno in _LOST:
            manners.lose(size, certain=error.errno in _TOO_LONG)
        if error.errno == errorcode.ER_PARSE_ERROR and len(part) > 1:
            raise _several_refused(manners, error) from error
        raise
    if len(changed) != len(part):
        raise _several_refused(manners, f"{len(changed)} results of {len(part)} statements")
    manners.succeed(size)
    return changed


def _several_refused(manners: Manners, why: object) -> mysql.connector.Error:
    manners.refuse_several(why)
    return mysql.connector.OperationalError(f"several statements in a request: {why}", errno=SEVERAL_REFUSED)


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


def select_texts(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
    """All rows of a query, as the server writes them: for who has seen most of them before."""
    connection.as_text = True
    try:
        rows = select(connection, sql, parameters)
        return rows if is_fast() else [tuple(None if one is None else bytes(one) for one in row) for row in rows]
    finally:
        connection.as_text = False
        end_raw(connection)


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
        with connection.cursor(raw=connection.as_text) as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())
    if opening and not _singly(connection):
        try:
            connection.cmd_query("; ".join([*opening, statement]))
            if all([_next_result(connection) for _ in opening]):
                return list(connection.get_rows(raw=connection.as_text)[0])
            why: object = "not all had a result"
        except mysql.connector.Error as error:
            if error.errno != errorcode.ER_PARSE_ERROR:
                raise
            why = error
        connection.manners.refuse_several(why)
    for one in opening:
        execute(connection, one)
    connection.cmd_query(statement)
    return list(connection.get_rows(raw=connection.as_text)[0])
