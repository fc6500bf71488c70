"""Coming to the database: which server it is, creating what is missing, bringing it to the version of this program."""

from pathlib import Path

import mysql.connector

import config
from mysqld import shared
from mysqld.program import ServerError
from storage import schema, session
from storage.errors import FatalError, GoneError, NothingError, guard
from storage.nodes import open_session
from storage.session import Connection, close, run

SCHEMA_S_MAX = 3_600
"""Changing the columns of a large table may take this long; most servers do it at once."""


@guard
def connect(
    settings: config.Settings | None = None,
    *,
    read_only: bool = False,
    create: bool = True,
    read_s_max: int | None = None,
    files_from: Path | None = None,
) -> Connection:
    """A connection to the database of `settings` (default: the environment's), which is created if missing.

    UTC, strict, utf8mb4, READ COMMITTED, autocommit. With `read_only` the session cannot write. With that, or without
    `create`, nothing is created, neither a database nor a private server. Without a configured server the private one
    is used. `files_from`: the only folder of which the server may ask for files. Raises GoneError, FatalError;
    NothingError if nothing was captured there and nothing may be created.
    """
    settings = settings or config.load()
    create = create and not read_only
    if settings.private:
        if not create and not _has_private_data(settings.data_dir):
            raise NothingError(f"nothing was captured in DATA_DIR={settings.data_dir} yet: {_BEGIN}")
        settings = settings._replace(
            mysql_unix_socket=_private_socket(settings.data_dir), mysql_user="root", mysql_password=""
        )
    if read_only:
        connection = open_session(settings, settings.mysql_database, read_s_max or session.READ_S_MAX, writes=False)
        connection.opening = ("SET SESSION TRANSACTION READ ONLY",)
        _require_tables(connection, settings)
        return connection
    try:
        connection = open_session(settings, settings.mysql_database, read_s_max or session.WRITE_S_MAX, files_from)
    except mysql.connector.Error as error:
        if error.errno != mysql.connector.errorcode.ER_BAD_DB_ERROR or not create:
            raise
        _create_database(settings)
        connection = open_session(settings, settings.mysql_database, read_s_max or session.WRITE_S_MAX, files_from)
    if not create:
        _require_tables(connection, settings)
    if not schema.is_current(connection):
        patient = open_session(settings, settings.mysql_database, SCHEMA_S_MAX)
        try:
            schema.apply(patient)
        finally:
            close(patient)
    return connection


_BEGIN = "run `python ws_client.py`, or `make demo`"


def _has_private_data(data_dir: Path) -> bool:
    try:
        return shared.has_data(data_dir)
    except ServerError as error:
        raise FatalError(str(error)) from error


def _require_tables(connection: Connection, settings: config.Settings) -> None:
    """Raises NothingError if there are none, and FatalError if they are another program's."""
    if not schema.exists(connection):
        close(connection)
        raise NothingError(f"nothing was captured in database {settings.place} yet: {_BEGIN}")


def _private_socket(data_dir: Path) -> str:
    """The socket of the private server. If it cannot be started, only the operator can help; if it ran for this process
    and is gone, it is worth another try."""
    try:
        return str(shared.use(data_dir))
    except shared.ServerGoneError as error:
        raise GoneError(str(error)) from error
    except ServerError as error:
        raise FatalError(str(error)) from error


def _create_database(settings: config.Settings) -> None:
    connection = open_session(settings, None, session.WRITE_S_MAX)
    # config.py lets only letters, digits and _ into the name; a name cannot be a parameter.
    run(connection, f"CREATE DATABASE IF NOT EXISTS `{settings.mysql_database}` CHARACTER SET utf8mb4")
    connection.close()
