"""Coming to a database: the session, the schema, the users and their rights, TLS."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import mysql.connector
import pytest

import config
import db
from process.child import ROOT
from storage import lines, schema, sealing, session
from tests.makers import MIDNIGHT, trade
from tests.support.servers import PrivateServer, Server
from tests.support.tables import ask
from tests.support.tls import needs_openssl
from tools.lab.tls import make_certificate, server_options

pytestmark = pytest.mark.slow

QUICK_S_MAX = float(session.CONNECT_S_MAX)
"""A server that is not there is known to be away within that time, the usual limit."""
UNKNOWN = "x" * 64
"""Too long a label for a name: nobody on the network is asked for it, who may be slow to answer."""
WAIT_S_MAX = 20.0


@pytest.fixture
def root(server: Server, database: str) -> Iterator[Any]:
    """The operator's connection: no database, every right."""
    with closing(server.connect()) as opened:
        opened.autocommit = True
        yield opened


def test_a_missing_database_is_created_with_all_that_is_in_it(
    settings: config.Settings, root: Any, database: str
) -> None:
    """The first connect makes the database, the tables, the view and last the version."""
    db.close(db.connect(settings))

    assert {name for (name,) in ask(root, f"SHOW TABLES FROM {database}")} == {
        "trades",
        "candles",
        "proofs",
        "retained",
        "archive_files",
        "gaps",
        "symbols",
        "prices",
        "schema_version",
    }
    assert ask(root, f"SELECT version FROM {database}.schema_version") == [(schema.SCHEMA_VERSION,)]
    assert "version" in schema.statements()[-1]


def test_the_session_is_as_promised(connection: db.Connection, settings: config.Settings) -> None:
    """UTC, strict, utf8mb4, READ COMMITTED, autocommit and a bounded wait, for writers and readers alike."""
    for opened in (connection, db.connect(settings, read_only=True)):
        variables = dict(ask(opened, "SHOW SESSION VARIABLES"))
        isolation = variables.get("transaction_isolation") or variables["tx_isolation"]
        assert isolation == "READ-COMMITTED"
        assert variables["time_zone"] == "+00:00"
        assert variables["autocommit"] == "ON"
        assert variables["character_set_client"] == variables["character_set_results"] == "utf8mb4"
        assert variables["innodb_lock_wait_timeout"] == str(session.LOCK_WAIT_S_MAX)
        assert {"STRICT_ALL_TABLES", "NO_ZERO_DATE", "NO_ZERO_IN_DATE"} <= set(variables["sql_mode"].split(","))
        # With one of these modes, the quoting of symbols would have to be another one.
        assert not {"NO_BACKSLASH_ESCAPES", "ANSI_QUOTES"} & set(variables["sql_mode"].split(","))


def test_what_the_server_prefers_does_not_matter(root: Any, settings: config.Settings) -> None:
    """A server whose defaults are another time zone, lax modes and other escapes stores and shows the same."""
    names = ("time_zone", "sql_mode")
    ((zone, mode),) = ask(root, "SELECT @@GLOBAL.time_zone, @@GLOBAL.sql_mode")
    try:
        ask(root, "SET GLOBAL time_zone = '+05:30', GLOBAL sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES'")
        opened = db.connect(settings)
        made = trade(1, MIDNIGHT + timedelta(milliseconds=1), symbol="\\'\"")
        db.insert_trades(opened, [made])

        assert db.latest(opened, made.symbol) == made
        assert ask(opened, "SELECT CAST(timestamp AS CHAR) FROM trades") == [("2025-03-01 00:00:00.001",)]
        with pytest.raises(db.RefusedError):
            db.insert_trades(opened, [trade(2, symbol="A" * 33)])
        db.close(opened)
    finally:
        ask(root, f"SET GLOBAL {names[0]} = %s, GLOBAL {names[1]} = %s", zone, mode)


def test_the_schema_may_be_applied_again_and_again(settings: config.Settings) -> None:
    """Connecting, and running every statement of schema.sql once more, leaves the rows as they are."""
    first = db.connect(settings)
    db.insert_trades(first, [trade(1), trade(3)])
    tables = ["trades", "candles", "gaps", "symbols", "schema_version"]
    before = [ask(first, f"SELECT * FROM {table}") for table in tables]

    again = db.connect(settings)
    for statement in schema.statements():
        ask(again, statement)
    schema.apply(again)

    assert [ask(again, f"SELECT * FROM {table}") for table in tables] == before


def test_a_schema_that_was_interrupted_is_completed(settings: config.Settings, root: Any, database: str) -> None:
    """Stopped after any number of its statements, the schema is complete after the next connect."""
    statements = schema.statements()
    for done in range(len(statements)):
        ask(root, f"CREATE DATABASE {database}")
        ask(root, f"USE {database}")
        for statement in statements[:done]:
            ask(root, statement)

        opened = db.connect(settings)

        assert db.insert_trades(opened, [trade(1), trade(3)]) == 2
        assert ask(opened, "SELECT version FROM schema_version") == [(schema.SCHEMA_VERSION,)]
        db.close(opened)
        ask(root, f"DROP DATABASE {database}")


def test_a_newer_schema_is_refused(settings: config.Settings) -> None:
    """A database of a later release is not touched, and the message says both versions and the ways out."""
    newer = schema.SCHEMA_VERSION + 1
    ask(db.connect(settings), "INSERT INTO schema_version (version) VALUES (%s)", newer)

    with pytest.raises(db.FatalError, match=f"version {newer}.*knows {schema.SCHEMA_VERSION}.*MYSQL_DATABASE"):
        db.connect(settings)


def test_processes_that_start_together_share_one_schema(
    server: Server, database: str, tmp_path: Path, settings: config.Settings
) -> None:
    """Several programs that find no database at the same moment all get it, without an error."""
    code = "import db; input(); c = db.connect(); print(db.symbols(c))"
    environ = os.environ | server.environ | {"MYSQL_DATABASE": database, "DATA_DIR": str(tmp_path)}
    line = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(line, cwd=ROOT, env=environ, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(4)
    ]

    answers = []
    for process in started:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    for process in started:
        answers.append((*process.communicate(timeout=WAIT_S_MAX), process.returncode))

    assert answers == [("[]\n", "", 0)] * 4
    assert ask(db.connect(settings), "SELECT version FROM schema_version") == [(schema.SCHEMA_VERSION,)]


def test_a_reader_creates_nothing(settings: config.Settings, root: Any, database: str) -> None:
    """A report on a database that does not exist says so and names the variable, and there is still none."""
    with pytest.raises(db.FatalError, match="MYSQL_DATABASE"):
        db.connect(settings, read_only=True)

    assert ask(root, f"SHOW DATABASES LIKE '{database}'") == []


def test_a_reader_cannot_write(connection: db.Connection, settings: config.Settings) -> None:
    """The session of a report refuses every write, whatever its user may do."""
    db.insert_trades(connection, [trade(1)])
    reader = db.connect(settings, read_only=True)

    with pytest.raises(db.NotWritableError):
        db.insert_trades(reader, [trade(2)])
    for sql in ("DELETE FROM trades", "CREATE TABLE t (i INT)", "DROP TABLE trades", "TRUNCATE trades"):
        with pytest.raises(mysql.connector.Error):
            ask(reader, sql)

    assert db.latest(reader, "BTCUSDT") == trade(1)


def test_a_server_that_is_not_there_is_known_quickly(
    server: Server, database: str, tmp_path: Path, closed_port: int
) -> None:
    """A port without a server, an unknown host and a socket that is none are GoneError, and name the variables."""
    nowhere = [
        {"mysql_host": "127.0.0.1", "mysql_port": closed_port},
        {"mysql_host": UNKNOWN},
        {"mysql_unix_socket": str(tmp_path / "none")},
    ]
    for change in nowhere:
        before = time.monotonic()
        with pytest.raises(db.GoneError, match="MYSQL_HOST, MYSQL_PORT or MYSQL_UNIX_SOCKET"):
            db.connect(config.Settings()._replace(**change))  # type: ignore[arg-type]
        assert time.monotonic() - before < QUICK_S_MAX


def test_a_server_that_accepts_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port behind which nobody speaks the protocol costs the named wait and no more."""
    monkeypatch.setattr(session, "CONNECT_S_MAX", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        before = time.monotonic()
        with pytest.raises(db.GoneError):
            db.connect(config.Settings(mysql_host="127.0.0.1", mysql_port=silent.getsockname()[1]))
        assert time.monotonic() - before < QUICK_S_MAX


# ---- Users and their rights.


@pytest.fixture
def login(server: Server, root: Any, database: str, tmp_path: Path) -> Iterator[Callable[..., config.Settings]]:
    """A function that creates a user of that name and options, and gives the settings to come as it by TCP."""
    created = []

    def create(name: str, options: str = "IDENTIFIED BY 'secret'") -> config.Settings:
        account = f"'{name}_{database[-8:]}'@'%'"
        ask(root, f"CREATE USER {account} {options}")
        created.append(account)
        where = {"MYSQL_HOST": server.host, "MYSQL_PORT": str(server.port), "MYSQL_DATABASE": database}
        user = {"MYSQL_USER": f"{name}_{database[-8:]}", "MYSQL_PASSWORD": "secret", "DATA_DIR": str(tmp_path)}
        return config.load(where | user)

    if not server.host:
        pytest.skip("the server that MYSQL_* names is reached by its socket only")
    yield create
    for account in created:
        ask(root, f"DROP USER {account}")


def test_access_denied_is_fatal_and_names_the_variables(login: Callable[..., config.Settings]) -> None:
    """A wrong password, an unknown user, a user without a right and a locked one are nothing to retry."""
    user = login("plain")
    refused = [
        user._replace(mysql_password="wrong"),
        user._replace(mysql_user="nobody_at_all"),
        user,
        login("locked", "IDENTIFIED BY 'secret' ACCOUNT LOCK"),
        login("expired", "IDENTIFIED BY 'secret' PASSWORD EXPIRE"),
        login("tls", "IDENTIFIED BY 'secret' REQUIRE X509"),
    ]
    for wrong in refused:
        with pytest.raises(db.FatalError, match="MYSQL_USER and MYSQL_PASSWORD") as caught:
            db.connect(wrong)
        assert "secret" not in str(caught.value)


LEAST_RIGHTS = {
    "trades": "SELECT, INSERT, UPDATE",
    "candles": "SELECT, INSERT, DELETE",
    "gaps": "SELECT, INSERT, DELETE",
    "symbols": "SELECT, INSERT, UPDATE",
    "retained": "SELECT",
    "schema_version": "SELECT",
}
"""What the capture and the back-fill need on a database that somebody else has prepared."""


@pytest.mark.parametrize("by_table", [False, True])
def test_a_user_with_the_least_rights_can_capture(
    login: Callable[..., config.Settings], root: Any, connection: db.Connection, database: str, by_table: bool
) -> None:
    """On a prepared database the four plain rights are enough, and table by table even fewer."""
    user = login("least")
    account = f"'{user.mysql_user}'@'%'"
    grants = LEAST_RIGHTS if by_table else {"*": "SELECT, INSERT, UPDATE, DELETE"}
    for table, rights in grants.items():
        ask(root, f"GRANT {rights} ON {database}.{table} TO {account}")

    writer = db.connect(user)
    db.insert_trades(writer, [trade(1), trade(9)])
    ask(connection, "UPDATE gaps SET detected_at = '2025-01-01'")
    db.insert_trades(writer, [trade(5)])
    db.insert_trades(writer, [trade(4), trade(6)])
    db.give_up(writer, "BTCUSDT", 8, 8, "not served")

    assert [made.trade_id for made in db.trades_in_second(writer, "BTCUSDT", MIDNIGHT)] == [1, 4, 5, 6, 9]
    assert [gap[1:4] for gap in db.open_gaps(writer)] == [
        (2, 3, "missing in the stream"),
        (7, 7, "missing in the stream"),
        (8, 8, "not served"),
    ]
    with pytest.raises(mysql.connector.Error):
        ask(writer, "DROP TABLE trades")


def test_each_of_the_least_rights_is_needed(
    login: Callable[..., config.Settings], root: Any, connection: db.Connection, database: str
) -> None:
    """Without any one of them the capture says at once, and by class, that the operator must act."""
    user = login("less")
    account = f"'{user.mysql_user}'@'%'"
    for table, rights in LEAST_RIGHTS.items():
        ask(root, f"GRANT {rights} ON {database}.{table} TO {account}")
    number = 1
    for table, rights in LEAST_RIGHTS.items():
        for right in rights.split(", "):
            ask(root, f"REVOKE {right} ON {database}.{table} FROM {account}")
            number += 10
            with pytest.raises(db.FatalError, match="MYSQL_USER"):
                _capture(user, connection, number)
            ask(root, f"GRANT {right} ON {database}.{table} TO {account}")
    _capture(user, connection, number + 10)


def _capture(user: config.Settings, operator: db.Connection, number: int) -> None:
    """Everything that a capture does: connect, a new symbol, a gap, a part of it filled, bars, a report."""
    writer = db.connect(user)
    db.insert_trades(writer, [trade(1, symbol=f"NEW{number}")])
    db.insert_trades(writer, [trade(number), trade(number + 5)])
    ask(operator, "UPDATE gaps SET detected_at = '2025-01-01'")
    db.insert_trades(writer, [trade(number + 2)])
    since = db.sealable(writer)["BTCUSDT"].sealed_until or MIDNIGHT
    db.seal(writer, ["BTCUSDT"], None if since == MIDNIGHT else since, since + timedelta(hours=1))
    db.insert_trades(writer, [trade(number + 1)])
    db.latest(writer, "BTCUSDT")
    db.close(writer)


def test_a_read_only_server_is_no_reason_to_give_up(
    login: Callable[..., config.Settings], root: Any, connection: db.Connection, database: str
) -> None:
    """A server that was made read-only (a replica before its promotion) is worth a slow retry, which then works."""
    user = login("replica")
    ask(root, f"GRANT SELECT, INSERT, UPDATE, DELETE ON {database}.* TO '{user.mysql_user}'@'%'")
    writer = db.connect(user)
    try:
        ask(root, "SET GLOBAL read_only = ON")
        with pytest.raises(db.NotWritableError):
            db.insert_trades(writer, [trade(1)])
    finally:
        ask(root, "SET GLOBAL read_only = OFF")

    assert db.insert_trades(writer, [trade(1)]) == 1


# ---- TLS.


@needs_openssl
def test_a_named_ca_means_tls_with_a_server_of_that_ca(killable_server: PrivateServer, tmp_path: Path) -> None:
    """With MYSQL_SSL_CA the connection is encrypted and the server is the one; otherwise there is none."""
    for name in ("ours", "theirs"):
        make_certificate(tmp_path, name)
    folder, server = tmp_path, killable_server
    environ = server.environ | {"MYSQL_DATABASE": "ticks", "MYSQL_SSL_CA": str(folder / "ours-ca.pem")}
    server.stop()
    server._command += ["--skip-ssl"] if server.family == "mariadb" else ["--tls-version="]
    server.start()
    with pytest.raises(db.FatalError, match="MYSQL_SSL_CA"):
        db.connect(config.load(environ))
    server.stop()
    server._command.pop()
    server._command += server_options(folder, "ours")
    server.start()

    ((_, cipher),) = ask(db.connect(config.load(environ)), "SHOW SESSION STATUS LIKE 'Ssl_cipher'")

    assert cipher
    with pytest.raises(db.GoneError, match="MYSQL_SSL_CA"):
        db.connect(config.load(environ | {"MYSQL_SSL_CA": str(folder / "theirs-ca.pem")}))


def test_off_the_loopback_the_connection_is_encrypted_or_refused(
    login: Callable[..., config.Settings], root: Any, database: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MariaDB as Debian has it offers no TLS, MySQL does; before anything is sent, and unless MYSQL_TLS=off."""
    user = login("far")
    ask(root, f"GRANT ALL ON {database}.* TO '{user.mysql_user}'@'%'")
    db.close(db.connect(user))
    offered = ask(root, "SHOW GLOBAL VARIABLES LIKE 'have_ssl'") != [("have_ssl", "DISABLED")]
    monkeypatch.setattr(config, "is_loopback", lambda host: False)

    if offered:
        ((_, cipher),) = ask(db.connect(user), "SHOW SESSION STATUS LIKE 'Ssl_cipher'")
        assert cipher
    else:
        with pytest.raises(db.FatalError, match=rf"server at {server.host}:{server.port} does not.*MYSQL_SSL_CA.*=off"):
            db.connect(user)
    assert offered == (server.family != "mariadb")
    db.close(db.connect(user._replace(mysql_tls=False)))


DEFAULTS: dict[str, object] = {
    "sql_select_limit": 2,
    "max_join_size": 1,
    "completion_type": "CHAIN",
    "sql_safe_updates": 1,
    "sql_auto_is_null": 1,
    "autocommit": 0,
    "max_sort_length": 64,
}


def test_no_default_of_the_server_changes_an_answer(root: Any, settings: config.Settings) -> None:
    """A limit on rows, on joins, chained transactions …: what is stored, asked and exported is whole all the same."""
    names = dict(DEFAULTS)
    if ask(root, "SHOW GLOBAL VARIABLES LIKE 'transaction_read_only'"):
        names["transaction_read_only"] = 1
    before = {name: ask(root, f"SELECT @@GLOBAL.{name}")[0][0] for name in names}
    try:
        for name, value in names.items():
            ask(root, f"SET GLOBAL {name} = %s", value)
        writer = db.connect(settings)
        for first in (1, 40, 80):
            assert db.insert_trades(writer, [trade(number) for number in range(first, first + 30)]) == 30
            db.insert_trades(writer, [trade(first + 30)])
        sealing.seal_history(writer, "BTCUSDT")
        reader = db.connect(settings, read_only=True)
        times = MIDNIGHT, MIDNIGHT + timedelta(days=1)
        found = sum(chunk.rows for chunk in lines.lines(reader, "BTCUSDT", *times, lines.PLAIN))
        counted = db.min_max(reader, "BTCUSDT", *times)
        assert len(db.trades_in_second(reader, "BTCUSDT", MIDNIGHT)) == found == 93
        assert counted is not None
        assert counted.trades == 93
        assert len(db.open_gaps(reader)) == 2
        for one in (writer, reader):
            db.close(one)
    finally:
        for name, value in before.items():
            ask(root, f"SET GLOBAL {name} = %s", value)


def test_what_only_reads_creates_nothing(root: Any, settings: config.Settings, database: str) -> None:
    """Neither a database, nor its tables, nor a private server; and it says what is not there."""
    with pytest.raises(db.FatalError, match=database):
        db.connect(settings, read_only=True)
    with pytest.raises(db.FatalError, match=database):
        db.connect(settings, create=False)
    assert ask(root, f"SHOW DATABASES LIKE '{database}'") == []
    ask(root, f"CREATE DATABASE {database}")
    ways: tuple[dict[str, Any], ...] = ({"read_only": True}, {"create": False})
    for options in ways:
        with pytest.raises(db.NothingError, match=f"nothing was captured in database {database} on"):
            db.connect(settings, **options)
    assert ask(root, f"SHOW TABLES FROM {database}") == []
    private = config.Settings(data_dir=settings.data_dir / "empty")
    for options in ways:
        with pytest.raises(db.NothingError, match=f"DATA_DIR={private.data_dir}"):
            db.connect(private, **options)
    assert not private.data_dir.exists()


def test_a_table_of_another_program_is_named_by_who_reads(root: Any, settings: config.Settings, database: str) -> None:
    """What is wrong with it, and nothing is created beside it."""
    ask(root, f"CREATE DATABASE {database}")
    ask(root, f"CREATE TABLE {database}.trades (id INT PRIMARY KEY, pair TEXT)")
    ways: tuple[dict[str, Any], ...] = ({"read_only": True}, {"create": False}, {})
    for options in ways:
        with pytest.raises(db.FatalError, match=r"its table trades has no column `symbol`"):
            db.connect(settings, **options)
    assert ask(root, f"SHOW TABLES FROM {database}") == [("trades",)]


def test_the_view_outlives_the_account_that_made_it(root: Any, settings: config.Settings, database: str) -> None:
    """It has the rights of who asks, so nobody's account is needed."""
    ask(root, f"CREATE USER IF NOT EXISTS 'maker_{database[-6:]}'@'%' IDENTIFIED BY 'a-long-password'")
    ask(root, f"GRANT ALL ON *.* TO 'maker_{database[-6:]}'@'%'")
    host = {"mysql_unix_socket": None, "mysql_host": "127.0.0.1", "mysql_port": ask(root, "SELECT @@port")[0][0]}
    maker = settings._replace(mysql_user=f"maker_{database[-6:]}", mysql_password="a-long-password", **host)
    connection = db.connect(maker)
    db.insert_trades(connection, [trade(1)])
    db.close(connection)
    ask(root, f"DROP USER 'maker_{database[-6:]}'@'%'")

    assert len(ask(root, f"SELECT * FROM {database}.prices")) == 1


def test_a_login_that_needs_tls_says_so(monkeypatch: pytest.MonkeyPatch, settings: config.Settings) -> None:
    """The server's number for it is that of any failed plugin, and the password is not what is wrong."""

    def refuse(**_options: object) -> None:
        raise mysql.connector.InterfaceError("Authentication requires secure connection.", errno=2061)

    monkeypatch.setattr(session, "Connection", refuse)
    with pytest.raises(db.AccessError, match=r"TLS.*the password is not what is wrong"):
        db.connect(settings)
