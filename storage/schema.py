"""The schema of a database: creating it, checking what is there already, and changing a database of an earlier version.

DDL is no transaction, so each step first asks whether it is done: a migration that was killed goes on where it stopped,
and two programs that migrate at the same moment do not hurt each other. The version is written last.
"""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import mysql.connector
from mysql.connector import errorcode

from storage import session
from storage.errors import FatalError, guard
from storage.session import Connection, run, select

log = logging.getLogger("schema")

SCHEMA_FILE = Path(__file__).parent.with_name("schema.sql")
SCHEMA_VERSION = 4


class _Column(NamedTuple):
    """A column as schema.sql has it: its type as the servers spell it, and the line that adds it."""

    type: str
    nullable: bool
    collation: str | None
    line: str


class _Table(NamedTuple):
    columns: dict[str, _Column]
    key: list[str]


@guard
def is_current(connection: Connection) -> bool:
    """Whether the database has SCHEMA_VERSION. Raises FatalError for a newer one."""
    return _known_version(connection) == SCHEMA_VERSION


def _known_version(connection: Connection) -> int | None:
    """The version of the database; None: it has none. Raises FatalError for one that this program does not know."""
    version = _version(connection)
    if version is not None and version > SCHEMA_VERSION:
        raise FatalError(
            f"the database has schema version {version}, this program knows {SCHEMA_VERSION}: "
            "update the program, or set MYSQL_DATABASE to another name"
        )
    return version


@guard
def exists(connection: Connection) -> bool:
    """Whether the database has our tables, of any version. Raises FatalError if one of their names is taken."""
    if _version(connection) is not None:
        return True
    _check(connection)
    return False


@guard
def apply(connection: Connection) -> None:
    """Brings the database to SCHEMA_VERSION, from nothing or from an earlier version; does nothing if it has that.

    So an account without the right to create tables can work in a database that somebody else prepared. Raises
    FatalError for a database of a newer version, and for one whose tables are not as this program needs them: nothing
    is created in it then.
    """
    # Read once: another program may be creating the tables at this moment.
    version = _known_version(connection)
    if version == SCHEMA_VERSION:
        return
    # Whoever waits for a table to be changed holds up all who come later: rather give up soon, and try again.
    run(connection, f"SET lock_wait_timeout = {session.LOCK_WAIT_S_MAX}")
    _check(connection)
    if version is not None:
        log.warning("the database has schema version %d: it is changed to version %d now", version, SCHEMA_VERSION)
    for number, steps in sorted(_MIGRATIONS.items()):
        for step in steps if number > (version or 0) else ():
            step(connection)
    for statement in statements():
        if _VIEW not in statement or not _has_view(connection):
            run(connection, statement)
    if version is not None:
        log.warning("the database has schema version %d now", SCHEMA_VERSION)


def statements() -> list[str]:
    """The statements of schema.sql, in order, without their comments."""
    bare = re.sub(r"--.*", "", SCHEMA_FILE.read_text(encoding="utf-8"))
    return [statement.strip() for statement in bare.split(";\n") if statement.strip()]


def _has_view(connection: Connection) -> bool:
    """Whether `prices` is there as schema.sql has it. Two programs that replace it at once, on two nodes of a Galera
    cluster, may stop the cluster."""
    sql = "SELECT security_type FROM information_schema.views" + _HERE + " AND table_name = 'prices'"
    columns = "SELECT column_name FROM information_schema.columns" + _HERE + " AND table_name = 'prices'"
    names = [name for (name,) in select(connection, columns + " ORDER BY ordinal_position")]
    return select(connection, sql) == [("INVOKER",)] and names == ["timestamp", "symbol", "price"]


def _version(connection: Connection) -> int | None:
    try:
        ((version,),) = select(connection, "SELECT MAX(version) FROM schema_version")
    except mysql.connector.ProgrammingError as error:
        # A table of that name without that column is another program's, of which _check tells.
        if error.errno not in (
            errorcode.ER_NO_SUCH_TABLE,
            errorcode.ER_BAD_FIELD_ERROR,
        ):
            raise
        return None
    return version if isinstance(version, int) else None


# ---- What is there already.


def _check(connection: Connection) -> None:
    """Raises FatalError if a table of ours exists already and cannot be used, as one that another program has made."""
    kinds = dict(select(connection, "SELECT table_name, table_type FROM information_schema.tables" + _HERE))
    if kinds.get("prices", "VIEW") != "VIEW":
        raise _unusable(connection, "prices is a table, where this program needs the name for a view")
    for name, table in _tables().items():
        if name in kinds:
            _check_table(connection, name, table)


def _check_table(connection: Connection, name: str, table: _Table) -> None:
    found = _columns(connection, name)
    for column, wanted in table.columns.items():
        if column not in found:
            if column in _ADDED.get(name, ()):
                continue
            raise _unusable(connection, f"{name} has no column `{column}`, which should be {_words(wanted)}")
        if not _fits(found[column], wanted):
            raise _unusable(
                connection,
                f"{name} has the column `{column}` as {_words(found[column])}, and this program needs it as"
                f" {_words(wanted)}",
            )
    for column in found.keys() - table.columns.keys():
        if not found[column].nullable and not found[column].line:
            raise _unusable(connection, f"{name} has a column `{column}` that must have a value, and no default one")
    sql = "SELECT column_name FROM information_schema.statistics" + _HERE
    sql += " AND table_name = %s AND index_name = 'PRIMARY' ORDER BY seq_in_index"
    key = [str(column) for (column,) in select(connection, sql, (name,))]
    if key != table.key:
        raise _unusable(connection, f"{name} has the primary key ({', '.join(key)}), not ({', '.join(table.key)})")
    sql = "SELECT engine FROM information_schema.engines WHERE transactions = 'NO' AND engine IN"
    sql += f" (SELECT engine FROM information_schema.tables{_HERE} AND table_name = %s)"
    for (engine,) in select(connection, sql, (name,)):
        raise _unusable(connection, f"{name} has the engine {engine}, which has no transactions; InnoDB has")


def _columns(connection: Connection, table: str) -> dict[str, _Column]:
    """The columns that a table has; `line` is its default value, empty if there is none."""
    sql = "SELECT column_name, column_type, is_nullable, collation_name, column_default, extra"
    sql += f" FROM information_schema.columns{_HERE} AND table_name = %s"
    return {
        str(name): _Column(
            _normal(str(kind)),
            nullable == "YES",
            collation,
            "default" if default is not None or "auto_increment" in str(extra) else "",
        )
        for name, kind, nullable, collation, default, extra in select(connection, sql, (table,))
    }


def _fits(found: _Column, wanted: _Column) -> bool:
    return found[:2] == wanted[:2] and wanted.collation in (None, found.collation)


def _unusable(connection: Connection, why: str) -> FatalError:
    ((database,),) = select(connection, "SELECT DATABASE()")
    return FatalError(
        f"MYSQL_DATABASE={database} cannot be used: its table {why}. Set MYSQL_DATABASE to another name, or rename"
        " that table; nothing was changed"
    )


def _words(column: _Column) -> str:
    collation = f" {column.collation}" if column.collation else ""
    return f"{column.type.upper()}{collation}{'' if column.nullable else ' NOT NULL'}"


def _normal(kind: str) -> str:
    """A type as both families spell it: MariaDB gives a display width to integers, MySQL no longer does."""
    return re.sub(r"^(tinyint|int|bigint)\(\d+\)", r"\1", kind.lower().replace("boolean", "tinyint"))


def _tables() -> dict[str, _Table]:
    """What schema.sql creates, by name."""
    found = {}
    for statement in statements():
        if match := re.match(r"CREATE TABLE IF NOT EXISTS (\w+) \((.*)\)", statement, re.S):
            name, body = match.groups()
            columns = {}
            for line in map(str.strip, body.splitlines()):
                if (parts := _COLUMN.match(line)) and parts[1] not in ("PRIMARY", "KEY"):
                    collation = "utf8mb4_bin" if "COLLATE utf8mb4_bin" in line else None
                    columns[parts[1]] = _Column(_normal(parts[2]), "NOT NULL" not in line, collation, line.rstrip(","))
            key = re.search(r"PRIMARY KEY \((.*?)\)", body)
            assert key is not None
            found[name] = _Table(columns, re.findall(r"\w+", key[1]))
    return found


_VIEW = " VIEW prices "
_HERE = " WHERE table_schema = DATABASE()"
_COLUMN = re.compile(r"`?(\w+)`?\s+([A-Z]+(?:\([0-9,]+\))?(?: UNSIGNED)?)")


# ---- From one version to the next.


def _rename_writers(connection: Connection) -> None:
    """So that a capture of version 1 that still runs stores nothing more, which would be in no bar: it would write to
    `writers`, fails, and puts its trades into its spool."""
    sql = "SELECT table_name FROM information_schema.tables" + _HERE + " AND table_name IN ('writers', 'symbols')"
    if [name for (name,) in select(connection, sql)] == ["writers"]:
        # MySQL looks at the new name first.
        done = errorcode.ER_NO_SUCH_TABLE, errorcode.ER_TABLE_EXISTS_ERROR
        _once(connection, "RENAME TABLE writers TO symbols", *done)


def _add_columns(connection: Connection) -> None:
    """The rows of `candles` stay, with 0 trades, and are made again by the sealing; nothing reads them before that."""
    for name, table in _tables().items():
        found, added, before = _columns(connection, name), [], ""
        for column, wanted in table.columns.items():
            if found and column not in found:
                added.append(f"ADD COLUMN {wanted.line} AFTER {before}")
            before = f"`{column}`"
        if added:
            _once(connection, f"ALTER TABLE {name} {', '.join(added)}", errorcode.ER_DUP_FIELDNAME)


def _once(connection: Connection, statement: str, *done: int) -> None:
    """Runs a statement; `done` are the errors of the server if another program has done the same just before."""
    try:
        run(connection, statement)
    except mysql.connector.Error as error:
        if error.errno not in done:
            raise


_ADDED = {
    "candles": ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume", "trades"),
    "symbols": ("sealed_until", "fence"),
}
"""Columns that a table of an earlier version has not."""
_MIGRATIONS: dict[int, tuple[Callable[[Connection], None], ...]] = {2: (_rename_writers, _add_columns)}
"""The steps to each version from the one before."""
