"""The nodes of MYSQL_HOST: a session is opened on the first one, in their order, that answers and does what is wanted.

A node that does not answer is passed over, as is one of a cluster that is not ready or that is not in its group, and
for a writer one that is read only, as the secondaries of a group are. All programs use the same list, so they write to
the same node as long as it lives, and nobody there is in anybody's way. If no node serves, the usual back-off of the
callers begins again at the first one.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mysql.connector
from mysql.connector import errorcode

import config
from storage import session
from storage.errors import DatabaseError, GoneError, NotWritableError, translated
from storage.session import Connection, close, select

log = logging.getLogger("database")

_passed_over: set[tuple[str, int, bool]] = set()
"""Host, port and whether it was to write: each is said once, until that node serves again."""


def open_session(
    settings: config.Settings,
    database: str | None,
    read_s_max: int,
    files_from: Path | None = None,
    *,
    writes: bool = True,
) -> Connection:
    """session.open_session() on the first node that serves; the only one is taken as it is.

    Raises the driver's errors and those of session.open_session(); of several nodes of which none serves, GoneError, or
    NotWritableError if all of them are read only.
    """
    nodes = settings.nodes if settings.mysql_host and not settings.mysql_unix_socket else ()
    if len(nodes) <= 1:
        one = settings._replace(mysql_host=nodes[0][0], mysql_port=nodes[0][1]) if nodes else settings
        return session.open_session(one, database, read_s_max, files_from)
    reasons: list[DatabaseError] = []
    for host, port in nodes:
        node = settings._replace(mysql_host=host, mysql_port=port)
        try:
            connection = session.open_session(node, database, read_s_max, files_from)
            _check_serves(connection, writes)
        except (mysql.connector.Error, GoneError, NotWritableError) as error:
            reason = translated(error) if isinstance(error, mysql.connector.Error) else error
            if not isinstance(reason, GoneError | NotWritableError):
                raise
            reasons.append(_pass_over((host, port, writes), reason))
        else:
            _take((host, port, writes), connection)
            return connection
    raise _none_serves(nodes, reasons)


def _check_serves(connection: Connection, writes: bool) -> None:
    """Raises GoneError for a node that is not ready, and NotWritableError for one that takes no writes."""
    try:
        if connection.certified and select(connection, "SHOW STATUS LIKE 'wsrep_ready'")[0][1] != "ON":
            raise GoneError("its cluster is not ready")
        read_only, *states = _introduced(connection)
        # One that is not in the group may take writes, which the group never gets.
        if states and states[0] not in (None, "ONLINE"):
            raise GoneError(f"it is no member of its group now ({states[0]})")
        # A number, and in later versions of MariaDB a word.
        if writes and str(read_only) not in ("0", "OFF"):
            raise NotWritableError("it is read only")
    except BaseException:
        close(connection)
        raise


def _introduced(connection: Connection) -> tuple[Any, ...]:
    """Whether a node is read only; and of MySQL, if the account may know, its state in its group, None without one."""
    try:
        row: tuple[Any, ...] = select(connection, f"SELECT @@read_only {_STATE}")[0]
    except mysql.connector.Error as error:
        if error.errno not in _UNTOLD:
            raise
        row = select(connection, "SELECT @@read_only")[0]
    return row


_STATE = "/*!80000 , (SELECT member_state FROM performance_schema.replication_group_members"
_STATE += " WHERE member_id = @@server_uuid) */"
# The account may not ask; or it is a server that only speaks as MySQL does.
_UNTOLD = (
    errorcode.ER_TABLEACCESS_DENIED_ERROR,
    errorcode.ER_NO_SUCH_TABLE,
    errorcode.ER_BAD_DB_ERROR,
    errorcode.ER_UNKNOWN_SYSTEM_VARIABLE,
)


def _pass_over(node: tuple[str, int, bool], reason: DatabaseError) -> DatabaseError:
    if node not in _passed_over:
        _passed_over.add(node)
        log.warning("the node %s of MYSQL_HOST is passed over: %s", config.address(*node[:2]), reason)
    return reason


def _take(node: tuple[str, int, bool], connection: Connection) -> None:
    if node in _passed_over:
        _passed_over.discard(node)
        log.warning("the node %s of MYSQL_HOST is used again", config.address(*node[:2]))


def _none_serves(nodes: Sequence[tuple[str, int]], reasons: Sequence[DatabaseError]) -> DatabaseError:
    words = "; ".join(f"{config.address(*node)}: {reason}" for node, reason in zip(nodes, reasons, strict=True))
    # While a node is gone, its cluster may be choosing another one to write to.
    kind = GoneError if any(isinstance(reason, GoneError) for reason in reasons) else NotWritableError
    return kind(f"no node of MYSQL_HOST serves: {words}")
