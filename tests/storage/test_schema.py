"""The schema: databases of the version before, databases of other programs, and programs that are killed in between."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

import config
import db
from process.child import ROOT
from storage import schema, sealing
from tests.makers import trade
from tests.storage.test_processes import ended, forked
from tests.support import version_1
from tests.support.servers import Server
from tests.support.tables import ask, check, due, runs, sealed

pytestmark = pytest.mark.slow

BEGIN = datetime(2025, 3, 1, tzinfo=UTC)
END = BEGIN + timedelta(days=2)


@pytest.fixture
def root(server: Server, database: str) -> Iterator[Any]:
    """The operator's connection, in the test's database, which is empty."""
    with closing(server.connect()) as opened:
        opened.autocommit = True
        ask(opened, f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
        ask(opened, f"USE {database}")
        yield opened


def shape(connection: Any) -> list[Any]:
    """All columns and keys of the database, in order."""
    columns = "SELECT table_name, column_name, ordinal_position, column_type, is_nullable, collation_name"
    keys = "SELECT table_name, index_name, seq_in_index, column_name FROM information_schema.statistics"
    views = "SELECT table_name, security_type FROM information_schema.views"
    here = "WHERE table_schema = DATABASE() ORDER BY 1, 2, 3"
    return [
        ask(connection, f"{columns} FROM information_schema.columns {here}"),
        ask(connection, f"{keys} {here}"),
        ask(connection, f"{views} WHERE table_schema = DATABASE()"),
    ]


def rows(connection: Any) -> list[Any]:
    """What the migration must keep."""
    tables = {"trades": "*", "gaps": "*", "candles": "symbol, resolution, timestamp, open, high, low, close"}
    return [ask(connection, f"SELECT {columns} FROM {table} ORDER BY 1, 2, 3") for table, columns in tables.items()]


def names(connection: Any) -> list[str]:
    """The tables and views that there are."""
    return [name for (name,) in ask(connection, "SHOW TABLES")]


# ---- From version 1.


def test_a_database_of_version_1_is_migrated(
    root: Any, settings: config.Settings, server: Server, tmp_path: Any, caplog: Any
) -> None:
    """The tables become those of a new database, every row stays, and it says so; then the bars are made anew."""
    version_1.make(root)
    before = rows(root)

    with closing(db.connect(settings)) as connection:
        assert rows(root) == before
        assert ask(root, "SELECT version FROM schema_version ORDER BY 1") == [(1,), (4,)]
        assert [record.getMessage() for record in caplog.records if record.name == "schema"] == [
            "the database has schema version 1: it is changed to version 4 now",
            "the database has schema version 4 now",
        ]
        assert ask(root, "SELECT symbol, token, sealed_until FROM symbols") == [
            ("BTCUSDT", 17, None),
            ("ETHUSDT", 17, None),
        ]
        for symbol in ("BTCUSDT", "ETHUSDT"):
            sealing.seal_history(connection, symbol)
            assert [bar for bar in sealed(connection, symbol) if bar.trades] == due(connection, symbol)
            check(connection, symbol)
        old = ask(root, "SELECT COUNT(*) FROM candles WHERE trades = 0 AND resolution = 60")
        assert old == [(2,)]  # The minutes that are not over.

    with closing(db.connect(server.settings(f"{settings.mysql_database}_new", tmp_path))) as fresh:
        assert shape(root) == shape(fresh)
        ask(fresh, f"DROP DATABASE {settings.mysql_database}_new")


def test_reports_run_while_it_is_migrated(root: Any, settings: config.Settings) -> None:
    """Before, during and after the migration and the sealing, every answer is the same, and none fails."""
    version_1.make(root)
    answers: list[Any] = []
    stop = threading.Event()

    def report() -> None:
        with closing(db.connect(settings, read_only=True)) as reader:
            while not stop.is_set():
                bars = db.candles(reader, "BTCUSDT", 3_600, BEGIN, END)
                answers.append((db.latest(reader, "BTCUSDT"), db.min_max(reader, "BTCUSDT", BEGIN, END), bars))

    threads = [threading.Thread(target=report) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        while len(answers) < 3:
            assert all(thread.is_alive() for thread in threads)
        with closing(db.connect(settings)) as connection:
            sealing.seal_history(connection, "BTCUSDT", timedelta(minutes=7))
        done = len(answers)
        while len(answers) < done + 3:
            assert all(thread.is_alive() for thread in threads)
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert all(answer == answers[0] for answer in answers)
    assert answers[0][1].trades == version_1.ROWS - 10


def test_an_answer_is_repeated_if_its_table_was_changed(
    connection: db.Connection, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns that are added between the beginning of an answer and its look at the table make that look impossible."""
    rows = [trade(number, BEGIN + timedelta(minutes=number), str(number)) for number in range(1, 9)]
    db.insert_trades(connection, rows)
    assert db.seal(connection, ["BTCUSDT"], None, BEGIN + timedelta(minutes=6))
    until, changes = sealing.sealed_until, iter(range(2))

    def changing(*arguments: Any) -> Any:
        for number in changes:
            ask(connection, f"ALTER TABLE candles ADD COLUMN note{number} INT NULL AFTER low")
            break
        return until(*arguments)

    monkeypatch.setattr("storage.ranges.sealed_until", changing)
    with closing(db.connect(settings, read_only=True)) as reader:
        found = db.min_max(reader, "BTCUSDT", BEGIN, END)
    assert found is not None
    assert (found.low, found.high) == (rows[0], rows[-1])


def test_a_reader_of_the_new_program_reads_an_old_database(root: Any, settings: config.Settings) -> None:
    """It may not change it, and answers from the trades alone."""
    version_1.make(root, 2_000)
    with closing(db.connect(settings, read_only=True)) as reader:
        assert db.min_max(reader, "BTCUSDT", BEGIN, END) == db.min_max_by_scan(reader, "BTCUSDT", BEGIN, END)
        assert sum(bar.trades for bar in db.candles(reader, "BTCUSDT", 60, BEGIN, END)) == 2_000
    assert "symbols" not in names(root)


STATEMENTS_MAX = 60


def test_a_migration_that_is_killed_goes_on(root: Any, settings: config.Settings, database: str) -> None:
    """SIGKILL before any of its statements: the next program does the rest, and the result is the same."""
    codes = []
    for number in range(1, STATEMENTS_MAX):
        version_1.make(root, 50)
        before = rows(root)
        codes.append(ended(forked_before(settings, number)))
        with closing(db.connect(settings)) as connection:
            assert rows(connection) == before
            assert ask(connection, "SELECT version FROM schema_version ORDER BY 1") == [(1,), (4,)]
            if number == 1:
                right = shape(connection)
            assert shape(connection) == right
            assert db.insert_trades(connection, [db.latest(connection, "ETHUSDT")._replace(trade_id=51)]) == 1  # type: ignore[union-attr]
        ask(root, f"DROP DATABASE {database}")
        ask(root, f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
        ask(root, f"USE {database}")
        if codes[-1] == 0:
            break
    assert codes[-1] == 0
    assert set(codes[:-1]) == {-signal.SIGKILL}
    assert len(codes) > 12


def forked_before(settings: config.Settings, number: int) -> int:
    """The pid of a process that connects, and is killed before its statement of that number."""

    def die(settings: config.Settings) -> None:
        run, sent = db.Connection.cmd_query, 0

        def count(opened: db.Connection, *arguments: Any, **options: Any) -> Any:
            nonlocal sent
            sent += 1
            if sent == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return run(opened, *arguments, **options)

        db.Connection.cmd_query = count  # type: ignore[method-assign]
        db.connect(settings)

    return forked(settings, lambda _: None, before=partial(die, settings))


def test_programs_that_migrate_together(root: Any, settings: config.Settings) -> None:
    """Several that find version 1 at the same moment: each gets version 4, without an error."""
    version_1.make(root, 500)
    before = rows(root)
    pids = [forked(settings, lambda _: None) for _ in range(4)]

    assert [ended(pid) for pid in pids] == [0] * 4
    assert rows(root) == before
    assert ask(root, "SELECT MAX(version) FROM schema_version") == [(4,)]


def test_a_long_report_holds_a_migration_up_for_a_while_only(
    root: Any, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that goes on and on keeps the columns as they are: it is worth another try, and says so soon, so
    that other readers do not queue behind it."""
    monkeypatch.setattr("storage.session.LOCK_WAIT_S_MAX", 1)
    version_1.make(root, 50)
    with closing(db.connect(settings, read_only=True)) as reader:
        ask(reader, "START TRANSACTION")
        ask(reader, "SELECT COUNT(*) FROM candles")
        with pytest.raises(db.ContentionError):
            db.connect(settings)
        ask(reader, "COMMIT")
    with closing(db.connect(settings)) as connection:
        assert ask(connection, "SELECT MAX(version) FROM schema_version") == [(4,)]


# ---- Of other programs.

KEY = "PRIMARY KEY (symbol, timestamp, trade_id)"
SYMBOL = "symbol VARCHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL"
WHOLE = (
    f"{SYMBOL}, timestamp DATETIME(3) NOT NULL, trade_id BIGINT UNSIGNED NOT NULL, price DECIMAL(20,8) NOT NULL,"
    " quantity DECIMAL(20,8) NOT NULL, buyer_is_maker BOOLEAN NOT NULL, received_at DATETIME(6) NULL"
)


def table_of(old: str = "", new: str = "", key: str = KEY, end: str = "") -> str:
    """The right table, but for a part."""
    assert old in WHOLE
    return f"CREATE TABLE trades ({WHOLE.replace(old, new) if old else WHOLE}, {key}) {end}"


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (
            table_of("price DECIMAL(20,8)", "price DOUBLE"),
            r"trades has the column `price` as DOUBLE .*DECIMAL\(20,8\)",
        ),
        (table_of("quantity DECIMAL(20,8)", "quantity DECIMAL(20,4)"), r"`quantity` as DECIMAL\(20,4\)"),
        (table_of("DATETIME(3)", "DATETIME"), r"`timestamp` as DATETIME NOT NULL.*needs it as DATETIME\(3\)"),
        (table_of("BIGINT UNSIGNED", "INT"), "`trade_id` as INT"),
        (table_of("utf8mb4_bin", "utf8mb4_general_ci"), "`symbol` as .*utf8mb4_general_ci"),
        (table_of("VARCHAR(32)", "VARCHAR(20)"), r"`symbol` as VARCHAR\(20\)"),
        (table_of("received_at DATETIME(6) NULL", "received_at DATETIME(6) NOT NULL"), "`received_at` as .* NOT NULL"),
        (table_of(", buyer_is_maker BOOLEAN NOT NULL"), "trades has no column `buyer_is_maker`"),
        (table_of("price D", "exchange INT NOT NULL, price D"), "a column `exchange` that must have a value"),
        (table_of(key="PRIMARY KEY (symbol, timestamp)"), r"the primary key \(symbol, timestamp\)"),
        (table_of(end="ENGINE = MyISAM"), "engine MyISAM"),
        ("CREATE TABLE candles (symbol VARCHAR(32) PRIMARY KEY, open DOUBLE)", "candles has the column `symbol`"),
        ("CREATE TABLE symbols (id INT PRIMARY KEY, name TEXT)", "symbols has no column `symbol`"),
        ("CREATE TABLE schema_version (version VARCHAR(50) PRIMARY KEY, script TEXT)", "schema_version has the column"),
        ("CREATE TABLE schema_version (installed_rank INT PRIMARY KEY)", "schema_version has no column `version`"),
        ("CREATE TABLE prices (id INT PRIMARY KEY)", "prices is a table"),
    ],
)
def test_a_table_of_another_program_is_refused(
    root: Any, settings: config.Settings, statement: str, words: str
) -> None:
    """One line names the column and the way out; nothing is created beside it."""
    ask(root, statement)
    before = shape(root)

    with pytest.raises(
        db.FatalError, match=f"MYSQL_DATABASE={settings.mysql_database} cannot be used.*{words}"
    ) as caught:
        db.connect(settings)

    assert "another name" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert shape(root) == before


def test_what_does_not_hurt_is_accepted(root: Any, settings: config.Settings) -> None:
    """A right table with a column more that need not have a value, beside tables of others."""
    ask(root, table_of("price D", "note VARCHAR(9) NULL, source INT NOT NULL DEFAULT 1, price D"))
    ask(root, "CREATE TABLE orders (id INT PRIMARY KEY)")
    with closing(db.connect(settings)) as connection:
        assert db.insert_trades(connection, [db.Trade("X", BEGIN, 1, 1, 1, False, None)]) == 1  # type: ignore[arg-type]
        assert runs(connection, "X") == []


def test_the_view_has_the_rights_of_who_asks(connection: db.Connection) -> None:
    """So that a reader of `prices` sees what he may see of `trades`, whoever created it."""
    sql = "SELECT security_type FROM information_schema.views WHERE table_schema = DATABASE() AND table_name = 'prices'"
    assert ask(connection, sql) == [("INVOKER",)]


def test_a_view_that_is_there_is_left_alone(connection: db.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is replaced only if it is another one: on a cluster two programs that replace it at once are in the way."""
    ran: list[str] = []

    def run(_: db.Connection, sql: str) -> None:
        ran.append(sql)
        ask(connection, sql)

    monkeypatch.setattr(schema, "run", run)
    for made, wanted in (
        ("SELECT 1", 0),
        ("CREATE OR REPLACE SQL SECURITY DEFINER VIEW prices AS SELECT `timestamp`, symbol, price FROM trades", 1),
        ("CREATE OR REPLACE SQL SECURITY INVOKER VIEW prices AS SELECT symbol, price FROM trades", 1),
        ("DROP VIEW prices", 1),
    ):
        ask(connection, made)
        ask(connection, "DELETE FROM schema_version")
        ran.clear()
        schema.apply(connection)
        assert sum("VIEW" in sql for sql in ran) == wanted
    test_the_view_has_the_rights_of_who_asks(connection)


def test_every_table_of_the_file_is_checked() -> None:
    """What is compared is read from schema.sql itself: no table and no column is overlooked."""
    found = schema._tables()
    text = (ROOT / "schema.sql").read_text()
    assert {f"CREATE TABLE IF NOT EXISTS {name}" for name in found} == {
        line.partition(" (")[0] for line in text.splitlines() if line.startswith("CREATE TABLE")
    }
    lines = [line for line in text.splitlines() if line.startswith("    ") and "KEY" not in line]
    assert sum(len(table.columns) for table in found.values()) == len(lines)
