"""The accounts of tools.users: what each does every day works, and whatever is more is refused, on both families."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mysql.connector
import pytest

import config
import db
from process.child import ROOT
from storage.accounts import RIGHTS
from tests.support.servers import Server
from tests.support.stand_in import StandIn
from tests.support.tables import ask

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

S_MAX = 60.0
REFUSED = (1044, 1045, 1142, 1143, 1227, 1290, 1410)
"""No right to a database, table, column, or to what only an administrator may."""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(server: Server, database: str, tmp_path: Path) -> Iterator[Run]:
    """Runs a command as an account (None: the administrator). At the end the accounts are gone."""
    # Of each test its own, because accounts are the whole server's.
    name = database.removeprefix("test_")

    def run_as(role: str | None, *line: str, **more: str) -> subprocess.CompletedProcess[str]:
        who = {}
        if role is not None:
            who["MYSQL_USER"] = f"{name}_{role}"
            who["MYSQL_PASSWORD"] = (tmp_path / "passwords" / role).read_text().strip()
        environ = {**server.environ, "MYSQL_DATABASE": database, "DATA_DIR": str(tmp_path), **who, **more}
        return subprocess.run(
            [sys.executable, *line], cwd=ROOT, env=os.environ | environ, capture_output=True, text=True, timeout=S_MAX
        )

    yield run_as
    with server.connect() as root:
        for role in RIGHTS:
            ask(root, f"DROP USER IF EXISTS '{name}_{role}'@'%'")


@pytest.fixture
def name(database: str) -> str:
    """What the names of the accounts begin with."""
    return database.removeprefix("test_")


def set_up(run: Run, name: str) -> str:
    """What `tools.users` prints."""
    done = run(None, "-m", "tools.users", "--name", name, "--host", "%")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def connected(settings: config.Settings, role: str) -> db.Connection:
    """A connection of an account, as the programs open it."""
    password = (settings.data_dir / "passwords" / role).read_text().strip()
    user = f"{settings.mysql_database.removeprefix('test_')}_{role}"
    return db.connect(settings._replace(mysql_user=user, mysql_password=password), create=False)


def test_each_does_its_work(run: Run, name: str, database: str, server: Server, tmp_path: Path) -> None:
    """The writer captures, fills gaps and audits; the reader reports and exports; the migrator makes the tables."""
    set_up(run, name)
    with StandIn("--port", "0", "--rate", "200", "--rest-lag", "0") as exchange:
        urls = {"BINANCE_WS_URL": exchange.ws, "BINANCE_REST_URL": exchange.http, "BINANCE_ARCHIVE_URL": exchange.http}
        captured = run("writer", "ws_client.py", "--duration", "8", **urls)
        assert captured.returncode == 0, captured.stderr
        assert "no bar is sealed any more" not in captured.stderr
        with server.connect() as root:
            ask(root, f"DELETE FROM {database}.trades WHERE symbol = 'BTCUSDT' ORDER BY timestamp LIMIT 1")
            root.commit()
        filled = run("writer", "backfill.py", **urls)
        assert filled.returncode == 0, filled.stderr
        audited = run("writer", "audit.py", "--since", "2026-01-01", "--against", "none", **urls)
    assert "contiguous" in audited.stdout, audited.stderr
    for role in ("reader", "writer"):
        report = run(role, "query_examples.py")
        assert (report.returncode, report.stderr) == (0, ""), role
    exported = run("reader", "-m", "tools.export", "csv", str(tmp_path / "trades.csv"), "--symbol", "BTCUSDT")
    assert exported.returncode == 0, exported.stderr


def test_the_migrator_makes_the_tables(run: Run, name: str, database: str, server: Server, tmp_path: Path) -> None:
    """Which the writer cannot; and passwords are in files that only this account of the system can read."""
    said = set_up(run, name)
    assert said.count("its password is in") == 3
    for role in RIGHTS:
        path = tmp_path / "passwords" / role
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_text().strip() not in said
    with server.connect() as root:
        ask(root, f"DROP DATABASE {database}")
        ask(root, f"CREATE DATABASE {database}")
    refused, made = run("writer", "-m", "tools.migrate"), run("migrator", "-m", "tools.migrate")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert (made.returncode, f"{database} on" in made.stdout) == (0, True), made.stderr


OF_NOBODY = (
    "CREATE DATABASE other_{database}",
    "DROP DATABASE {database}",
    "CREATE USER 'more'@'%' IDENTIFIED BY 'x'",
    "GRANT SELECT ON {database}.* TO CURRENT_USER()",
    "SET GLOBAL max_connections = 10",
    "SELECT * FROM mysql.user",
    "SELECT 1 INTO OUTFILE '/tmp/{database}'",
)
CHANGES_TABLES = (
    "CREATE TABLE more (a INT)",
    "DROP TABLE trades",
    "ALTER TABLE trades ADD COLUMN a INT",
    "TRUNCATE trades",
)
NOT_ON_MARIADB = {
    "writer": ("UPDATE trades SET price = 1", "UPDATE trades SET timestamp = timestamp"),
    "reader": ("SELECT * FROM symbols FOR UPDATE",),
    "migrator": (),
}
"""What MySQL refuses, and MariaDB cannot."""
CHANGES_HISTORY = (
    "UPDATE proofs SET verdict = 'equal'",
    "DELETE FROM proofs",
    "DELETE FROM archive_files",
    "UPDATE candles SET high = 1",
    "INSERT INTO schema_version (version) VALUES (99)",
)
WRITES = (
    "INSERT INTO symbols (symbol, token) VALUES ('X', 1)",
    "DELETE FROM trades",
    "DELETE FROM gaps",
    "UPDATE symbols SET token = 1",
)
FORBIDDEN = {
    "writer": OF_NOBODY + CHANGES_TABLES + CHANGES_HISTORY,
    "reader": OF_NOBODY + CHANGES_TABLES + CHANGES_HISTORY + WRITES,
    "migrator": OF_NOBODY[:1] + OF_NOBODY[2:],
}


@pytest.mark.parametrize("role", list(FORBIDDEN))
def test_each_can_do_no_more(
    run: Run, server: Server, settings: config.Settings, role: str, connection: db.Connection
) -> None:
    """No other table, no proof, no account, no setting of the server; on MySQL no price and no lock."""
    name = settings.mysql_database.removeprefix("test_")
    set_up(run, name)
    opened = connected(settings, role)
    more = () if server.family == "mariadb" else NOT_ON_MARIADB[role]
    allowed = [sql for sql in (*FORBIDDEN[role], *more) if not is_refused(opened, settings, sql)]
    assert allowed == []
    db.close(opened)


def is_refused(opened: db.Connection, settings: config.Settings, sql: str) -> bool:
    """Whether the account has no right to a statement."""
    try:
        ask(opened, sql.format(database=settings.mysql_database))
    except mysql.connector.Error as error:
        if error.errno not in REFUSED:
            raise
        return True
    return False


def test_what_an_account_could_do_beyond_is_taken_away(
    run: Run, name: str, database: str, server: Server, settings: config.Settings
) -> None:
    """And told; run again, nothing is left to tell, and a program that is logged in stays so."""
    set_up(run, name)
    opened = connected(settings, "reader")
    who = f"'{name}_reader'@'%'"
    with server.connect() as root:
        before = sorted(ask(root, f"SHOW GRANTS FOR {who}"))
        ask(root, f"GRANT INSERT, UPDATE ON {database}.trades TO {who}")
        ask(root, f"GRANT SELECT, DELETE ON *.* TO {who} WITH GRANT OPTION")
    said = set_up(run, name)
    assert said.count("taken away") == 2
    with server.connect() as root:
        # Everything: what is taken away has what it needs in it.
        ask(root, f"GRANT ALL PRIVILEGES ON `{database.replace('_', chr(92) + '_')}`.* TO {who}")
    assert "taken away: ALL PRIVILEGES on" in set_up(run, name)
    assert "INSERT, UPDATE on" in said
    assert "GRANT OPTION on *.*" in said
    with server.connect() as root:
        assert sorted(ask(root, f"SHOW GRANTS FOR {who}")) == before
    assert "taken away" not in set_up(run, name)
    assert ask(opened, "SELECT COUNT(*) FROM trades") == [(0,)]
    db.close(opened)


@pytest.mark.parametrize("everywhere", [False, True])
def test_an_account_that_could_do_everything(
    run: Run, name: str, database: str, server: Server, everywhere: bool
) -> None:
    """Even hand rights on: GRANT OPTION is no right that a REVOKE takes together with ALL PRIVILEGES."""
    set_up(run, name)
    who, place = f"'{name}_reader'@'%'", "*.*" if everywhere else f"`{database.replace('_', chr(92) + '_')}`.*"
    with server.connect() as root:
        before = sorted(ask(root, f"SHOW GRANTS FOR {who}"))
        ask(root, f"GRANT ALL PRIVILEGES ON {place} TO {who} WITH GRANT OPTION")
    assert f"GRANT OPTION on {place}" in set_up(run, name)
    with server.connect() as root:
        assert sorted(ask(root, f"SHOW GRANTS FOR {who}")) == before
    assert "taken away" not in set_up(run, name)


def test_a_table_of_a_new_version(
    run: Run, name: str, database: str, server: Server, settings: config.Settings
) -> None:
    """Run again, it makes the table and lets the writer store in it: the migrator alone could not."""
    set_up(run, name)
    with server.connect() as root:
        ask(root, f"REVOKE ALL PRIVILEGES ON {database}.retained FROM '{name}_writer'@'%'")
        ask(root, f"DROP TABLE {database}.retained")
        ask(root, f"UPDATE {database}.schema_version SET version = 3")
        root.commit()
    migrated = run("migrator", "-m", "tools.migrate")
    assert migrated.returncode == 0, migrated.stderr
    opened = connected(settings, "writer")
    before = is_refused(opened, settings, "DELETE FROM retained")
    set_up(run, name)
    after = is_refused(opened, settings, "DELETE FROM retained")
    db.close(opened)
    assert (before, after) == (True, False)


@pytest.mark.parametrize(
    ("flags", "words"), [(["--name", "a b"], "--name='a b'"), (["--name", "x" * 21], "letters, digits")]
)
def test_a_mistake_is_one_line(run: Run, flags: list[str], words: str) -> None:
    """It names the value."""
    done = run(None, "-m", "tools.users", *flags)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert words in done.stderr


def test_the_private_server_has_no_accounts(tmp_path: Path) -> None:
    """It lets in one account of the system alone."""
    environ = os.environ | {"MYSQL_HOST": "", "MYSQL_UNIX_SOCKET": "", "DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "tools.users"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=S_MAX
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "MYSQL_HOST" in done.stderr


def test_a_migrator_without_a_server_is_a_mistake(tmp_path: Path) -> None:
    """It would bring a new private server up to date, and say that all is well."""
    environ = os.environ | {"MYSQL_HOST": "", "MYSQL_UNIX_SOCKET": "", "DATA_DIR": str(tmp_path / "data")}
    environ |= {"MYSQL_USER": "binance_migrator", "MYSQL_PASSWORD": "x"}
    done = subprocess.run(
        [sys.executable, "-m", "tools.migrate"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=S_MAX
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "MYSQL_UNIX_SOCKET" in done.stderr
    assert not (tmp_path / "data").exists()


def test_an_empty_password_is_refused(run: Run, tmp_path: Path) -> None:
    """Nobody gets an account that everybody can use."""
    (tmp_path / "passwords").mkdir()
    (tmp_path / "passwords" / "reader").write_text("\n")
    done = run(None, "-m", "tools.users")
    assert done.returncode == 2
    assert str(tmp_path / "passwords" / "reader") in done.stderr
