"""The accounts of the programs, each with the rights that it needs and no other.

`writer`: the capture, back-fill, audit and retention. It cannot change a proof, nor a table, nor, on MySQL, a price.
`reader`: reports, API, exports, mirror. `migrator`: creates the tables and changes those of an earlier version.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from storage.errors import guard
from storage.session import Connection, run, select

WRITER, READER, MIGRATOR = "writer", "reader", "migrator"
WHOLE = "*"

Rights = dict[str, tuple[str, ...]]
"""By table, or WHOLE for the database."""

_READ = ("SELECT",)
RIGHTS: dict[str, Rights] = {
    WRITER: {
        # A repeat names a column that stays as it is: for that one alone a right to change is needed (see _of_family).
        "trades": ("SELECT", "INSERT", "DELETE", "UPDATE (`trade_id`)"),
        "candles": ("SELECT", "INSERT", "DELETE"),
        "gaps": ("SELECT", "INSERT", "DELETE"),
        "symbols": ("SELECT", "INSERT", "UPDATE"),
        "proofs": ("SELECT", "INSERT"),
        "archive_files": ("SELECT", "INSERT", "UPDATE (`symbol`)"),
        "retained": ("SELECT", "INSERT", "UPDATE", "DELETE"),
        "prices": _READ,
        "schema_version": _READ,
    },
    # A dump reads how the view is made.
    READER: {WHOLE: (*_READ, "SHOW VIEW")},
    MIGRATOR: {
        WHOLE: (
            *("SELECT", "INSERT", "UPDATE", "DELETE"),
            *("CREATE", "ALTER", "DROP", "INDEX", "CREATE VIEW", "SHOW VIEW"),
        )
    },
}


class Account(NamedTuple):
    """An account of the server; `host`: from where it may log in (`%`: from anywhere)."""

    name: str
    host: str
    password: str


@guard
def set_up(connection: Connection, account: Account, database: str, rights: Rights) -> list[str]:
    """Creates the account, or gives it its password again, and leaves it `rights` on `database` alone: what it could do
    beyond that before, a line each. `connection` is an administrator's. Raises the exceptions of storage/errors.py."""
    who = account.name, account.host
    rights = _of_family(connection, rights)
    run(connection, "CREATE USER IF NOT EXISTS %s@%s IDENTIFIED BY %s", account)
    run(connection, "ALTER USER %s@%s IDENTIFIED BY %s", account)
    wanted = {_place(database, table): given for table, given in rights.items()}
    # First what it needs, so that a program that is running never misses anything.
    _grant(connection, who, wanted)
    surplus = list(_revoked(connection, who, wanted))
    if surplus:
        # ALL PRIVILEGES, taken away, takes along what was needed.
        _grant(connection, who, wanted)
    return surplus


def _grant(connection: Connection, who: tuple[str, str], wanted: dict[str, tuple[str, ...]]) -> None:
    for place, given in wanted.items():
        run(connection, f"GRANT {', '.join(given)} ON {place} TO %s@%s", who)


def _of_family(connection: Connection, rights: Rights) -> Rights:
    """MariaDB wants the right to change every column that an INSERT … ON DUPLICATE KEY UPDATE names, whatever it
    changes (seen with 10.11)."""
    if "MariaDB" not in select(connection, "SELECT VERSION()")[0][0]:
        return rights
    return {table: tuple(one.partition(" (")[0] for one in given) for table, given in rights.items()}


def _place(database: str, table: str) -> str:
    # In a grant on a whole database, _ stands for any character.
    if table == WHOLE:
        return f"`{database.replace('_', chr(92) + '_')}`.*"
    return f"`{database}`.`{table}`"


def _revoked(connection: Connection, who: tuple[str, str], wanted: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """Takes away what the server says that the account has beyond `wanted`."""
    for (line,) in select(connection, "SHOW GRANTS FOR %s@%s", who):
        found = _GRANT.match(line)
        if found is None:
            role = re.match(r"GRANT (.+) TO ", line)
            if role:
                run(connection, f"REVOKE {role[1]} FROM %s@%s", who)
                yield role[1]
            continue
        given, place = _split(found[1]), found[2]
        surplus = [one for one in given if one not in ("USAGE", *wanted.get(place, ()))]
        option = ["GRANT OPTION"] if found[3] else []
        # Beside ALL PRIVILEGES it is an error of syntax. Beside others it is needed: without it MySQL leaves what the
        # account may hand on, such as BACKUP_ADMIN (seen with 9.7).
        lists = [option, surplus] if "ALL PRIVILEGES" in surplus else [surplus + option]
        for taken in filter(None, lists):
            run(connection, f"REVOKE {', '.join(taken)} ON {place} FROM %s@%s", who)
            yield f"{', '.join(taken)} on {place}"


_GRANT = re.compile(r"GRANT (.+?) ON (\S+) TO .*?( WITH GRANT OPTION)?$")


def _split(rights: str) -> Sequence[str]:
    """The rights of a line; the columns of one are in parentheses."""
    return re.findall(r"[^,(]+(?:\([^)]*\))?", rights.replace(", ", ","))
