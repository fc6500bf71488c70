"""The class of a database error says what a caller can do about it; one table maps the error numbers to classes.

The numbers are those of MySQL's server and client error references and of MariaDB's; 8002, 8022 and 9007 are TiDB's.
"""

import functools
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import mysql.connector

from model.trade import Trade

P = ParamSpec("P")
T = TypeVar("T")


class DatabaseError(Exception):
    """Any error of this module; raised itself for a number that the table does not have."""


class GoneError(DatabaseError):
    """The server is away or the connection is dead: reconnect, then repeat."""


class ContentionError(DatabaseError):
    """A deadlock, a lock that could not be had in time, or a candle that somebody else has just made: repeat."""


class NotWritableError(DatabaseError):
    """The server is full or read-only: repeat, but slowly."""


class RefusedError(DatabaseError):
    """The data is refused, and will be refused each time."""


class FatalError(DatabaseError):
    """Only the operator can help; the message names the setting."""


class AccessError(FatalError):
    """The server does not let this account in."""


class FileError(FatalError):
    """Trades that are in a Parquet file cannot be read; the message names the file, and what helps."""


class NothingError(FatalError):
    """Nothing was captured there yet."""


class RetainedError(DatabaseError):
    """The trades are of a day that is in a Parquet file, and not in it: they can be stored once the day is restored.

    `missing`: of each such day the trades, and the words about them; empty where a whole range is refused.
    """

    def __init__(self, words: str, missing: Sequence[tuple[str, Sequence[Trade]]] = ()) -> None:
        super().__init__(words)
        self.missing = missing


class OtherHistoryError(FatalError):
    """The trades are not of the history that is stored: their ids begin anew."""


_GONE: tuple[int, ...] = (1040, 1043, 1047, 1053, 1077, 1079, 1080, 1129, 1135, 1152, 1156, 1157, 1158, 1159, 1160)
_GONE += (1161, 1184, 1203, 1226, 1317, 1927, 3032, 3168)
_GONE += (1153, 1969, 2001, 2002, 2003, 2004, 2005, 2006, 2012, 2013, 2014, 2024, 2026, 2027, 2055, 3024, 3169, 4031)
# Those of a cluster: a commit whose outcome is not known, a group that is changing, a shard of Spider that is away.
_GONE += (1180, 1429, 3100, 3796, 3797, 3798, 12701)
# 1062, a duplicate, is no fault of the data: repeats of trades are let pass, so it is two who make the same candle.
_CONTENTION = (-1064, 1020, 1062, 1205, 1206, 1213, 1412, 1614, 3058, 3101, 3572, 8002, 8022, 9007)
_NOT_WRITABLE = (3, 28, 1021, 1026, 1030, 1036, 1037, 1038, 1041, 1114, 1290, 1792, 1836, 1878, 3675)
_REFUSED = (1048, 1264, 1265, 1292, 1366, 1369, 1406, 1411, 1644, 1690, 3819, 4025)
_LOGIN = (1045, 1130, 1251, 1698, 1820, 1862, 2059, 3118, 4151)
_TLS = (2061, 3159)
_ACCESS = (1044, 1142, 1143, 1227)
_SCHEMA = (1046, 1049, 1054, 1109, 1146, 1356)
_MISSING = (1049, 1146)
_CLASSES: dict[int, type[DatabaseError]] = {
    errno: error
    for errnos, error in (
        (_GONE, GoneError),
        (_CONTENTION, ContentionError),
        (_NOT_WRITABLE, NotWritableError),
        (_REFUSED, RefusedError),
        (_LOGIN, AccessError),
        (_TLS, AccessError),
        (_ACCESS, FatalError),
        (_SCHEMA, FatalError),
    )
    for errno in errnos
}
_NOTHING_YET = "check MYSQL_DATABASE; nothing was captured yet? run `python ws_client.py` or `make demo`"
_WAY_OUT = {
    **dict.fromkeys(
        (*_LOGIN, *_ACCESS), "check MYSQL_USER and MYSQL_PASSWORD, and that user's rights (docs/operations.md)"
    ),
    **dict.fromkeys(_SCHEMA, "check MYSQL_DATABASE; if it was dropped, restart to create it again"),
    **dict.fromkeys(_MISSING, _NOTHING_YET),
    2026: "check MYSQL_SSL_CA",
    **dict.fromkeys(
        _TLS,
        "this account may log in over TLS only: set MYSQL_SSL_CA, with TLS switched on in the server, or use"
        " MYSQL_UNIX_SOCKET; the password is not what is wrong",
    ),
    **dict.fromkeys((2002, 2003, 2005), "check MYSQL_HOST, MYSQL_PORT or MYSQL_UNIX_SOCKET; does the server run?"),
}


def translated(error: mysql.connector.Error) -> DatabaseError:
    errno = error.errno or 0
    # The driver reports a connection that is no longer there as "not connected", with no number of its own.
    dead = errno == -1 and isinstance(error, mysql.connector.OperationalError | mysql.connector.InterfaceError)
    kind = GoneError if dead else _CLASSES.get(errno, DatabaseError)
    words = f"{error.msg or error} (error {errno})"
    return kind(f"{words}; {_WAY_OUT[errno]}" if errno in _WAY_OUT else words)


def guard(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, with the driver's exceptions turned into this module's."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except mysql.connector.Error as error:
            raise translated(error) from error

    return guarded
